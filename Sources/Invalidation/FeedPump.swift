// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage

/// What goes to a consumer.
package enum FeedItem: Sendable {
    /// A record, with its value where values travel and the key still has it.
    case record(ChangeTail.Entry)
    /// The records of a slot up to a number are gone.
    case lost(slot: Int, through: Int64)
}

/// Carries one consumer's records from a source's tail, or from its outbox where the tail does not have them.
package struct FeedPump {
    /// Records that are taken from the tail at once.
    private static let tailRecords = 256
    /// Bytes of records that are read, or put together with their values, at once.
    private static let chunkBytes = 64 << 10
    /// Questions whose answer is not known, at most.
    private static let proofsMax = 64

    /// What was sent, and what may be.
    package var feed: StreamFeed
    /// Where in the tail it is.
    private var place: UInt64
    /// Taken from the tail, and not sent yet.
    private var waiting: ArraySlice<ChangeTail.Entry> = []
    /// Probes whose answer is not known yet, with the source's tickets.
    private var proofs: [(number: UInt64, ticket: UInt64)] = []
    /// The longest value that travels, in bytes; nil where none do.
    private let valueMax: Int?

    /// Begins with `feed`, at `place` in the source's `tail`, which was its end before the feed was told the last
    /// numbers. Values of more than `valueMax` bytes do not travel. A consumer that was away for a while gets what it
    /// missed from the tail, where that has all of it: outboxes are read slot by slot, which takes a database longer.
    package init(_ feed: StreamFeed, place: UInt64, tail: ChangeTail, valueMax: Int? = nil) {
        self.feed = feed
        self.place = place
        self.valueMax = valueMax
        if feed.slotBehind != nil, let earlier = tail.place(behind: feed.sent) {
            self.place = earlier
            self.feed.takesTail()
        }
    }

    /// A consumer asks whether this was all.
    package mutating func probe(_ number: UInt64, of source: any ChangeSource) {
        proofs.append((number, source.beginProof()))
        if proofs.count > Self.proofsMax { proofs.removeFirst() }
    }

    /// Whether a probe waits for its answer.
    package var hasProbes: Bool { !proofs.isEmpty || feed.hasProbes }

    /// Gives what goes out to `emit` until there is no more, credit is used up, about `limitBytes` went, or `isOver`
    /// says so. Whether there may be more. Blocks on the outbox, and on the rows where values travel.
    package mutating func run(
        _ source: any ChangeSource, limitBytes: Int, isOver: () -> Bool = { false }, emit: (FeedItem) -> Void
    ) throws(StorageFailure) -> Bool {
        // First: what they ask for is then in the tail, or it is not there any more.
        while let (number, ticket) = proofs.first, let last = source.proof(ticket) {
            proofs.removeFirst()
            feed.probe(number, last: last)
        }
        var left = limitBytes
        var values = valueMax
        while left > 0, feed.maySend {
            if isOver() { return true }
            if let slot = feed.slotBehind {
                try readOutbox(source, slot, &left, &values, emit)
            } else if !waiting.isEmpty {
                let chunk = takeWaiting(limitBytes: min(left, Self.chunkBytes))
                let count = send(chunk, source, &left, &values, emit)
                if count < chunk.count { waiting = chunk[count...] + waiting }
            } else if let entries = source.tail.read(from: &place, limit: Self.tailRecords) {
                waiting = entries[...]
                if entries.isEmpty, !feed.missesAnswers() { break }
            } else if let last = source.position?.sequences {
                feed.missedTail(last: last)
            }
        }
        return left <= 0
    }

    /// The next records of the tail that are to be sent, in their order; none where a slot is now to be read from the
    /// outbox before.
    private mutating func takeWaiting(limitBytes: Int) -> [ChangeTail.Entry] {
        var chunk: [ChangeTail.Entry] = []
        var bytes = 0
        var trial = feed
        while bytes < limitBytes, let entry = waiting.first {
            if trial.takesFromTail(slot: entry.slot, sequence: entry.sequence) {
                trial.noteSent(slot: entry.slot, sequence: entry.sequence, bytes: 0)
                bytes += entry.bytes.count + 4
                chunk.append(entry)
            } else if trial.slotBehind != nil {
                // Those before it go out first; then it is looked at again.
                if chunk.isEmpty { feed = trial }
                return chunk
            }
            waiting.removeFirst()
        }
        return chunk
    }

    private mutating func readOutbox(
        _ source: any ChangeSource, _ slot: Int, _ left: inout Int, _ values: inout Int?, _ emit: (FeedItem) -> Void
    ) throws(StorageFailure) {
        let after = feed.sent.sequences[slot]
        let slice = try source.records(slot: slot, after: after, limitBytes: min(left, Self.chunkBytes))
        // What is kept was looked at behind the read: it only grows.
        var through = slice.records.first.map { $0.sequence - 1 } ?? source.keptSequences[slot]
        // What is known to be committed, and is not there, was let go, whatever is said of what is kept: what a probe
        // asks for, and what comes before a record of the tail.
        if slice.records.isEmpty, slice.isLast {
            let next = waiting.first { $0.slot == slot && $0.sequence > after }
            through = max(through, feed.asked(slot), (next?.sequence ?? 0) - 1)
        }
        if through > after {
            feed.noteLost(slot: slot, through: through)
            emit(.lost(slot: slot, through: through))
        }
        var rest = slice.records[...]
        while !rest.isEmpty, left > 0, feed.maySend {
            rest = rest.dropFirst(send(Array(rest), source, &left, &values, emit))
        }
        if slice.isLast, rest.isEmpty { feed.caughtUp(slot: slot) }
    }

    /// Sends as many of some records as there are values for at once; gives how many, one at least of any. Where the
    /// rows cannot be read, records go without their values until the end of the turn.
    private mutating func send(
        _ entries: [ChangeTail.Entry], _ source: any ChangeSource, _ left: inout Int, _ values: inout Int?,
        _ emit: (FeedItem) -> Void
    ) -> Int {
        var found: [StoredRow?]?
        var records: [OutboxRecord?] = []
        if let limit = values, !entries.isEmpty {
            records = entries.map { entry in
                OutboxRecord(object: entry.bytes).flatMap { $0.operation == .set || $0.operation == .touch ? $0 : nil }
            }
            do throws(StorageFailure) {
                let keys = records.map { $0?.key ?? [] }
                found = try source.rows(keys, limitBytes: min(left, Self.chunkBytes), valueMax: limit)
            } catch { values = nil }
        }
        let count = min(found?.count ?? entries.count, entries.count)
        for (index, entry) in entries.prefix(count).enumerated() {
            var entry = entry
            if let found, let row = found[index], row.partialLength == nil, var record = records[index],
                row.version == record.version
            {
                record.value = row.value
                record.clientFlags = row.clientFlags
                record.encodeObject(into: &entry.bytes)
            }
            let size = entry.bytes.count + 4
            feed.noteSent(slot: entry.slot, sequence: entry.sequence, bytes: size)
            left -= size
            emit(.record(entry))
        }
        return count
    }
}
