// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

@testable import NodeServer

@Suite struct NodeStreamTests {
    /// What a record says of times may be anything that fits in its fields.
    @Test(arguments: [Int64.min, -16_700_000_000_001, -1, 0, 1, .max])
    func timesThatCannotBeDoNoHarm(_ time: Int64) {
        var record = OutboxRecord()
        record.timeMilliseconds = time
        let delay = NodeStream.delayNanoseconds(record, unixNanoseconds: 1_800_000_000_000_000_000)
        #expect(delay <= 3_600_000_000_000)
        let second = NodeClock().second(unixMilliseconds: time)
        #expect(time <= 0 ? second <= 1 : time == 1 || second == .max)
    }
}
