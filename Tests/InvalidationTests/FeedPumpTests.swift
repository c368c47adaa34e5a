// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Memory
import SimulationKit
import Storage
import Testing

/// A source whose outbox, tail and rows are what a test makes them. On one thread.
private final class ScriptedSource: ChangeSource, @unchecked Sendable {
    let tail: ChangeTail
    var position: StreamPosition? = StreamPosition(source: "s", epoch: 1, sequences: .init(repeating: 0, count: 64))
    var keptSequences = [Int64](repeating: 0, count: 64)
    var outbox: [ChangeTail.Entry] = []
    var outboxReads = 0
    /// What a proof says; nil while it is not known.
    var proven: [Int64]?
    var valueBytes = 0
    var rowsFail = false
    var rowCalls: [Int] = []
    static let slot = 3

    init(tailBytes: Int = 64 << 20) {
        tail = ChangeTail(limitBytes: tailBytes)
        if let position { tail.begin(position) }
    }

    /// Commits a record; it may be in the tail, in the outbox, or in both.
    func commit(_ sequence: Int64, inTail: Bool = true, inOutbox: Bool = true) {
        var record = OutboxRecord()
        record.key = Self.key(Int(sequence))
        record.keyHash = stableHash(record.key.span)
        (record.source, record.epoch, record.slot) = ("s", position?.epoch ?? 0, Int32(Self.slot))
        (record.firstSequence, record.sequence, record.version) = (sequence, sequence, UInt64(sequence))
        var entry = ChangeTail.Entry(slot: Self.slot, sequence: sequence, bytes: [])
        record.encodeObject(into: &entry.bytes)
        position?.sequences[Self.slot] = sequence
        if inOutbox { outbox.append(entry) }
        if inTail { tail.append([entry]) }
    }

    /// Another home goes on, which has the records up to `sequence`.
    func promote(through sequence: Int64) {
        outbox.removeAll { $0.sequence > sequence }
        guard var next = position else { return }
        next.epoch += 1
        next.sequences[Self.slot] = sequence
        tail.begin(next)
        position = next
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
        outboxReads += 1
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
                    value: [UInt8](repeating: 1, count: valueBytes)
                ).limited(toValueOf: valueMax))
            bytes += valueBytes
        }
        return rows
    }

    func release(through sequences: [Int64]) {}
}

/// A pump of one consumer that was there from the beginning, and what it sent.
private struct Pumped {
    let source: ScriptedSource
    var pump: FeedPump
    var sent: [Int64] = []
    var epochs: [Int64] = []
    var lost: [Int64] = []
    var bytes = 0
    var withValues = 0

    init(valueMax: Int? = nil, credit: Int = 4 << 20, tailBytes: Int = 64 << 20) {
        source = ScriptedSource(tailBytes: tailBytes)
        let last = StreamPosition(source: "s", epoch: 1, sequences: .init(repeating: 0, count: 64))
        let feed = StreamFeed(
            InvalidationConfiguration(), hello: StreamHello(), kept: last.sequences, last: last)
        pump = FeedPump(feed, place: 0, tail: source.tail, valueMax: valueMax)
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
                epochs.append(OutboxRecord(object: entry.bytes)?.epoch ?? 0)
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

    /// A consumer comes again that had everything up to `sequence`, of the first epoch.
    private func resume(_ bed: inout Pumped, after sequence: Int64, succession: StreamSuccession? = nil) {
        var hello = StreamHello()
        hello.takesSuccession = true
        var position = StreamPosition(source: "s", epoch: 1, sequences: .init(repeating: 0, count: 64))
        position.sequences[ScriptedSource.slot] = sequence
        hello.position = position
        let last = bed.source.position ?? position
        let feed = StreamFeed(
            InvalidationConfiguration(), hello: hello, kept: .init(repeating: 0, count: 64), last: last,
            succession: succession)
        bed.pump = FeedPump(feed, place: bed.source.tail.end, tail: bed.source.tail)
        bed.pump.feed.grant(4 << 20)
        bed.sent = []
    }

    @Test func whoComesAgainGetsWhatItMissedFromTheTail() throws {
        var bed = Pumped()
        for sequence in Int64(1)...600 { bed.source.commit(sequence) }
        resume(&bed, after: 200)
        _ = try bed.run()
        #expect(bed.sent == Array(201...600) && bed.source.outboxReads == 0)
        resume(&bed, after: 600)
        _ = try bed.run()
        #expect(bed.sent.isEmpty && bed.source.outboxReads == 0)
    }

    @Test func whatTheTailDoesNotHaveOfThatComesFromTheOutbox() throws {
        var bed = Pumped()
        for sequence in Int64(1)...600 { bed.source.commit(sequence, inTail: sequence != 300 && sequence != 600) }
        resume(&bed, after: 200)
        _ = try bed.run()
        #expect(Array(bed.sent.prefix(399)) == Array(201...599), "a gap shows at once")
        bed.pump.probe(1, of: bed.source)
        bed.source.proven = bed.source.position?.sequences
        _ = try bed.run()
        #expect(bed.sent == Array(201...600), "and what is missing at the end with the next probe")
    }

    @Test func whatTheTailHasLetGoComesFromTheOutbox() throws {
        var bed = Pumped(tailBytes: 20_000)
        for sequence in Int64(1)...600 { bed.source.commit(sequence) }
        resume(&bed, after: 100)
        _ = try bed.run()
        #expect(bed.sent == Array(101...600) && bed.source.outboxReads > 0)
        bed.source.outboxReads = 0
        resume(&bed, after: 560)
        _ = try bed.run()
        #expect(bed.sent == Array(561...600) && bed.source.outboxReads == 0)
    }

    /// As behind a promotion: the old home gave other records the numbers that the new one goes on with.
    @Test func whatTheTailHadOfAnotherNumberingIsNotSent() throws {
        var bed = Pumped()
        for sequence in Int64(1)...10 { bed.source.commit(sequence) }
        bed.source.promote(through: 6)
        var place: UInt64 = 0
        #expect(bed.source.tail.read(from: &place, limit: 1) == nil && place == 10, "nothing of it is there any more")
        for sequence in Int64(7)...8 { bed.source.commit(sequence) }
        var included = [Int64](repeating: 0, count: 64)
        included[ScriptedSource.slot] = 6
        let succession = StreamSuccession(previous: 1, included: included, isWhole: false)
        resume(&bed, after: 4, succession: succession)
        _ = try bed.run()
        #expect(bed.sent == Array(5...8) && bed.epochs.suffix(2) == [2, 2] && bed.source.outboxReads > 0)
        // Who was there when it began reads on behind what went with the old numbering.
        #expect(bed.source.tail.end == 12)
        resume(&bed, after: 9, succession: succession)
        _ = try bed.run()
        #expect(bed.sent == [7, 8] && bed.epochs.suffix(2) == [2, 2])
    }

    /// What comes before a record of the tail was committed before it.
    @Test func whatTheOutboxLetGoBeforeARecordOfTheTailIsSaidToBeLost() throws {
        var bed = Pumped()
        bed.source.commit(1)
        _ = try bed.run()
        for sequence in Int64(2)...4 { bed.source.commit(sequence, inTail: false, inOutbox: false) }
        bed.source.commit(5, inOutbox: false)
        _ = try bed.run()
        #expect(bed.lost == [4] && bed.sent == [1, 5])
    }

    /// Cursors of every kind, held against a list of all records.
    @Test func aTailSaysWhereWhatIsMissingBegins() {
        var chance = SimulationRandom(seed: 7)
        var (held, gone) = (0, 0)
        for round in 0..<50 {
            let tail = ChangeTail(limitBytes: 500 + chance.below(4500))
            var position = StreamPosition(source: "s", epoch: 1, sequences: .init(repeating: 0, count: 64))
            tail.begin(position)
            var all: [ChangeTail.Entry] = []
            for _ in 0..<chance.below(60) {
                let batch = (0...chance.below(4)).map { _ in
                    let slot = chance.below(4)
                    position.sequences[slot] += 1
                    return ChangeTail.Entry(
                        slot: slot, sequence: position.sequences[slot], bytes: [UInt8](repeating: 0, count: 40))
                }
                all += batch
                tail.append(batch)
            }
            // Where what is still here begins: reading before it says so.
            var first: UInt64 = 0
            if tail.read(from: &first, limit: 1) != nil { first = 0 }
            for _ in 0..<30 {
                var cursor = position
                for slot in 0..<4 {
                    cursor.sequences[slot] = max(0, cursor.sequences[slot] - Int64(chance.below(9)))
                }
                let missing = all.firstIndex { $0.sequence > cursor.sequences[$0.slot] }.map { UInt64($0) }
                let expected = missing ?? UInt64(all.count)
                #expect(tail.place(behind: cursor) == (expected < first ? nil : expected), "round \(round)")
                (held, gone) = expected < first ? (held, gone + 1) : (held + 1, gone)
                cursor.epoch = 2
                #expect(tail.place(behind: cursor) == nil)
            }
        }
        #expect(held > 100 && gone > 100)
    }

    /// However long the tail, whoever commits does not wait for a search through it.
    @Test func aPlaceInALongTailIsFoundWithoutLookingAtAllOfIt() {
        var chance = SimulationRandom(seed: 11)
        let (perRecord, kept) = (40 + 48, 30_000)
        let tail = ChangeTail(limitBytes: kept * perRecord)
        var position = StreamPosition(source: "s", epoch: 1, sequences: .init(repeating: 0, count: 64))
        tail.begin(position)
        // Slots of which one has most of what comes, another one nothing for long.
        var (positions, all) = ([position], [ChangeTail.Entry]())
        while all.count < 70_000 {
            let batch = (0...chance.below(chance.below(20) == 0 ? 3000 : 3)).map { _ in
                let slot = chance.below(10) < 7 ? 5 : chance.below(all.count < 60_000 ? 63 : 64)
                position.sequences[slot] += 1
                return ChangeTail.Entry(
                    slot: slot, sequence: position.sequences[slot], bytes: [UInt8](repeating: 0, count: 40))
            }
            tail.append(batch)
            for entry in batch {
                all.append(entry)
                if all.count % 500 == 0 {
                    var here = positions[positions.count - 1]
                    for entry in all.suffix(500) { here.sequences[entry.slot] = entry.sequence }
                    positions.append(here)
                }
            }
        }
        var first: UInt64 = 0
        if tail.read(from: &first, limit: 1) != nil { first = 0 }
        #expect(first > 30_000 && all.count - Int(first) > 20_000)
        var (most, found) = (0, 0)
        for (number, cursor) in positions.enumerated() {
            // Also one that lacks something of a slot from before, and has the rest.
            for lacking in [0, chance.below(2000)] {
                var cursor = cursor
                for entry in all[max(0, number * 500 - lacking)..<(number * 500)] where entry.slot == 7 {
                    cursor.sequences[7] = min(cursor.sequences[7], entry.sequence - 1)
                }
                let expected = UInt64(all.firstIndex { $0.sequence > cursor.sequences[$0.slot] } ?? all.count)
                let answer = tail.find(behind: cursor)
                #expect(answer.place == (expected < first ? nil : expected), "cursor \(number)")
                most = max(most, answer.looked)
                found += answer.place == nil ? 0 : 1
            }
        }
        #expect(found > 60 && (1...ChangeTail.markRecords).contains(most), "looked at \(most)")
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

    @Test func aValueThatIsTooLongIsLeftOut() throws {
        var bed = Pumped(valueMax: 100)
        bed.source.valueBytes = 101
        for sequence in Int64(1)...20 { bed.source.commit(sequence) }
        _ = try bed.run()
        #expect(bed.sent == Array(1...20) && bed.withValues == 0)
        bed.source.valueBytes = 100
        for sequence in Int64(21)...40 { bed.source.commit(sequence) }
        _ = try bed.run()
        #expect(bed.sent == Array(1...40) && bed.withValues == 20)
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
