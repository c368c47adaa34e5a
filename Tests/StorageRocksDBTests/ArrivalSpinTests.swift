// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import StorageRocksDB

@Suite struct ArrivalSpinTests {
    @Test func looksForTheNextWriteOfASingleClient() {
        var arrivals = ArrivalSpin(processors: 2)
        for _ in 0..<100 {
            #expect(arrivals.nanoseconds(afterCommitOf: 1) == ArrivalSpin.limitNanoseconds)
            arrivals.note(true)
        }
    }

    @Test func sleepsAfterACommitOfSeveralAndWhenNothingWasCommitted() {
        var arrivals = ArrivalSpin(processors: 2)
        #expect(arrivals.nanoseconds(afterCommitOf: 2) == 0)
        #expect(arrivals.nanoseconds(afterCommitOf: 0) == 0)
        #expect(arrivals.nanoseconds(afterCommitOf: 1) > 0)
    }

    @Test func neverLooksOnOneProcessor() {
        var arrivals = ArrivalSpin(processors: 1)
        #expect(arrivals.nanoseconds(afterCommitOf: 1) == 0)
    }

    @Test func vainLooksBecomeRareAndOneThatFindsSomethingMakesThemUsualAgain() {
        var arrivals = ArrivalSpin(processors: 2)
        var looks = 0
        for _ in 0..<100_000 where arrivals.nanoseconds(afterCommitOf: 1) > 0 {
            looks += 1
            arrivals.note(false)
        }
        #expect(looks > 10)
        #expect(looks < 120, "one in 1024 at last")
        while arrivals.nanoseconds(afterCommitOf: 1) == 0 {}
        arrivals.note(true)
        #expect(arrivals.nanoseconds(afterCommitOf: 1) > 0)
    }
}
