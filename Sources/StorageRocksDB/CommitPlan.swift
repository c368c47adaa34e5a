// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// What one commit makes of its writes, in their order: pure. Rows are read for it, and changes are put in the batch,
/// by the ``Committer``.
struct CommitPlan {
    /// What is known of a key.
    enum Known {
        case absent(version: UInt64)
        case row(StoredRow)
        /// It cannot be read, for this reason.
        case unreadable(String)
    }

    /// What becomes of one key's row.
    struct Change {
        var write: StorageWrite
        /// Without a value where it is a tombstone.
        var row: StoredRow
        var isTombstone: Bool
    }

    /// What is to be answered.
    private(set) var outcomes: [(token: UInt64, outcome: WriteOutcome)] = []
    /// Bytes that the changes put in the batch.
    private(set) var changedBytes = 0
    /// Bytes of the rows that were looked up.
    private(set) var lookedBytes = 0
    /// The version of the last change.
    private(set) var lastVersion: UInt64 = 0
    /// Rows that conditions look at: what is stored, then what this commit makes of it.
    private var overlay: [[UInt8]: Known] = [:]
    /// What this commit did to keys that are not in `overlay`, in order; a later round may look at them.
    private var unlooked: [(key: [UInt8], known: Known)] = []

    /// Whether the operation depends on what is stored.
    private static func looks(_ write: StorageWrite) -> Bool { write.operation != .set || write.compare != 0 }

    /// The keys whose rows must be read before these writes are decided; each must then be, or is taken for absent.
    mutating func unknownKeys(of writes: ArraySlice<SubmittedWrite>) -> [[UInt8]] {
        var keys: [[UInt8]] = []
        for submitted in writes where Self.looks(submitted.write) {
            // What an earlier round of this commit did is in no file yet.
            if !unlooked.isEmpty {
                for (key, known) in unlooked { overlay[key] = known }
                unlooked.removeAll(keepingCapacity: true)
            }
            guard overlay[submitted.write.key] == nil else { continue }
            keys.append(submitted.write.key)
            overlay[submitted.write.key] = .absent(version: 0)
        }
        return keys
    }

    /// Notes what was read under a key.
    mutating func note(_ known: Known, of key: [UInt8]) {
        if case .row(let row) = known { lookedBytes += row.value.count }
        overlay[key] = known
    }

    /// Decides one write against what is known; gives what changes.
    mutating func decide(_ submitted: SubmittedWrite, clock: inout HybridLogicalClock, now: Int64) -> Change? {
        let write = submitted.write
        var live: StoredRow?
        var stored: UInt64 = 0
        if Self.looks(write) {
            switch overlay[write.key] {
            case .row(let row):
                stored = row.version
                if row.isLive(at: now) { live = row }
            case .absent(let version): stored = version
            case .unreadable(let reason):
                outcomes.append((submitted.token, .failed(StorageFailure(.refused, reason))))
                return nil
            case nil: preconditionFailure("a write's row was not read")
            }
        }
        switch WriteEvaluation.decide(write, live: live) {
        case .refuse(let outcome):
            outcomes.append((submitted.token, outcome))
            return nil
        case .put(var row):
            row.version = clock.next(after: stored, unixMilliseconds: now)
            outcomes.append((submitted.token, .stored(row)))
            return keep(Change(write: write, row: row, isTombstone: false))
        case .tombstone:
            let version = clock.next(after: stored, unixMilliseconds: now)
            outcomes.append((submitted.token, .deleted(version: version)))
            let row = StoredRow(version: version, expiryMilliseconds: 0, clientFlags: 0, value: [])
            return keep(Change(write: write, row: row, isTombstone: true))
        }
    }

    private mutating func keep(_ change: Change) -> Change {
        let (key, row) = (change.write.key, change.row)
        lastVersion = row.version
        let known = change.isTombstone ? Known.absent(version: row.version) : .row(row)
        if overlay[key] != nil { overlay[key] = known } else { unlooked.append((key, known)) }
        return change
    }

    /// Notes how many bytes a change put in the batch.
    mutating func noteChanged(bytes: Int) { changedBytes += bytes }

    /// Answers that nothing is done.
    mutating func refuse(_ writes: ArraySlice<SubmittedWrite>, _ reason: String) {
        for write in writes { outcomes.append((write.token, .failed(StorageFailure(.refused, reason)))) }
    }

    /// Makes failures of all outcomes: the commit failed, and whether it happened is not known.
    mutating func fail(_ reason: String) {
        for index in outcomes.indices {
            switch outcomes[index].outcome {
            case .stored, .deleted:
                outcomes[index].outcome = .failed(StorageFailure(.unknownOutcome, "the commit failed: \(reason)"))
            default:
                // It changed nothing, but what it was decided upon may not be there.
                outcomes[index].outcome = .failed(StorageFailure(.refused, "the commit before it failed: \(reason)"))
            }
        }
    }

    /// Forgets all of it.
    mutating func clear() {
        outcomes.removeAll(keepingCapacity: true)
        overlay.removeAll(keepingCapacity: true)
        unlooked.removeAll(keepingCapacity: true)
        (changedBytes, lookedBytes, lastVersion) = (0, 0, 0)
    }
}
