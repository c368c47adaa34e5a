// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Storage
import Testing

/// What empties caches, told in each slot.
struct FlushedSlotsTests {
    private func key(_ text: String) -> [UInt8] { Array(text.utf8) }

    @Test func theFirstRemovesEverythingAndOthersWhatWasCachedOfTheirSlotsSince() {
        var flushed = FlushedSlots()
        flushed.willCache(key("before"), slot: 1)
        #expect(flushed.flushed(0, version: 7) == .everything)
        flushed.willCache(key("own"), slot: 0)
        flushed.willCache(key("late"), slot: 1)
        flushed.willCache(key("later"), slot: 1)
        #expect(flushed.flushed(1, version: 7) == .keys([key("late"), key("later")]))
        flushed.willCache(key("new"), slot: 1)
        #expect(flushed.flushed(2, version: 7) == .keys([]))
        for slot in 3..<StreamSlots.count { #expect(flushed.flushed(slot, version: 7) == .keys([])) }
        #expect(flushed.waiting == 0)
    }

    @Test func oneMoreOfASlotBeginsAnew() {
        var flushed = FlushedSlots()
        for version in [7, 7, 9, 8] as [UInt64] {
            #expect(flushed.flushed(3, version: version) == .everything)
            flushed.willCache(key("k"), slot: 4)
        }
        #expect(flushed.flushed(4, version: 8) == .keys([key("k")]))
    }

    @Test func whereTooManyKeysWereCachedEverythingIsRemovedOnceMore() {
        var flushed = FlushedSlots(keysMax: 2)
        #expect(flushed.flushed(0, version: 1) == .everything)
        for text in ["a", "b"] { flushed.willCache(key(text), slot: 5) }
        #expect(flushed.flushed(5, version: 1) == .keys([key("a"), key("b")]))
        for text in ["c", "d", "e"] { flushed.willCache(key(text), slot: 6) }
        #expect(flushed.flushed(7, version: 1) == .everything)
        #expect(flushed.flushed(6, version: 1) == .keys([]), "it is gone already")
        flushed.willCache(key("f"), slot: 8)
        #expect(flushed.flushed(8, version: 1) == .keys([key("f")]))
    }

    /// Slots whose copies were given up meanwhile, such as for a gap in which their records were.
    @Test func slotsThatWereGivenUpAreNotWaitedFor() {
        var flushed = FlushedSlots()
        #expect(flushed.flushed(0, version: 7) == .everything)
        for slot in [1, 2] { flushed.willCache(key("k"), slot: slot) }
        flushed.passedOver(StreamSlots.all & ~StreamSlots.mask(2))
        #expect(flushed.waiting == StreamSlots.mask(2))
        flushed.willCache(key("of another slot"), slot: 1)
        #expect(flushed.flushed(2, version: 7) == .keys([key("k")]))
        #expect(flushed.waiting == 0)
        // One that comes after all is as one of another removal.
        #expect(flushed.flushed(1, version: 7) == .everything)
    }

    /// A cache without a store, which takes values. All rows are removed, and in one slot that is heard of before a
    /// value that was committed earlier in another.
    @Test func aValueThatComesBehindAFlushOfAnotherSlotIsNotKept() {
        var follower = BrokerFollower(InvalidationConfiguration(), skewNanoseconds: 0)
        var flushed = FlushedSlots()
        var copies: [[UInt8]: UInt64] = [:]
        let time = BrokerTime(monotonicNanoseconds: 9_000_000_000, unixMilliseconds: 1_700_000_000_000)

        func take(_ operation: OutboxRecord.Operation, slot: Int, _ sequence: Int64, version: UInt64) {
            var record = OutboxRecord()
            record.operation = operation
            (record.source, record.epoch, record.slot) = ("s", 1, Int32(slot))
            (record.firstSequence, record.sequence, record.version) = (sequence, sequence, version)
            if operation == .set { (record.key, record.value) = (key("k"), [1]) }
            var actions: [FollowerAction] = []
            follower.received(record, at: time, into: &actions)
            for case .apply(let record) in actions {
                if record.operation == .set {
                    flushed.willCache(record.key, slot: Int(record.slot))
                    let change = CopyChange.of(
                        recordVersion: record.version, hasValue: true, copyVersion: copies[record.key])
                    if change == .install { copies[record.key] = record.version }
                } else if record.operation == .flush {
                    switch flushed.flushed(Int(record.slot), version: record.version) {
                    case .everything: copies = [:]
                    case .keys(let keys): for key in keys { copies[key] = nil }
                    }
                }
            }
        }

        var actions: [FollowerAction] = []
        follower.joined(.max, into: &actions)
        // The clock of who wrote the row was ahead of the database's.
        take(.flush, slot: 0, 1, version: 50)
        take(.set, slot: 9, 1, version: 60)
        #expect(copies == [key("k"): 60])
        take(.flush, slot: 9, 2, version: 50)
        #expect(copies.isEmpty)
        take(.set, slot: 9, 3, version: 61)
        for slot in 1..<StreamSlots.count where slot != 9 { take(.flush, slot: slot, 1, version: 50) }
        #expect(copies == [key("k"): 61], "what came later stays")
    }
}
