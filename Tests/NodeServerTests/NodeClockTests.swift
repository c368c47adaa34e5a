// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import NodeServer

@Suite struct NodeClockTests {
    @Test func goesOnFromAnEarlierProcess() {
        let first = NodeClock()
        #expect(!first.goesOn && !first.wasSet)
        // Expiry in the second process is that of the first, or up to two seconds earlier; never later.
        let second = NodeClock(epoch: first.currentEpoch - 1000)
        #expect(second.goesOn && !second.wasSet)
        #expect((1000...1003).contains(Int(second.now()) - Int(first.now())))
        #expect(second.currentEpoch + 1 - (first.currentEpoch - 1000) <= 1)
    }

    @Test func datesOfRowsAreWhatTheyAre() {
        let clock = NodeClock()
        let now = clock.now()
        #expect(clock.unixExpiry(0, now: now) == 0)
        #expect(clock.unixExpiry(2_000_000_000, now: now) == 2_000_000_000_000)
        #expect(clock.unixExpiry(4_294_967_295, now: now) == 4_294_967_295_000)
        // Long ago is long ago; what counts from now counts from the second's begin.
        #expect(clock.unixExpiry(2_592_001, now: now) == 2_592_001_000)
        let ahead = clock.unixExpiry(100, now: now) - clock.unixMilliseconds(now)
        #expect(abs(ahead - 100_000) <= 5)
        #expect(clock.unixExpiry(-1, now: now) < clock.unixMilliseconds(now))
    }

    @Test func stepsAreNoticedAndCountFromTheLastOne() {
        var watch = ClockWatch(beginning: 1_000_000)
        #expect(watch.look(1_000_000) == nil && watch.look(1_001_000) == nil)
        #expect(watch.look(1_001_001) == 1001)
        #expect(watch.look(1_001_001) == nil && watch.look(1_000_001) == nil)
        #expect(watch.look(1_000_000 - 3_600_000) == -3_601_001)
        // Many small ones are one.
        let steps = (1...20).compactMap { watch.look(1_000_000 - 3_600_000 + Int64($0) * 100) }
        #expect(steps == [1100])
    }

    @Test func theBeginningStandsStill() {
        let clock = NodeClock()
        let first = clock.steadyBeginningMilliseconds()
        for _ in 0..<1000 { #expect(abs(clock.steadyBeginningMilliseconds() - first) <= 30) }
    }

    @Test(arguments: [1000, Int64.max, Int64.min, -3_000_000_000])
    func doesNotGoOnFromTimesThatCannotBe(_ ahead: Int64) {
        let first = NodeClock()
        let epoch = first.epoch.addingReportingOverflow(ahead).partialValue
        let second = NodeClock(epoch: ahead == .min ? .min : epoch)
        #expect(!second.goesOn)
        #expect(abs(Int(second.now()) - Int(first.now())) <= 1)
    }
}
