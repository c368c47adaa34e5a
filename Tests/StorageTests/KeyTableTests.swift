// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Storage

/// What a stripe keeps of keys is theirs only while something of them is under way.
struct KeyTableTests {
    @Test func aReadThatIsRefusedLeavesNothingBehind() {
        var configuration = StorageTierConfiguration()
        configuration.stripes = 1
        configuration.readsInFlightMax = 2
        var machine = WriteThroughStateMachine(
            stripe: 0, configuration: configuration, pools: [StoragePoolPolicy()], isUnsettled: false, guards: .all)
        let now = StorageTime(monotonicNanoseconds: 1, unixMilliseconds: 1)
        var actions = StorageActions()
        for number in 0..<100 {
            machine.read(
                Array("k\(number)".utf8), hash: UInt64(number), pool: 0,
                for: StorageWaiter(receiver: 0, token: UInt64(number)), at: now, into: &actions)
        }
        #expect(actions.reads.count == 2 && actions.answers.count == 98)
        #expect(machine.keys.count == 2)
    }
}
