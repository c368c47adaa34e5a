// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

struct RecordFaultTests {
    /// What is wrong with a record of the first slot that is not its key's.
    private func fault(source: String, slot: Int32 = 0) -> RecordFault {
        var record = OutboxRecord()
        (record.key, record.source, record.slot) = (Array("k".utf8), source, slot)
        record.keyHash = UInt64.max
        var bytes: [UInt8] = []
        record.encodeObject(into: &bytes)
        return RecordFault(object: bytes)
    }

    @Test func onlyTheSourceThatIsFollowedIsNamed() {
        #expect(fault(source: "home").source(followed: "home") == "home")
        #expect(fault(source: "a key").source(followed: "home") == "another")
        #expect(fault(source: "a key").source(followed: nil) == "unknown")
        #expect(RecordFault(object: []).source(followed: "home") == "home")
        #expect(RecordFault(object: []).source(followed: nil) == "unknown")
    }

    @Test func aNameThatNoLogHoldsIsNotWritten() {
        let marks = "e" + String(repeating: "\u{301}", count: 1 << 20)
        #expect(marks.count == 1)
        #expect(fault(source: marks).source(followed: marks) == "unknown")
        #expect(fault(source: marks).source(followed: "home") == "another")
        let longest = String(repeating: "s", count: 64)
        #expect(fault(source: longest).source(followed: longest) == longest)
        #expect(fault(source: longest).source(followed: longest + "s") == "unknown")
        #expect(fault(source: "a\nb").source(followed: "a\nb") == "unknown")
    }

    @Test func aSlotIsToldWhereThereIsSuchAOne() {
        #expect(fault(source: "home", slot: 5).slot == 5)
        let odd = fault(source: "home", slot: 0x6b_65_79)
        #expect(odd.slot == nil && odd.reason == "its slot is not its key's")
    }
}
