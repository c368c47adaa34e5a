// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// Gives the records of the outbox their sequence numbers and trims it. On the committer's thread only.
struct OutboxWriter {
    private let configuration: RocksDBConfiguration
    private let cursors: TrimCursors
    /// The last sequence number of each slot that was put in a batch.
    private var last: [UInt64]
    private var record = OutboxRecord()
    private var key: [UInt8] = []
    private var bytes: [UInt8] = []
    private var poolNames: [String]
    /// Records since the cursors were written.
    private var sinceTrim = 0
    /// The cursors that the batch at hand writes.
    private var pendingTrim: [UInt64]?
    /// Records in the batch at hand.
    private(set) var batchRecords = 0
    /// The same for those who follow; empty where nobody does.
    private var followed: [ChangeTail.Entry] = []
    private let changes: RocksDBChanges?
    /// The cursors at some moments, so that records are kept for a time without looking at each.
    private var marks: [(milliseconds: Int64, last: [UInt64])] = []

    init(
        _ state: StoreState, _ configuration: RocksDBConfiguration, cursors: TrimCursors, changes: RocksDBChanges?
    ) {
        self.changes = changes
        self.configuration = configuration
        self.cursors = cursors
        last = state.lastSequences
        poolNames = configuration.poolNames
        record.region = configuration.region
        record.source = state.identity
        record.epoch = Int64(bitPattern: state.epoch)
        record.reason = "write"
    }

    /// Begins a batch.
    mutating func beginBatch(_ database: RocksDatabase) {
        batchRecords = 0
        pendingTrim = nil
        followed.removeAll(keepingCapacity: true)
        record.position = String(database.latestSequence + 1)
    }

    /// Puts the record of one change in the batch; gives its size in bytes.
    mutating func append(
        _ write: StorageWrite, row: StoredRow, keyHash: UInt64, now: Int64, to batch: borrowing RocksBatch,
        in database: RocksDatabase
    ) -> Int {
        let slot = OutboxKey.slot(keyHash: keyHash)
        last[slot] += 1
        record.operation =
            switch write.operation {
            case .delete: .delete
            case .touch: .touch
            default: .set
            }
        record.pool = name(ofPool: Int(write.pool))
        record.key = write.key
        record.keyHash = keyHash
        record.version = row.version
        record.expiryMilliseconds = row.expiryMilliseconds
        record.slot = Int32(slot)
        record.firstSequence = Int64(bitPattern: last[slot])
        record.sequence = Int64(bitPattern: last[slot])
        record.timeMilliseconds = now
        record.trace = write.trace
        record.encodeObject(into: &bytes)
        OutboxKey.encode(slot: slot, sequence: last[slot], into: &key)
        batch.put(.outbox, in: database, key: key, value: bytes)
        batchRecords += 1
        if changes != nil {
            followed.append(ChangeTail.Entry(slot: slot, sequence: record.sequence, bytes: bytes))
        }
        return key.count + bytes.count
    }

    /// Ends a batch: without a consumer, everything but the last record of each slot may go from time to time. The last
    /// stays, because it tells a restart where to go on.
    mutating func endBatch(_ batch: borrowing RocksBatch, in database: RocksDatabase) {
        sinceTrim += batchRecords
        guard !configuration.keepsOutbox, sinceTrim >= configuration.outboxTrimRecords else { return }
        batch.put(.meta, in: database, key: MetaRows.trim, value: MetaRows.encode(last))
        pendingTrim = last
    }

    /// The batch was committed: before anybody is answered, those who follow can see it.
    mutating func noteCommitted() {
        changes?.noteCommitted(followed)
        defer { cursors.noteKept(last) }
        guard let pendingTrim else { return }
        for slot in 0..<OutboxKey.slots { cursors.advance(slot, to: pendingTrim[slot]) }
        sinceTrim = 0
        self.pendingTrim = nil
    }

    /// Lets go what every consumer has, and, when the outbox has grown past its limit, its oldest records, an eighth at
    /// least: a consumer that is so far behind sees a gap (docs/contract.md, 13). A failure is the store's, as that of
    /// any commit is.
    mutating func maintain(_ database: RocksDatabase, consumed: [UInt64]) throws(RocksDatabase.Failure) {
        let bytes = Double(database.property(.outbox, "rocksdb.live-sst-files-size"))
        let excess = bytes > Double(configuration.outboxLimitBytes)
        let aged = self.aged()
        let share = excess ? 1 - 0.875 * Double(configuration.outboxLimitBytes) / bytes : 0
        let kept = (0..<OutboxKey.slots).map { slot in
            let first = max(cursors.firstKept(slot), 1)
            let records = last[slot] + 1 - min(first, last[slot] + 1)
            let bounded = first + UInt64(Double(records) * share)
            // The last record stays: it tells a restart where to go on.
            let free = max(consumed[slot], aged?[slot] ?? 0, excess ? bounded : 0)
            return max(cursors.firstKept(slot), min(last[slot], free))
        }
        guard kept.indices.contains(where: { kept[$0] > cursors.firstKept($0) }) else { return }
        let batch = RocksBatch()
        batch.put(.meta, in: database, key: MetaRows.trim, value: MetaRows.encode(kept))
        try database.commit(batch, synced: configuration.durability != .async)
        for slot in 0..<OutboxKey.slots { cursors.advance(slot, to: kept[slot]) }
        cursors.noteKept(last)
        if excess { changes?.compact() }
    }

    /// By slot, the first record that is young enough to be kept; nil where time does not matter. Records from before
    /// the start count as of the start.
    private mutating func aged() -> [UInt64]? {
        guard configuration.outboxKeepMilliseconds > 0 else { return nil }
        let now = configuration.now()
        if now - (marks.last?.milliseconds ?? 0) >= max(1_000, configuration.outboxKeepMilliseconds / 64) {
            marks.append((now, last))
        }
        var old: [UInt64]?
        while let first = marks.first, first.milliseconds <= now - configuration.outboxKeepMilliseconds {
            old = first.last
            marks.removeFirst()
        }
        return old.map { $0.map { $0 + 1 } }
    }

    private mutating func name(ofPool number: Int) -> String {
        while poolNames.count <= number { poolNames.append(String(poolNames.count)) }
        return poolNames[number]
    }
}
