// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Memory
import Storage
import Testing

/// A source whose outbox, tail and rows are what a test makes them. On one thread.
private final class ScriptedSource: ChangeSource, @unchecked Sendable {
    let tail = ChangeTail(limitBytes: 64 << 20)
    var position: StreamPosition? = StreamPosition(source: "s", epoch: 1, sequences: .init(repeating: 0, count: 64))
    var keptSequences = [Int64](repeating: 0, count: 64)
    var outbox: [ChangeTail.Entry] = []
    /// What a proof says; nil while it is not known.
    var proven: [Int64]?
    var valueBytes = 0
    var rowsFail = false
    var rowCalls: [Int] = []
    /// By key, the version that its row has; the record's own where it is not said.
    static let slot = 3

    /// Commits a record; it may be in the tail, in the outbox, or in both.
    func commit(_ sequence: Int64, inTail: Bool = true, inOutbox: Bool = true) {
        var record = OutboxRecord()
        record.key = Self.key(Int(sequence))
        record.keyHash = stableHash(record.key.span)
        (record.source, record.epoch, record.slot) = ("s", 1, Int32(Self.slot))
        (record.firstSequence, record.sequence, record.version) = (sequence, sequence, UInt64(sequence))
        var entry = ChangeTail.Entry(slot: Self.slot, sequence: sequence, bytes: [])
        record.encodeObject(into: &entry.bytes)
        position?.sequences[Self.slot] = sequence
        if inOutbox { outbox.append(entry) }
        if inTail { tail.append([entry]) }
    }

    /// Keys of slot 3, by number.
    static let keys: [[UInt8]] = {
        var keys: [[UInt8]] = []
        var number = 0
        while keys.count < 1200 {
            let key = Array("key-\(number)".utf8)
            if StreamSlots.slot(keyHash: stableHash(key.span)) == slot { keys.append(key) }
            number += 1
        }
        return keys
    }()

    static func key(_ number: Int) -> [UInt8] { keys[number % keys.count] }

    func beginProof() -> UInt64 { 1 }
    func proof(_ ticket: UInt64) -> [Int64]? { proven }

    func records(slot: Int, after sequence: Int64, limitBytes: Int) throws(StorageFailure) -> ChangeSlice {
        let found = outbox.filter { $0.slot == slot && $0.sequence > sequence }
        return ChangeSlice(records: Array(found.prefix(100)), isLast: found.count <= 100)
    }

    func rows(_ keys: [[UInt8]], limitBytes: Int, valueMax: Int) throws(StorageFailure) -> [StoredRow?] {
        rowCalls.append(keys.count)
        if rowsFail { throw StorageFailure(.refused, "no") }
        var (rows, bytes): ([StoredRow?], Int) = ([], 0)
        for key in keys where bytes < limitBytes {
            let number = Self.keys.firstIndex(of: key) ?? 0
            rows.append(
                StoredRow(
                    version: UInt64(number), expiryMilliseconds: 0, clientFlags: 0,
                    value: [UInt8](repeating: 1, count: valueBytes)))
            bytes += valueBytes
        }
        return rows
    }

    func release(through sequences: [Int64]) {}
}

/// A pump of one consumer that was there from the beginning, and what it sent.
private struct Pumped {
    let source = ScriptedSource()
    var pump: FeedPump
    var sent: [Int64] = []
    var lost: [Int64] = []
    var bytes = 0
    var withValues = 0

    init(valueMax: Int? = nil, credit: Int = 4 << 20) {
        let last = StreamPosition(source: "s", epoch: 1, sequences: .init(repeating: 0, count: 64))
        let feed = StreamFeed(
            InvalidationConfiguration(), hello: StreamHello(), kept: last.sequences, last: last)
        pump = FeedPump(feed, place: 0, valueMax: valueMax)
        pump.feed.grant(credit)
    }

    mutating func run(limitBytes: Int = 512 << 10, isOver: () -> Bool = { false }) throws -> Bool {
        var items: [FeedItem] = []
        let hasMore = try pump.run(source, limitBytes: limitBytes, isOver: isOver) { items.append($0) }
        for item in items {
            switch item {
            case .lost(_, let through): lost.append(through)
            case .record(let entry):
                sent.append(entry.sequence)
                bytes += entry.bytes.count
                if OutboxRecord(object: entry.bytes)?.value != nil { withValues += 1 }
            }
        }
        return hasMore
    }
}

struct FeedPumpTests {
    @Test func sendsTheTailInItsOrder() throws {
        var bed = Pumped()
        for sequence in Int64(1)...600 { bed.source.commit(sequence) }
        let hasMore = try bed.run()
        #expect(!hasMore && bed.sent == Array(1...600) && bed.lost.isEmpty)
    }

    /// As behind a connection to the database that was lost for a while.
    @Test func aProofHasWhatTheTailNeverHadReadFromTheOutbox() throws {
        var bed = Pumped()
        bed.source.commit(1)
        _ = try bed.run()
        bed.source.commit(2, inTail: false)
        bed.pump.probe(1, of: bed.source)
        bed.source.proven = bed.source.position?.sequences
        _ = try bed.run()
        #expect(bed.sent == [1, 2])
        #expect(bed.pump.feed.answerable()?.number == 1)
    }

    /// As where a node stood still for longer than records are kept: nobody told it what is kept by now.
    @Test func whatWasLetGoUnreadIsSaidToBeLost() throws {
        var bed = Pumped()
        bed.source.commit(1)
        _ = try bed.run()
        for sequence in Int64(2)...5 { bed.source.commit(sequence, inTail: false, inOutbox: false) }
        bed.source.outbox = []
        bed.pump.probe(1, of: bed.source)
        bed.source.proven = bed.source.position?.sequences
        _ = try bed.run()
        #expect(bed.sent == [1] && bed.lost == [5])
        #expect(bed.pump.feed.answerable()?.number == 1)
        bed.source.commit(6)
        _ = try bed.run()
        #expect(bed.sent == [1, 6])
    }

    @Test func aGapInTheTailIsReadFromTheOutboxBehindWhatComesBefore() throws {
        var bed = Pumped()
        bed.source.commit(1)
        bed.source.commit(2)
        bed.source.commit(3, inTail: false)
        for sequence in Int64(4)...8 { bed.source.commit(sequence) }
        _ = try bed.run()
        #expect(bed.sent == Array(1...8) && bed.lost.isEmpty)
    }

    @Test func valuesCountAgainstTheTurnAndTheCredit() throws {
        var bed = Pumped(valueMax: 1 << 20, credit: 2 << 20)
        bed.source.valueBytes = 100_000
        for sequence in Int64(1)...400 { bed.source.commit(sequence) }
        let hasMore = try bed.run()
        #expect(hasMore && bed.bytes >= 512 << 10 && bed.bytes < 700_000)
        #expect(bed.withValues == bed.sent.count)
        for _ in 0..<20 { _ = try bed.run() }
        #expect(bed.bytes >= 2 << 20 && bed.bytes < (2 << 20) + 200_000)
        #expect(bed.pump.feed.credit <= 0)
        for _ in 0..<100 where bed.sent.count < 400 {
            bed.pump.feed.grant(1 << 20)
            _ = try bed.run()
        }
        #expect(bed.sent == Array(1...400) && bed.withValues == 400)
    }

    @Test func aTurnEndsByTime() throws {
        var bed = Pumped()
        for sequence in Int64(1)...600 { bed.source.commit(sequence) }
        var looks = 0
        let hasMore = try bed.run {
            looks += 1
            return looks > 2
        }
        #expect(hasMore && !bed.sent.isEmpty && bed.sent.count < 600)
        _ = try bed.run()
        #expect(bed.sent == Array(1...600))
    }

    @Test func rowsThatCannotBeReadAreAskedForOnceATurn() throws {
        var bed = Pumped(valueMax: 1 << 20)
        bed.source.rowsFail = true
        for sequence in Int64(1)...500 { bed.source.commit(sequence) }
        _ = try bed.run()
        #expect(bed.sent == Array(1...500) && bed.withValues == 0)
        #expect(bed.source.rowCalls.count == 1)
    }

    @Test func manyValuesAreOneQuestion() throws {
        var bed = Pumped(valueMax: 1 << 20)
        bed.source.valueBytes = 10
        for sequence in Int64(1)...500 { bed.source.commit(sequence) }
        _ = try bed.run()
        #expect(bed.withValues == 500 && bed.source.rowCalls.count < 5)
    }
}
