// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a search keeps: a figure of latencies below a time, such as `p99<2ms`.
package struct SearchObjective: Sendable, Equatable {
    /// As it was written.
    package let source: String
    /// The figure's name, as ``MetricSink/figure(_:seconds:)`` takes it.
    package let figure: String
    /// What the figure stays below, in milliseconds.
    package let limitMilliseconds: Double

    /// The objective that `text` spells: `p99<2ms`, `p(99.9)<500us`, `avg<1`; a bare number is milliseconds. Throws
    /// when it spells none.
    package init(_ text: String) throws(OptionProblem) {
        let parts = text.filter { !$0.isWhitespace }.split(separator: "<", maxSplits: 1)
        guard parts.count == 2, let limit = GoDuration.parse(String(parts[1].drop { $0 == "=" })), limit > 0 else {
            throw OptionProblem("--search \(text): expected a figure and a time, such as 'p99<2ms'")
        }
        let name = String(parts[0])
        let isShort = name.hasPrefix("p") && !name.hasPrefix("p(")
        figure = isShort ? "p(\(name.dropFirst()))" : name
        guard ["avg", "med", "max"].contains(figure) || MetricSink.percentile(figure) != nil else {
            throw OptionProblem("--search \(text): '\(name)' is none of avg, med, max and p0 to p100")
        }
        source = text
        limitMilliseconds = Double(limit) / 1e6
    }
}

/// The search for the highest rate that keeps an objective: doubles the rate while it is kept, then halves the distance
/// to the lowest one that is not. A rate is given up when two trials fail. Decides only: whoever uses it makes the
/// trials.
package struct RateSearch: Sendable {
    /// Trials at most.
    package static let trialLimit = 40
    /// Rates are between these, in iterations a second.
    package static let rates = 1.0...10_000_000.0
    /// How far apart, as a factor, the best rate that was kept and the lowest that was not are at the end.
    package static let precision = 1.05

    /// The highest rate that was kept; nil while none was.
    package private(set) var best: Double?
    private var worst: Double?
    /// The rate to try; nil when the search is over.
    package private(set) var next: Double?
    private var hasFailed = false
    private var trials = 0

    /// A search that begins at `start`.
    package init(start: Double) { next = min(max(start, Self.rates.lowerBound), Self.rates.upperBound) }

    /// Says whether the objective was kept at ``next``.
    package mutating func note(isKept: Bool) {
        guard let rate = next else { return }
        trials += 1
        if isKept {
            best = max(best ?? 0, rate)
        } else if hasFailed {
            worst = min(worst ?? .infinity, rate)
        } else {
            hasFailed = true
            return end()
        }
        hasFailed = false
        switch (best, worst) {
        case (let low?, let high?): next = high / low <= Self.precision ? nil : (low * high).squareRoot()
        case (let low?, nil): next = low >= Self.rates.upperBound ? nil : min(low * 2, Self.rates.upperBound)
        case (nil, let high?): next = high <= Self.rates.lowerBound ? nil : max(high / 2, Self.rates.lowerBound)
        case (nil, nil): break
        }
        end()
    }

    private mutating func end() {
        if trials >= Self.trialLimit { next = nil }
    }
}
