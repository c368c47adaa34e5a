// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Storage
internal import Synchronization

/// The outbox of the embedded store for those who follow it. The committer brings each batch before its writes are
/// answered, so that what was answered is always among what is known.
final class RocksDBChanges: ChangeSource {
    let tail: ChangeTail
    private let cursors: TrimCursors
    private let current = Guarded<StreamPosition?>(nil)
    private let guests = Guarded<Guests?>(nil)
    /// Where a read that failed is told.
    private let failedRead = Guarded<@Sendable (RocksDatabase.Failure, RocksDatabase) -> Void>({ _, _ in })
    /// By slot, the first record that is still needed.
    private let needed: Guarded<[UInt64]>
    private let willCompact: @Sendable () -> Void
    private let isCompacting = Atomic<Bool>(false)

    init(_ configuration: RocksDBConfiguration, cursors: TrimCursors, needed: Guarded<[UInt64]>) {
        self.cursors = cursors
        self.needed = needed
        willCompact = configuration.willCompact
        tail = ChangeTail(limitBytes: configuration.outboxTailBytes)
    }

    /// The store is open, and its outbox ends as `state` says. Reads that fail are told to `failedRead`.
    func open(
        _ guests: Guests, _ state: StoreState,
        failedRead: @escaping @Sendable (RocksDatabase.Failure, RocksDatabase) -> Void
    ) {
        self.failedRead.withLock { $0 = failedRead }
        self.guests.withLock { $0 = guests }
        let position = StreamPosition(
            source: state.identity, epoch: Int64(bitPattern: state.epoch),
            sequences: state.lastSequences.map { Int64(bitPattern: $0) })
        tail.begin(position)
        current.withLock { $0 = position }
    }

    /// A batch was committed.
    func noteCommitted(_ entries: [ChangeTail.Entry]) {
        current.withLock { position in for entry in entries { position?.sequences[entry.slot] = entry.sequence } }
        tail.append(entries)
    }

    var position: StreamPosition? { current.withLock { $0 } }

    var keptSequences: [Int64] {
        (0..<StreamSlots.count).map { max(0, Int64(bitPattern: cursors.firstKept($0)) - 1) }
    }

    /// What was answered is known already.
    func beginProof() -> UInt64 { 0 }

    func proof(_ ticket: UInt64) -> [Int64]? { position?.sequences }

    func records(slot: Int, after sequence: Int64, limitBytes: Int) throws(StorageFailure) -> ChangeSlice {
        guard let guests = guests.withLock({ $0 }) else { throw RocksDBBackend.stopped }
        return try guests.use { database throws(StorageFailure) in
            var key: [UInt8] = []
            let iterator = RocksIterator(database, .outbox)
            OutboxKey.encode(
                slot: slot, sequence: max(UInt64(bitPattern: sequence) + 1, cursors.firstKept(slot)), into: &key)
            iterator.seek(key)
            var (records, bytes): ([ChangeTail.Entry], Int) = ([], 0)
            while iterator.isValid {
                let (place, record) = iterator.withEntry { key, value in (OutboxKey.decode(key), copy(value)) }
                guard let place, place.slot == slot else { break }
                guard bytes < limitBytes else { return ChangeSlice(records: records, isLast: false) }
                records.append(
                    ChangeTail.Entry(slot: slot, sequence: Int64(bitPattern: place.sequence), bytes: record))
                bytes += record.count
                iterator.next()
            }
            do throws(RocksDatabase.Failure) { try iterator.checkError() } catch {
                failedRead.withLock { $0 }(error, database)
                throw StorageFailure(.refused, "reading the outbox failed: \(error.reason)")
            }
            return ChangeSlice(records: records, isLast: true)
        }
    }

    func rows(_ keys: [[UInt8]], limitBytes: Int, valueMax: Int) throws(StorageFailure) -> [StoredRow?] {
        guard let guests = guests.withLock({ $0 }) else { throw RocksDBBackend.stopped }
        return try guests.use { database throws(StorageFailure) in
            var (rows, bytes): ([StoredRow?], Int) = ([], 0)
            for key in keys where bytes < limitBytes {
                rows.append(try row(key, database)?.limited(toValueOf: valueMax))
                bytes += rows[rows.count - 1]?.value.count ?? 0
            }
            return rows
        }
    }

    private func row(_ key: [UInt8], _ database: RocksDatabase) throws(StorageFailure) -> StoredRow? {
        let found: [UInt8]?
        do throws(RocksDatabase.Failure) { found = try database.value(.rows, key) } catch {
            failedRead.withLock { $0 }(error, database)
            throw StorageFailure(.refused, "reading a row failed: \(error.reason)")
        }
        guard let found, case .row(let row) = RowCodec.decode(found.span, keyHash: hash(of: key)) else { return nil }
        return row
    }

    func release(through sequences: [Int64]) {
        needed.withLock { needed in
            for slot in 0..<StreamSlots.count where sequences[slot] > 0 {
                needed[slot] = max(needed[slot], UInt64(bitPattern: sequences[slot]) + 1)
            }
        }
    }

    /// Takes from the disk what was let go, on a thread of its own: it may take minutes, and nobody waits for it. One
    /// at a time.
    func compact() {
        guard let guests = guests.withLock({ $0 }), !isCompacting.exchange(true, ordering: .acquiring) else { return }
        let thread = try? Thread(name: "store-compact") { [self] in
            willCompact()
            try? guests.use { $0.compact(.outbox) }
            isCompacting.store(false, ordering: .releasing)
        }
        if thread == nil { isCompacting.store(false, ordering: .releasing) }
    }
}
