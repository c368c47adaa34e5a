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

    @Test(arguments: [1000, Int64.max, Int64.min, -3_000_000_000])
    func doesNotGoOnFromTimesThatCannotBe(_ ahead: Int64) {
        let first = NodeClock()
        let epoch = first.epoch.addingReportingOverflow(ahead).partialValue
        let second = NodeClock(epoch: ahead == .min ? .min : epoch)
        #expect(!second.goesOn)
        #expect(abs(Int(second.now()) - Int(first.now())) <= 1)
    }
}
