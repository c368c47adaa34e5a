// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// What a transaction makes of its writes: pure.
struct SQLPlan {
    /// What is known of a key that some write looks at.
    private struct Known {
        /// The version of the stored row, tombstone or expired; 0 for none.
        var stored: UInt64 = 0
        var current: StoredRow?
        var isTombstone = false
        /// Whether the stored row's version is out of range.
        var isOdd = false
        /// The last write that changed it.
        var change: StorageWrite?
        /// What all changes of it are together: a touch where each of them was one.
        var operation = OutboxRecord.Operation.touch
    }

    /// The keys whose rows must be read: those of conditions, and those with several writes.
    let lookedAt: [[UInt8]]
    private var known: [[UInt8]: Known] = [:]
    /// Keys whose rows are too many bytes beside the others: their writes are for the next transaction.
    private var unseen: Set<[UInt8]> = []
    /// Where in `outcomes` the set of a key that nobody looks at is.
    private var blindPlaces: [[UInt8]: Int] = [:]
    private(set) var outcomes: [(token: UInt64, outcome: WriteOutcome)] = []
    private(set) var blind = SQLColumns()
    private(set) var guarded = SQLColumns()

    init(_ writes: [SubmittedWrite]) {
        var counts: [[UInt8]: Int] = [:]
        for submitted in writes {
            let write = submitted.write
            counts[write.key, default: 0] += write.operation != .set || write.compare != 0 ? 2 : 1
        }
        lookedAt = counts.filter { $0.value > 1 }.map(\.key)
        for key in lookedAt { known[key] = Known() }
    }

    /// Notes a row that was read.
    mutating func note(_ row: SQLRow) {
        if !row.hasValue { unseen.insert(row.key) }
        known[row.key] = Known(
            stored: row.row.version, current: row.row, isTombstone: row.isTombstone, isOdd: !row.hasVersion)
    }

    /// Decides the writes in their order, and fills the columns. Returns those that are left.
    mutating func decide(
        _ writes: [SubmittedWrite], clock: inout HybridLogicalClock, now: Int64
    ) -> [SubmittedWrite] {
        var left: [SubmittedWrite] = []
        for submitted in writes {
            let write = submitted.write
            if unseen.contains(write.key) {
                left.append(submitted)
                continue
            }
            var before = known[write.key]
            if before?.isOdd == true {
                guard write.operation == .set, write.compare == 0 else {
                    outcomes.append((submitted.token, .failed(SQLRow.oddVersion)))
                    continue
                }
                before?.current = nil
            }
            let live = before.flatMap { $0.isTombstone ? nil : $0.current }.flatMap { $0.isLive(at: now) ? $0 : nil }
            switch WriteEvaluation.decide(write, live: live) {
            case .refuse(let outcome): outcomes.append((submitted.token, outcome))
            case .put(var row):
                row.version = clock.next(after: before?.current?.version ?? 0, unixMilliseconds: now)
                keep(write, row, isTombstone: false, now: now)
                outcomes.append((submitted.token, .stored(row)))
            case .tombstone:
                let version = clock.next(after: before?.current?.version ?? 0, unixMilliseconds: now)
                let row = StoredRow(version: version, expiryMilliseconds: 0, clientFlags: 0, value: [])
                keep(write, row, isTombstone: true, now: now)
                outcomes.append((submitted.token, .deleted(version: version)))
            }
        }
        // In the order of the keys, so that two transactions take their locks in one order.
        let changed = known.filter { $0.value.change != nil }.sorted { $0.key.lexicographicallyPrecedes($1.key) }
        for (_, state) in changed {
            guard let write = state.change, let row = state.current else { continue }
            guarded.append(write, state.operation, row: row, now: now, expected: state.stored)
        }
        return left
    }

    private mutating func keep(_ write: StorageWrite, _ row: StoredRow, isTombstone: Bool, now: Int64) {
        if known[write.key] == nil {
            blindPlaces[write.key] = outcomes.count
            blind.append(write, isTombstone ? .delete : .set, row: row, now: now, expected: 0)
        } else {
            known[write.key]?.current = row
            known[write.key]?.isTombstone = isTombstone
            known[write.key]?.isOdd = false
            known[write.key]?.change = write
            if isTombstone {
                known[write.key]?.operation = .delete
            } else if write.operation != .touch {
                known[write.key]?.operation = .set
            }
        }
    }

    /// Takes over the versions that the database gave to sets without a condition.
    mutating func adopt(_ rows: SQLRows) {
        for columns in rows where columns.count == 2 {
            guard let key = columns[0], let version = BinaryParameter.number(columns[1]), let place = blindPlaces[key],
                case .stored(var row) = outcomes[place].outcome
            else { continue }
            row.version = UInt64(bitPattern: version)
            outcomes[place].outcome = .stored(row)
        }
    }
}
