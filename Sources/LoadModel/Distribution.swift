// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// How sizes are spread. Each has a least and a greatest value that what it gives is held to.
package indirect enum SizeDistribution: Sendable, Equatable {
    case fixed(Double)
    case uniform(low: Double, high: Double)
    case normal(mean: Double, deviation: Double)
    /// The logarithm is normal: half of all lie under `median`.
    case lognormal(median: Double, sigma: Double)
    case exponential(mean: Double)
    /// Generalised extreme values, as Facebook's key sizes.
    case extreme(location: Double, scale: Double, shape: Double)
    /// Generalised Pareto, as Facebook's value sizes.
    case pareto(location: Double, scale: Double, shape: Double)
    /// The first values with their probabilities, and another distribution for the rest.
    case discrete([(Double, Double)], rest: SizeDistribution)

    /// A number of the distribution, from evenly spread numbers of `random`.
    package func sample(_ random: inout RandomSource) -> Double {
        switch self {
        case .fixed(let value): return value
        case .uniform(let low, let high): return low + (high - low) * random.unit()
        case .normal(let mean, let deviation): return mean + deviation * random.normal()
        case .lognormal(let median, let sigma): return median * exp(sigma * random.normal())
        case .exponential(let mean): return mean * random.exponential()
        case .extreme(let location, let scale, let shape):
            let depth = random.exponential()
            if shape == 0 { return location - scale * log(depth) }
            return location + scale * (pow(depth, -shape) - 1) / shape
        case .pareto(let location, let scale, let shape):
            let rest = 1 - random.unit()
            if shape == 0 { return location - scale * log(rest) }
            return location + scale * (pow(rest, -shape) - 1) / shape
        case .discrete(let first, let rest):
            var left = random.unit()
            for (value, probability) in first {
                if left < probability { return value }
                left -= probability
            }
            return rest.sample(&random)
        }
    }

    /// A whole number of bytes from `least` to `greatest`.
    package func bytes(_ random: inout RandomSource, least: Int, greatest: Int) -> Int {
        let value = sample(&random)
        guard value < Double(greatest) else { return greatest }
        return value > Double(least) ? Int(value.rounded()) : least
    }

    /// The distribution that `text` spells: a number, or a name with its numbers behind a colon, such as `uniform:1,99`
    /// or `gpareto:0,214.476,0.348238`.
    package static func parse(_ text: String) -> Result<SizeDistribution, OptionProblem> {
        if let value = Double(text), value >= 0, value <= sizeLimit { return .success(.fixed(value)) }
        let (name, numbers) = namedNumbers(text)
        switch (name, numbers.count) {
        case ("uniform", 2) where numbers[0] <= numbers[1]: return .success(.uniform(low: numbers[0], high: numbers[1]))
        case ("normal", 2) where numbers[1] >= 0:
            return .success(.normal(mean: numbers[0], deviation: numbers[1]))
        case ("lognormal", 2) where numbers[0] > 0:
            return .success(.lognormal(median: numbers[0], sigma: numbers[1]))
        case ("exponential", 1) where numbers[0] > 0: return .success(.exponential(mean: numbers[0]))
        case ("gev", 3): return .success(.extreme(location: numbers[0], scale: numbers[1], shape: numbers[2]))
        case ("gpareto", 3): return .success(.pareto(location: numbers[0], scale: numbers[1], shape: numbers[2]))
        default:
            return .failure(
                OptionProblem(
                    "'\(text)' is no size: expected a number, uniform:LOW,HIGH, normal:MEAN,DEVIATION, "
                        + "lognormal:MEDIAN,SIGMA, exponential:MEAN, gev:LOCATION,SCALE,SHAPE or "
                        + "gpareto:LOCATION,SCALE,SHAPE"))
        }
    }

    /// Bytes of a fixed size at most.
    private static let sizeLimit = 1e12

    /// Whether both are the same distribution.
    package static func == (left: SizeDistribution, right: SizeDistribution) -> Bool {
        "\(left)" == "\(right)"
    }
}

/// `name:1,2.5` taken apart; no numbers when one of them is none or not finite.
func namedNumbers(_ text: String) -> (name: String, numbers: [Double]) {
    let pieces = text.split(separator: ":", maxSplits: 1)
    guard let name = pieces.first else { return ("", []) }
    guard pieces.count == 2 else { return (String(name), []) }
    let numbers = pieces[1].split(separator: ",").map { Double(MetricRegistry.trimmed($0)) }
    let finite = numbers.compactMap { $0.flatMap { $0.isFinite ? $0 : nil } }
    return (String(name), finite.count == numbers.count ? finite : [])
}

/// Which keys are asked for how often. Key 0 is the most frequent where they differ.
package enum KeyDistribution: Sendable, Equatable {
    case uniform
    /// The n-th key's frequency is as 1 / n^exponent.
    case zipf(exponent: Double)
    /// Around the middle of all keys, mean and deviation as shares of them.
    case gaussian(mean: Double, deviation: Double)
    /// A share of the keys gets a share of the accesses.
    case hotSet(keys: Double, accesses: Double)
    /// One after another, and again.
    case sequential

    /// The distribution that `text` spells: `uniform`, `zipf:0.99`, `gaussian:0.5,0.1`, `hotset:0.01,0.9` or
    /// `sequential`.
    package static func parse(_ text: String) -> Result<KeyDistribution, OptionProblem> {
        let (name, numbers) = namedNumbers(text)
        switch (name, numbers.count) {
        case ("uniform", 0): return .success(.uniform)
        case ("sequential", 0): return .success(.sequential)
        case ("zipf", 1) where numbers[0] >= 0 && numbers[0] <= 20: return .success(.zipf(exponent: numbers[0]))
        case ("gaussian", 2) where numbers[1] > 0:
            return .success(.gaussian(mean: numbers[0], deviation: numbers[1]))
        case ("hotset", 2) where numbers.allSatisfy { $0 > 0 && $0 <= 1 }:
            return .success(.hotSet(keys: numbers[0], accesses: numbers[1]))
        default:
            return .failure(
                OptionProblem(
                    "'\(text)' is no distribution of keys: expected uniform, zipf:EXPONENT, gaussian:MEAN,DEVIATION "
                        + "(shares of the keys), hotset:KEYS,ACCESSES (shares) or sequential"))
        }
    }
}

/// Picks keys. Source of the zipf: Hörmann and Derflinger, Rejection-inversion to generate variates from monotone
/// discrete distributions.
package struct KeyPicker: Sendable {
    private let distribution: KeyDistribution
    private let count: UInt64
    private let zipf: Zipf?
    private var position: UInt64

    private struct Zipf: Sendable {
        let exponent, low, high, shortcut: Double

        init(_ exponent: Double, count: UInt64) {
            self.exponent = exponent
            low = Self.integral(1.5, exponent) - 1
            high = Self.integral(Double(count) + 0.5, exponent)
            shortcut = 2 - Self.inverse(Self.integral(2.5, exponent) - exp(-exponent * log(2)), exponent)
        }

        /// The integral of x^-exponent from 1 to `x`.
        static func integral(_ x: Double, _ exponent: Double) -> Double {
            let power = 1 - exponent
            let logarithm = log(x)
            return abs(power * logarithm) < 1e-8 ? logarithm : expm1(power * logarithm) / power
        }

        static func inverse(_ y: Double, _ exponent: Double) -> Double {
            let power = 1 - exponent
            return abs(power) < 1e-12 ? exp(y) : exp(log1p(max(power * y, -1)) / power)
        }

        func sample(_ random: inout RandomSource, count: UInt64) -> UInt64 {
            while true {
                let height = high + random.unit() * (low - high)
                let x = Self.inverse(height, exponent)
                let rank = min(max((x + 0.5).rounded(.down), 1), Double(count))
                if rank - x <= shortcut || height >= Self.integral(rank + 0.5, exponent) - exp(-exponent * log(rank)) {
                    return UInt64(rank) - 1
                }
            }
        }
    }

    /// Of `count` keys (at least 1), in the sequential order from `start` on.
    package init(_ distribution: KeyDistribution, count: UInt64, start: UInt64 = 0) {
        self.distribution = distribution
        self.count = max(count, 1)
        position = start % self.count
        if case .zipf(let exponent) = distribution, exponent > 0 {
            zipf = Zipf(exponent, count: self.count)
        } else {
            zipf = nil
        }
    }

    /// The next key: 0 up to but not the count.
    package mutating func next(_ random: inout RandomSource) -> UInt64 {
        switch distribution {
        case .uniform: return random.next() % count
        case .zipf: return zipf.map { $0.sample(&random, count: count) } ?? random.next() % count
        case .gaussian(let mean, let deviation):
            // What falls outside of the keys is drawn again, a few times, and is then held to them.
            for _ in 0..<16 {
                let place = (mean + deviation * random.normal()) * Double(count)
                if place >= 0, place < Double(count) { return UInt64(place) }
            }
            return UInt64(min(max(mean, 0), 1) * Double(count - 1))
        case .hotSet(let keys, let accesses):
            let hot = min(count, max(1, UInt64(keys * Double(count))))
            if hot == count || random.unit() < accesses { return random.next() % hot }
            return hot + random.next() % (count - hot)
        case .sequential:
            let result = position
            position = position + 1 == count ? 0 : position + 1
            return result
        }
    }
}
