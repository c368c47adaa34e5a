// Martlet
// SPDX-License-Identifier: Apache-2.0

import Telemetry
import Testing

struct DurationRecordTests {
    private func summary(_ milliseconds: [UInt64]) -> DurationSummary {
        let record = DurationRecord()
        for one in milliseconds { record.record(nanoseconds: one * 1_000_000) }
        var sum = DurationSummary()
        record.add(to: &sum)
        return sum
    }

    @Test func boundsAreThoseOfTheHistogram() {
        let sum = summary([1, 1, 1, 9])
        #expect(sum.bound(fraction: 0.5) == 1_600_000)
        #expect(sum.bound(fraction: 0.99) == 12_800_000)
        #expect(sum.sumNanoseconds == 12_000_000)
    }

    @Test func beyondTheLastBucketItIsTheLongest() {
        let sum = summary([1, 2000, 3500, 7000])
        #expect(sum.bound(fraction: 0.25) == 1_600_000)
        #expect(sum.bound(fraction: 0.5) == 7_000_000_000)
        #expect(sum.bound(fraction: 0.99) == 7_000_000_000)
    }

    @Test func ofNothingThereIsNone() { #expect(summary([]).bound(fraction: 0.5) == nil) }

    @Test func recordsAddUp() {
        let quick = DurationRecord()
        let slow = DurationRecord()
        for _ in 0..<3 { quick.record(nanoseconds: 1_000_000) }
        slow.record(nanoseconds: 5_000_000_000)
        var sum = DurationSummary()
        quick.add(to: &sum)
        slow.add(to: &sum)
        #expect(sum.bound(fraction: 0.5) == 1_600_000)
        #expect(sum.bound(fraction: 0.99) == 5_000_000_000)
    }
}
