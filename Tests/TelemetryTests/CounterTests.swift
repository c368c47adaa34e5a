// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Synchronization
import Testing

@testable import Telemetry

private enum Fruit: Int, CounterIndex {
    case apples, pears, plums
}

/// Lets several threads share a counter set.
private final class Basket: Sendable {
    let counters = CounterSet<Fruit>()
    let latency = LatencyHistogram()
}

@Suite struct CounterTests {
    @Test func countsEachIndexApart() {
        let counters = CounterSet<Fruit>()
        counters.add(.apples)
        counters.add(.pears, 41)
        counters.add(.pears)
        counters.subtract(.pears, 2)
        counters.set(.plums, to: 7)
        #expect(counters.load(.apples) == 1)
        #expect(counters.load(.pears) == 40)
        #expect(counters.load(.plums) == 7)
    }

    @Test func sharesNoCacheLineWithAnythingElse() {
        // 3 counters of 8 bytes take a whole pair of cache lines.
        #expect(CounterSet<Fruit>().cells.count == 16)
        #expect(LatencyHistogram().cells.count == 32)
    }

    @Test func totalsAddSeveralThreadsUp() {
        let one = CounterSet<Fruit>()
        let two = CounterSet<Fruit>()
        one.add(.apples, 3)
        two.add(.apples, 4)
        two.add(.plums, 1)
        var totals = CounterTotals<Fruit>()
        totals.add(one)
        totals.add(two)
        #expect(totals.values == [7, 0, 1])
        #expect(totals[.apples] == 7)
    }

    @Test func aResetIsABaselineAndLosesNothingCountedMeanwhile() {
        let counters = CounterSet<Fruit>()
        counters.add(.apples, 10)
        var baseline = CounterTotals<Fruit>()
        baseline.add(counters)
        counters.add(.apples, 2)
        var now = CounterTotals<Fruit>()
        now.add(counters)
        #expect(now.since(baseline)[.apples] == 2)
    }

    @Test func aReaderSeesCountersOfAnotherThreadOnlyGrow() async {
        let basket = Basket()
        let rounds: UInt64 = 200_000
        await withTaskGroup(of: Bool.self) { group in
            group.addTask {
                for _ in 0..<rounds {
                    basket.counters.add(.pears)
                    basket.latency.record(nanoseconds: 1_000_000)
                }
                return true
            }
            group.addTask {
                var last: UInt64 = 0
                var lastCount: UInt64 = 0
                for _ in 0..<1000 {
                    let now = basket.counters.load(.pears)
                    let count = basket.latency.snapshot().count
                    guard now >= last, count >= lastCount, now <= rounds else { return false }
                    (last, lastCount) = (now, count)
                }
                return true
            }
            for await holds in group { #expect(holds) }
        }
        #expect(basket.counters.load(.pears) == rounds)
        #expect(basket.latency.snapshot().count == rounds)
    }
}

@Suite struct LatencyHistogramTests {
    @Test(arguments: [
        (UInt64(0), 0), (1, 0), (49_999, 0), (50_000, 0), (50_001, 1), (100_000, 1), (100_001, 2), (200_000, 2),
        (200_001, 3), (1_600_000, 5), (1_600_001, 6), (1_638_400_000, 15), (1_638_400_001, 16), (UInt64.max, 16),
    ])
    func putsADurationIntoTheBucketWhoseBoundHoldsIt(_ nanoseconds: UInt64, _ bucket: Int) {
        #expect(LatencyHistogram.bucket(nanoseconds: nanoseconds) == bucket)
    }

    @Test func boundsAndBucketsAgreeEverywhere() {
        for bucket in 0..<LatencyHistogram.boundedBucketCount {
            let bound = LatencyHistogram.boundNanoseconds(bucket)
            #expect(LatencyHistogram.bucket(nanoseconds: bound) == bucket)
            #expect(LatencyHistogram.bucket(nanoseconds: bound + 1) == bucket + 1)
        }
        #expect(LatencyHistogram.boundNanoseconds(0) == 50_000)
        #expect(LatencyHistogram.boundNanoseconds(15) == 1_638_400_000)
    }

    @Test func recordsCountsAndTheSum() {
        let histogram = LatencyHistogram()
        histogram.record(nanoseconds: 60_000, count: 3)
        histogram.record(nanoseconds: 10)
        histogram.record(nanoseconds: 5_000_000_000)
        let snapshot = histogram.snapshot()
        #expect(snapshot.count == 5)
        #expect(snapshot.sumNanoseconds == 5_000_180_010)
        #expect(snapshot.counts[0] == 1)
        #expect(snapshot.counts[1] == 3)
        #expect(snapshot.counts[16] == 1)
    }

    @Test func addsSnapshotsOfSeveralThreads() {
        let one = LatencyHistogram()
        let two = LatencyHistogram()
        one.record(nanoseconds: 1)
        two.record(nanoseconds: 70_000, count: 2)
        var sum = one.snapshot()
        sum.add(two)
        #expect(sum.count == 3)
        #expect(sum.sumNanoseconds == 140_001)
    }

    @Test func tellsTheBoundThatAFractionStaysUnder() {
        let histogram = LatencyHistogram()
        #expect(histogram.snapshot().bound(fraction: 0.5) == nil)
        histogram.record(nanoseconds: 1, count: 99)
        histogram.record(nanoseconds: 150_000)
        #expect(histogram.snapshot().bound(fraction: 0.5) == 50_000)
        #expect(histogram.snapshot().bound(fraction: 0.99) == 50_000)
        #expect(histogram.snapshot().bound(fraction: 0.999) == 200_000)
        histogram.record(nanoseconds: UInt64.max, count: 900)
        #expect(histogram.snapshot().bound(fraction: 0.99) == nil)
    }
}
