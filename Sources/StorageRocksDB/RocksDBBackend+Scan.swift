// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
package import Storage
internal import Telemetry

extension RocksDBBackend {
    /// Damaged places that one scan passes over at most, before it ends.
    private static let damageLimit = 64
    /// Bytes of values after which a scan ends, whether their rows are live or not.
    private static let lookedBytesLimit = 64 << 20

    /// Live rows in the order of their keys, from the first key behind `key` that begins with `prefix`. A damaged row,
    /// and a damaged block of a file with all its rows, is passed over and told. It looks at so many rows and no more:
    /// behind a long stretch of dead ones it ends with none, and says where it goes on. Blocks.
    package func scan(
        prefix: [UInt8], after key: [UInt8], _ bounds: ScanBounds
    ) throws(StorageFailure) -> ScanPage {
        try guests.use { database throws(StorageFailure) in
            do throws(RocksDatabase.Failure) {
                return try page(database, RocksIterator(database, .rows), prefix: prefix, after: key, bounds)
            } catch {
                core.noteFailedRead(error, database)
                throw StorageFailure(.refused, "reading rows failed: \(error.reason)")
            }
        }
    }

    private func page(
        _ database: RocksDatabase, _ iterator: borrowing RocksIterator, prefix: [UInt8], after key: [UInt8],
        _ bounds: ScanBounds
    ) throws(RocksDatabase.Failure) -> ScanPage {
        let now = configuration.now()
        var page = ScanPage()
        var (bytes, last) = (0, key)
        var (looked, lookedBytes) = (0, 0)
        // The first key that is behind another is that one with a zero byte.
        let start = key.isEmpty ? prefix : (key + [0])
        iterator.seek(start.lexicographicallyPrecedes(prefix) ? prefix : start)
        while true {
            guard iterator.isValid else {
                guard let reason = try iterator.corruption() else { return page }
                core.counters.checksumErrors.add(1)
                last = try iterator.passDamage(database, from: later(last, start))
                page.damage.append(
                    ScanDamage(position: page.rows.count, key: last, isOneRow: false, reason: reason))
                if page.damage.count >= Self.damageLimit { break }
                continue
            }
            let entry = iterator.withEntry { key, value -> (key: [UInt8], content: RowCodec.Content)? in
                guard begins(key, with: prefix) else { return nil }
                lookedBytes += value.count
                let hasValue = bounds.hasValues && RowCodec.head(value)?.isLive(at: now) == true
                return (copy(key), RowCodec.decode(value, keyHash: stableHash(key), hasValue: hasValue))
            }
            guard let entry else { return page }
            last = entry.key
            looked += 1
            switch entry.content {
            case .row(let row):
                if row.isLive(at: now) {
                    page.rows.append((entry.key, row))
                    bytes += entry.key.count + row.value.count
                }
            case .tombstone: break
            case .damaged:
                core.counters.checksumErrors.add(1)
                page.damage.append(
                    ScanDamage(
                        position: page.rows.count, key: entry.key, isOneRow: true, reason: BackendCore.damaged))
            }
            if page.rows.count >= bounds.rows || bytes >= bounds.bytes { break }
            if page.damage.count >= Self.damageLimit { break }
            if looked >= configuration.scanLimit || lookedBytes >= Self.lookedBytesLimit { break }
            iterator.next()
        }
        page.next = last
        return page
    }

    private func later(_ left: [UInt8], _ right: [UInt8]) -> [UInt8] {
        left.lexicographicallyPrecedes(right) ? right : left
    }

    private func begins(_ key: Span<UInt8>, with prefix: [UInt8]) -> Bool {
        guard key.count >= prefix.count else { return false }
        for index in prefix.indices where key[index] != prefix[index] { return false }
        return true
    }
}

extension RocksIterator {
    /// What is damaged where the iterator cannot go on; nil where there are no more keys. Other failures are thrown.
    fileprivate func corruption() throws(RocksDatabase.Failure) -> String? {
        do throws(RocksDatabase.Failure) { try checkError() } catch {
            guard error.isDamage else { throw error }
            return "a block of a file is damaged, with all rows in it: restore a backup, or write its keys again"
        }
        return nil
    }

    /// Goes behind the damaged block that lies at `key` or next to it, and behind those that follow it directly, 64
    /// at most. Returns the last place that was passed.
    ///
    /// The keys of a damaged block cannot be read, so it is left by its place: what the index tells of the bytes
    /// between two keys is 0 until the second one is in another block. The places up to the last possible key are
    /// halved until the first such one is found.
    fileprivate func passDamage(
        _ database: RocksDatabase, from key: [UInt8]
    ) throws(RocksDatabase.Failure) -> [UInt8] {
        var start = key
        for _ in 0..<64 {
            var (inside, outside) = (KeyOrder.padded(start), KeyOrder.last)
            while let middle = KeyOrder.middle(inside, outside) {
                let bytes = try database.approximateBytes(.rows, from: start, to: KeyOrder.trimmed(middle))
                if bytes == 0 { inside = middle } else { outside = middle }
            }
            start = KeyOrder.trimmed(outside)
            seek(start)
            if isValid { return KeyOrder.predecessor(withEntry { key, _ in copy(key) }) }
            if try corruption() == nil { return KeyOrder.last }
        }
        return start
    }
}

/// Records of one slot of the outbox.
package struct OutboxSlice: Sendable {
    /// The first sequence number that is kept: records before it are gone.
    package var firstKept: UInt64
    /// The last sequence number that was committed; 0 when there is none.
    package var last: UInt64
    /// The records, in the order of their sequence numbers.
    package var records: [OutboxRecord]
}

extension RocksDBBackend {
    /// Committed records of `slot` (0 to 63) behind sequence number `sequence`, at most `limit`. When the first one
    /// does not follow `sequence`, there is a gap. Blocks.
    package func outboxRecords(slot: Int, after sequence: UInt64, limit: Int) throws(StorageFailure) -> OutboxSlice {
        precondition((0..<OutboxKey.slots).contains(slot), "no such slot")
        return try guests.use { database throws(StorageFailure) in
            var key: [UInt8] = []
            let iterator = RocksIterator(database, .outbox)
            let firstKept = core.cursors.firstKept(slot)
            var slice = OutboxSlice(firstKept: firstKept, last: 0, records: [])
            OutboxKey.encode(slot: slot, sequence: .max, into: &key)
            iterator.seekBack(key)
            if iterator.isValid, let last = iterator.withEntry({ key, _ in OutboxKey.decode(key) }), last.slot == slot {
                slice.last = last.sequence
            }
            OutboxKey.encode(slot: slot, sequence: max(sequence + 1, firstKept), into: &key)
            iterator.seek(key)
            while slice.records.count < limit, iterator.isValid {
                let entry = iterator.withEntry { key, value in (OutboxKey.decode(key), copy(value)) }
                guard let place = entry.0, place.slot == slot else { break }
                guard let record = OutboxRecord(object: entry.1), UInt64(bitPattern: record.sequence) == place.sequence
                else {
                    core.counters.checksumErrors.add(1)
                    throw StorageFailure(.refused, "a record of the outbox is damaged")
                }
                slice.records.append(record)
                iterator.next()
            }
            do throws(RocksDatabase.Failure) { try iterator.checkError() } catch {
                core.noteFailedRead(error, database)
                throw StorageFailure(.refused, "reading the outbox failed: \(error.reason)")
            }
            return slice
        }
    }

    /// Lets the records of `slot` up to `sequence` go: every consumer has them. Takes effect within a second.
    package func trimOutbox(slot: Int, through sequence: UInt64) {
        core.trimRequests.withLock { $0[slot] = max($0[slot], sequence + 1) }
    }
}
