// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import LoadModel

@Suite struct HistogramTests {
    /// The greatest relative error of quantiles against those of the sorted numbers.
    private func worstError(_ numbers: [Double]) -> Double {
        var histogram = ValueHistogram()
        for number in numbers { histogram.record(number) }
        let sorted = numbers.sorted()
        return [0.001, 0.01, 0.1, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1].map { fraction in
            let rank = min(max(1, Int((fraction * Double(sorted.count)).rounded(.up))), sorted.count)
            let exact = sorted[rank - 1]
            let found = histogram.quantile(fraction)
            return exact == 0 ? found.magnitude : (found / exact - 1).magnitude
        }.max() ?? 0
    }

    @Test func quantilesAreWithinOnePercentWhateverTheShape() {
        var random = RandomSource(seed: 7)
        #expect(worstError((0..<100_000).map { _ in random.exponential() }) < 0.008)
        #expect(worstError((0..<100_000).map { _ in random.unit() * 1e9 }) < 0.008)
        #expect(worstError((0..<50_000).map { _ in 1 / (1e-9 + random.unit()) }) < 0.008)
        #expect(worstError((0..<50_000).map { _ in -random.exponential() * 1000 }) < 0.008)
        #expect(worstError([3]) == 0)
        #expect(worstError((1...1000).map { Double($0) * 1e-5 }) < 0.008)
    }

    @Test func keepsCountSumAndEndsExactly() {
        var histogram = ValueHistogram()
        for number in [5.0, -2, 0, 7.25] { histogram.record(number) }
        #expect(histogram.count == 4)
        #expect(histogram.sum == 10.25)
        #expect(histogram.minimum == -2 && histogram.maximum == 7.25)
        #expect(histogram.mean == 2.5625)
        #expect(ValueHistogram().quantile(0.5) == 0)
    }

    @Test func isTheSameWhetherMergedOrNot() {
        var random = RandomSource(seed: 3)
        var (whole, parts) = (ValueHistogram(), [ValueHistogram(), ValueHistogram(), ValueHistogram()])
        for index in 0..<9000 {
            let number = random.normal() * 100
            whole.record(number)
            parts[index % 3].record(number)
        }
        var merged = parts[0]
        merged.add(parts[1])
        merged.add(parts[2])
        for fraction in [0.01, 0.5, 0.99] { #expect(merged.quantile(fraction) == whole.quantile(fraction)) }
        #expect(merged.count == whole.count && merged.minimum == whole.minimum && merged.maximum == whole.maximum)
    }

    @Test func tellsWhatCameSinceAnEarlierTime() {
        var histogram = ValueHistogram()
        for number in 1...100 { histogram.record(Double(number)) }
        let earlier = histogram
        for number in 1000...1100 { histogram.record(Double(number)) }
        let late = histogram.since(earlier)
        #expect(late.count == 101)
        #expect((late.quantile(0.5) / 1050 - 1).magnitude < 0.01)
        #expect(late.minimum >= 990 && late.maximum == 1100)
        #expect(histogram.since(histogram).count == 0)
    }
}
