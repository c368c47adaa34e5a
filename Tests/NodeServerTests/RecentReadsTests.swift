// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import NodeServer

/// Which keys a reactor is asked for most just now.
struct RecentReadsTests {
    private let second: UInt64 = 1_000_000_000

    @Test func ratesAreThoseOfTheLastWholeSecond() {
        var reads = RecentReads()
        for number in UInt64(0)..<300 { reads.note(number % 3, now: 5 * second + number * 3_000_000) }
        #expect(reads.rates(now: 6 * second - 1).isEmpty, "the second goes on")
        let rates = reads.rates(now: 6 * second)
        #expect(Set(rates.map(\.hash)) == [0, 1, 2] && rates.allSatisfy { $0.perSecond == 100 })
        reads.note(7, now: 6 * second + 1)
        #expect(reads.rates(now: 6 * second + 2).count == 3)
        #expect(reads.rates(now: 7 * second).map(\.hash) == [7])
        #expect(reads.rates(now: 9 * second).isEmpty, "what was before a pause says nothing")
    }

    @Test func whatIsReadMostStaysAmongManyOthers() {
        var reads = RecentReads()
        for number in UInt64(0)..<10_000 { reads.note(number % 4 == 0 ? 1 : 1_000 + number, now: second + number) }
        let rates = reads.rates(now: 2 * second)
        #expect(rates.count <= 64)
        let most = rates.max { $0.perSecond < $1.perSecond }
        #expect(most?.hash == 1)
        #expect((most?.perSecond ?? 0) <= 2_500, "no more than there were")
        #expect((most?.perSecond ?? 0) > 2_300)
    }

    /// A reactor looks at the clock, somebody else turns to the next second, and then the reactor notes.
    @Test func aClockThatWasReadEarlierTakesNothingAway() {
        var reads = RecentReads()
        for number in UInt64(0)..<100 { reads.note(1, now: 5 * second + number) }
        #expect(reads.rates(now: 6 * second).map(\.hash) == [1])
        reads.note(2, now: 6 * second - 1)
        #expect(reads.rates(now: 6 * second + 1).map(\.hash) == [1])
        #expect(reads.rates(now: 7 * second).map(\.hash) == [2])
    }
}
