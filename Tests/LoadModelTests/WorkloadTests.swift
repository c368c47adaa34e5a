// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing

@testable import LoadModel

@Suite struct WorkloadTests {
    private func histogram(_ distribution: KeyDistribution, _ count: UInt64, draws: Int) -> [Int] {
        var picker = KeyPicker(distribution, count: count)
        var random = RandomSource(seed: 9)
        var counts = Array(repeating: 0, count: Int(count))
        for _ in 0..<draws { counts[Int(picker.next(&random))] += 1 }
        return counts
    }

    @Test(arguments: [0.5, 0.99, 1.0, 1.5, 2.6])
    func zipfHasItsFrequencies(_ exponent: Double) {
        let draws = 400_000
        let counts = histogram(.zipf(exponent: exponent), 1000, draws: draws)
        func weight(_ rank: Int) -> Double { 1 / power(Double(rank), exponent) }
        let total = (1...1000).reduce(0) { $0 + weight($1) }
        for rank in [1, 2, 3, 10] {
            let expected = Double(draws) * weight(rank) / total
            // Four deviations of a binomial count.
            #expect((Double(counts[rank - 1]) - expected).magnitude < 4 * expected.squareRoot() + 1, "rank \(rank)")
        }
    }

    private func power(_ base: Double, _ exponent: Double) -> Double {
        // x^y by squaring on halves: enough for a test, without libm.
        var (result, factor, rest) = (1.0, base, exponent)
        for _ in 0..<60 {
            if rest >= 1 {
                result *= factor
                rest -= 1
                continue
            }
            factor = factor.squareRoot()
            rest *= 2
        }
        return result
    }

    @Test func otherDistributionsHaveTheirShares() {
        let hot = histogram(.hotSet(keys: 0.1, accesses: 0.9), 1000, draws: 100_000)
        #expect((Double(hot[..<100].reduce(0, +)) / 90_000 - 1).magnitude < 0.02)
        let uniform = histogram(.uniform, 10, draws: 100_000)
        #expect(uniform.allSatisfy { (9500...10_500).contains($0) })
        let gaussian = histogram(.gaussian(mean: 0.5, deviation: 0.1), 1000, draws: 100_000)
        #expect((Double(gaussian[400..<600].reduce(0, +)) / 68_270 - 1).magnitude < 0.02)
        #expect(histogram(.sequential, 4, draws: 8) == [2, 2, 2, 2])
    }

    @Test func sizesHaveTheirMeans() throws {
        func mean(_ text: String) throws -> Double {
            let distribution = try SizeDistribution.parse(text).get()
            var random = RandomSource(seed: 4)
            var sum = 0.0
            for _ in 0..<200_000 { sum += distribution.sample(&random) }
            return sum / 200_000
        }
        #expect((try mean("uniform:10,30") / 20 - 1).magnitude < 0.01)
        #expect((try mean("normal:50,5") / 50 - 1).magnitude < 0.01)
        #expect((try mean("exponential:7") / 7 - 1).magnitude < 0.01)
        // location + scale * (gamma(1 - shape) - 1) / shape, and location + scale / (1 - shape).
        #expect((try mean("gev:30.7984,8.20449,0.078688") / 36.09 - 1).magnitude < 0.01)
        #expect((try mean("gpareto:0,214.476,0.2") / 268.1 - 1).magnitude < 0.02)
    }

    @Test func drawsHaveTheWorkloadsShares() {
        var workload = Workload()
        workload.operations = [(.get, 0.75), (.set, 0.2), (.delete, 0.05)]
        workload.expiries = [(60, 0.5), (3600, 0.5)]
        var generator = WorkloadGenerator(workload, seed: 3)
        var counts: [LoadModel.Operation: Int] = [:]
        var short = 0
        for _ in 0..<100_000 {
            let draw = generator.next()
            counts[draw.operation, default: 0] += 1
            if draw.expiry == 60 { short += 1 }
        }
        #expect((74_000...76_000).contains(counts[.get] ?? 0))
        #expect((4700...5300).contains(counts[.delete] ?? 0))
        #expect((49_000...51_000).contains(short))
    }

    @Test func churnBringsNewKeysInTheirShare() {
        var workload = Workload()
        workload.keys = 100
        workload.churn = 0.1
        workload.keyDistribution = .sequential
        var generator = WorkloadGenerator(workload, seed: 3)
        var seen = Set<UInt64>()
        for _ in 0..<10_000 { seen.insert(generator.next().key) }
        // A hundred at first, and one for each tenth operation, as far as they were asked for.
        #expect((1050...1110).contains(seen.count))
        #expect(seen.max() ?? 0 < 1200)
    }

    @Test func keysAreDistinctAndOfTheirSizes() {
        var workload = Workload()
        var plain = WorkloadGenerator(workload, seed: 1)
        var text: [UInt8] = []
        plain.writeKey(42, into: &text)
        #expect(String(decoding: text, as: UTF8.self) == "key:000000000042")
        workload.keySize = .fixed(20)
        var sized = WorkloadGenerator(workload, seed: 1)
        sized.writeKey(42, into: &text)
        #expect(String(decoding: text, as: UTF8.self) == "key:0000000000000042")
        workload.keySize = .uniform(low: 1, high: 40)
        var spread = WorkloadGenerator(workload, seed: 1)
        var all = Set<[UInt8]>()
        for key in 0..<5000 {
            spread.writeKey(UInt64(key), into: &text)
            #expect((1...250).contains(text.count))
            all.insert(text)
        }
        #expect(all.count == 5000)
    }

    @Test func stampsTellTornWrongAndWholeValues() {
        var random = RandomSource(seed: 2)
        for length in [24, 25, 31, 32, 100, 1027] {
            let stamp = ValueStamp(keyHash: random.next(), writer: 7, version: 9)
            var output = OutputBuffer(capacity: 64)
            stamp.append(to: &output, count: length)
            var value = [UInt8](copying: output.span)
            #expect(value.count == length)
            #expect(ValueStamp.read(value.span) == stamp)
            let place = Int(random.next() % UInt64(length))
            value[place] ^= 1
            #expect(ValueStamp.read(value.span) != stamp, "byte \(place) of \(length)")
            #expect(ValueStamp.read(Array(value.dropLast()).span) == nil)
        }
        #expect(ValueStamp.read([1, 2, 3].span) == nil)
    }
}
