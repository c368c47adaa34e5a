// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Storage
internal import Telemetry

/// The one thread that writes: takes what waits, decides it in order, and commits it with its records of the outbox in
/// one batch and one sync.
///
/// One writer makes every batch a total order: versions and sequence numbers need no lock, and RocksDB, which groups
/// only what several threads write at the same moment, syncs once for everything that waits.
struct Committer: ~Copyable {
    /// How often a batch that is ready takes in what came meanwhile, before it is committed.
    private static let rounds = 4
    /// Rows that are looked up at once to decide writes.
    private static let lookupLimit = 64

    let core: BackendCore
    let database: RocksDatabase
    private let configuration: RocksDBConfiguration
    private let batch = RocksBatch()
    private let timer = LogTimer()
    private var clock: HybridLogicalClock
    private var outbox: OutboxWriter
    /// What the commit at hand holds, and what becomes of it.
    private var waiting: [Waiting<SubmittedWrite>] = []
    private var taken: [SubmittedWrite] = []
    /// What was taken and found no room in the last commit; comes first in the next.
    private var carried: [SubmittedWrite] = []
    private var outcomes: [(token: UInt64, outcome: WriteOutcome)] = []
    /// Rows that conditions look at: what is stored, then what this batch makes of it.
    private var overlay: [[UInt8]: Known] = [:]
    /// What this batch did to keys that are not in `overlay`, in order; a later round may look at them.
    private var unlooked: [(key: [UInt8], known: Known)] = []
    private var batchBytes = 0
    /// What the commit at hand took.
    private var timing = StorageTiming(taken: 0, began: 0, ended: 0, count: 0, isCommit: true)
    /// How many writes the last commit answered; 0 since it slept.
    private var lastCount = 0
    private var arrivals = ArrivalSpin(processors: ProcessControl.processors)
    private var lastVersion: UInt64 = 0
    private var lookup = LookupScratch()
    private var head: [UInt8] = []

    /// What is known of a key.
    private enum Known {
        case absent(version: UInt64)
        case row(StoredRow)
        /// It cannot be read, for this reason.
        case unreadable(String)
    }

    init(core: BackendCore, database: RocksDatabase, state: StoreState) {
        self.core = core
        self.database = database
        configuration = core.configuration
        clock = HybridLogicalClock(persistedMark: state.versionMark)
        outbox = OutboxWriter(state, configuration, cursors: core.cursors, changes: core.changes)
    }

    /// Commits until the queue is closed and empty.
    mutating func run() {
        var nextCheck = Clock.monotonicNanoseconds() + BackendCore.checkNanoseconds
        while true {
            let ticket = core.writes.parking.ticket
            let isClosed = core.writes.isClosed
            if core.writes.count == 0, carried.isEmpty {
                if isClosed { return }
                waitForWrites(ticket)
            } else {
                if configuration.durability == .group, !isClosed, carried.isEmpty { waitForCompany() }
                core.work.begin(-1)
                commitWaiting()
                core.work.end(-1)
            }
            let now = Clock.monotonicNanoseconds()
            if now >= nextCheck {
                nextCheck = now + BackendCore.checkNanoseconds
                core.work.begin(-1)
                core.check(database)
                if configuration.keepsOutbox, core.refusesWrites == nil {
                    outbox.maintain(database, consumed: core.trimRequests.withLock { $0 })
                }
                core.work.end(-1)
            }
        }
    }

    /// Sleeps until something is submitted. One client that writes again as soon as it is answered does so before a
    /// thread has fallen asleep and been woken: so the committer looks for it a little longer, as long as that pays.
    private mutating func waitForWrites(_ ticket: UInt32) {
        let spin = arrivals.nanoseconds(afterCommitOf: lastCount)
        lastCount = 0
        if spin > 0 {
            let isHere = core.writes.parking.spin(ticket, nanoseconds: spin)
            arrivals.note(isHere)
            if isHere { return }
        }
        core.writes.parking.wait(ticket, timeoutNanoseconds: BackendCore.checkNanoseconds)
    }

    /// Sleeps until the group wait is over, or as many wait as a commit takes.
    private func waitForCompany() {
        let end = Clock.monotonicNanoseconds() + UInt64(configuration.groupWaitMicroseconds) * 1_000
        while true {
            let ticket = core.writes.parking.ticket
            let now = Clock.monotonicNanoseconds()
            guard now < end, core.writes.count < configuration.commitLimit, !core.writes.isClosed else { return }
            core.writes.parking.wait(ticket, timeoutNanoseconds: end - now)
        }
    }

    private mutating func commitWaiting() {
        outcomes.removeAll(keepingCapacity: true)
        overlay.removeAll(keepingCapacity: true)
        unlooked.removeAll(keepingCapacity: true)
        batch.clear()
        (batchBytes, lastVersion) = (0, 0)
        timing = StorageTiming(taken: Clock.monotonicNanoseconds(), began: 0, ended: 0, count: 0, isCommit: true)
        outbox.beginBatch(database)
        rounds: for _ in 0..<Self.rounds {
            takeRound()
            if taken.isEmpty { break }
            if let reason = core.refusesWrites {
                refuse(taken[...], reason)
                continue
            }
            let now = configuration.now()
            var index = 0
            while index < taken.count {
                // What rows make of small commands is known only now: the rest goes into the next commit.
                guard batchBytes < configuration.commitBytes else {
                    carried = Array(taken[index...])
                    break rounds
                }
                let end = min(index + Self.lookupLimit, taken.count)
                readRows(index..<end)
                // The disk may have failed just now: what was decided before is committed yet, and no more.
                if let reason = core.refusesWrites {
                    refuse(taken[index...], reason)
                    break
                }
                for write in taken[index..<end] { decide(write, now: now) }
                index = end
            }
        }
        commit()
        lastCount = outcomes.count
        timing.count = UInt32(clamping: outcomes.count)
        if timing.endedNanoseconds == 0 { timing.endedNanoseconds = Clock.monotonicNanoseconds() }
        core.sink?.writesCompleted(outcomes, timing: timing)
    }

    private mutating func refuse(_ writes: ArraySlice<SubmittedWrite>, _ reason: String) {
        core.counters.writesRefused.add(writes.count)
        for write in writes { outcomes.append((write.token, .failed(StorageFailure(.refused, reason)))) }
    }

    /// Takes what the last commit left, or else what waits.
    private mutating func takeRound() {
        taken.removeAll(keepingCapacity: true)
        if !carried.isEmpty {
            swap(&taken, &carried)
            return
        }
        let (limit, bytes) = (configuration.commitLimit - outcomes.count, configuration.commitBytes - batchBytes)
        guard limit > 0, bytes > 0 else { return }
        waiting.removeAll(keepingCapacity: true)
        core.writes.take(into: &waiting, limit: limit, byteLimit: bytes)
        taken.append(contentsOf: waiting.lazy.map(\.element))
    }

    // MARK: Deciding

    /// Whether the operation depends on what is stored.
    private static func looks(_ write: StorageWrite) -> Bool { write.operation != .set || write.compare != 0 }

    /// Reads the rows that the taken writes look at, and that are not known from earlier in this batch, together.
    private mutating func readRows(_ range: Range<Int>) {
        var keys: [[UInt8]] = []
        for submitted in taken[range] where Self.looks(submitted.write) {
            // What an earlier round of this batch did is in no file yet.
            if !unlooked.isEmpty {
                for (key, known) in unlooked { overlay[key] = known }
                unlooked.removeAll(keepingCapacity: true)
            }
            guard overlay[submitted.write.key] == nil else { continue }
            keys.append(submitted.write.key)
            overlay[submitted.write.key] = .absent(version: 0)
        }
        guard !keys.isEmpty else { return }
        core.counters.writeLookups.add(keys.count)
        let sorted = KeyOrder.sorted(keys)
        var found: [(Int, Known)] = []
        database.values(.rows, sortedKeys: sorted, scratch: &lookup) { index, bytes in
            switch RowCodec.decode(bytes, keyHash: hash(of: sorted[index])) {
            case .row(let row): found.append((index, .row(row)))
            case .tombstone(let version): found.append((index, .absent(version: version)))
            case .damaged: found.append((index, .unreadable(BackendCore.damaged)))
            }
        } failed: { index, reason in
            found.append((index, .unreadable("reading the row failed: \(reason)")))
            core.noteFailedRead(RocksDatabase.Failure(reason: reason), database)
        }
        for (index, known) in found {
            if case .unreadable(BackendCore.damaged) = known {
                core.counters.checksumErrors.add(1)
            }
            overlay[sorted[index]] = known
        }
    }

    /// Decides one write against what is known, and puts what it changes in the batch.
    private mutating func decide(_ submitted: SubmittedWrite, now: Int64) {
        let write = submitted.write
        var live: StoredRow?
        var stored: UInt64 = 0
        let isLooking = Self.looks(write)
        if isLooking {
            switch overlay[write.key] {
            case .row(let row):
                stored = row.version
                if row.isLive(at: now) { live = row }
            case .absent(let version): stored = version
            case .unreadable(let reason):
                outcomes.append((submitted.token, .failed(StorageFailure(.refused, reason))))
                return
            case nil: preconditionFailure("a write's row was not read")
            }
        }
        switch WriteEvaluation.decide(write, live: live) {
        case .refuse(let outcome): outcomes.append((submitted.token, outcome))
        case .put(var row):
            row.version = clock.next(after: stored, unixMilliseconds: now)
            put(write, row: row, isTombstone: false, now: now)
            outcomes.append((submitted.token, .stored(row)))
        case .tombstone:
            let version = clock.next(after: stored, unixMilliseconds: now)
            let row = StoredRow(version: version, expiryMilliseconds: 0, clientFlags: 0, value: [])
            put(write, row: row, isTombstone: true, now: now)
            outcomes.append((submitted.token, .deleted(version: version)))
        }
    }

    /// Puts a row and its record in the batch.
    private mutating func put(_ write: StorageWrite, row: StoredRow, isTombstone: Bool, now: Int64) {
        let keyHash = hash(of: write.key)
        let rowHead = RowCodec.Head(
            isTombstone: isTombstone, clientFlags: row.clientFlags, version: row.version,
            expiryMilliseconds: row.expiryMilliseconds)
        RowCodec.encode(rowHead, value: row.value, keyHash: keyHash, into: &head)
        batch.put(.rows, in: database, key: write.key, head: head, value: row.value)
        let record = outbox.append(write, row: row, keyHash: keyHash, now: now, to: batch, in: database)
        batchBytes += write.key.count + head.count + row.value.count + record
        lastVersion = row.version
        let known = isTombstone ? Known.absent(version: row.version) : .row(row)
        if overlay[write.key] != nil { overlay[write.key] = known } else { unlooked.append((write.key, known)) }
    }

    // MARK: Committing

    /// Commits the batch, and makes failures of the outcomes when that fails.
    private mutating func commit() {
        let changes = outbox.batchRecords
        guard changes > 0 else { return }
        let mark = clock.mustPersistBefore(lastVersion)
        if let mark {
            batch.put(.meta, in: database, key: MetaRows.versionMark, value: MetaRows.encode(mark))
        }
        outbox.endBatch(batch, in: database)
        // Also where nothing else is synced, a version may not come again after a power loss: the mark must be durable.
        let isSynced = configuration.durability != .async || mark != nil
        configuration.willCommit()
        let waiting = core.writes.count
        let (began, logBefore) = (Clock.monotonicNanoseconds(), timer.nanoseconds)
        timing.beganNanoseconds = began
        do throws(RocksDatabase.Failure) {
            try database.commit(batch, synced: isSynced)
        } catch {
            fail(error.reason)
            return
        }
        let counters = core.counters
        timing.endedNanoseconds = Clock.monotonicNanoseconds()
        timing.logNanoseconds = timer.nanoseconds - logBefore
        counters.commitTimes.record(nanoseconds: timing.endedNanoseconds - began)
        counters.logTimes.record(nanoseconds: timing.logNanoseconds)
        counters.commits.add(1)
        counters.committed.add(changes)
        counters.committedBytes.add(batchBytes)
        if isSynced {
            counters.syncs.add(1)
            counters.syncedWrites.add(changes)
            counters.leftWaiting.add(waiting)
        }
        counters.writes.add(outcomes.count)
        if let mark { clock.notePersisted(mark) }
        outbox.noteCommitted()
    }

    /// A commit failed: whether it happened will be seen after a restart. The log is not touched again: what a second
    /// sync of the same file says is worth nothing.
    private mutating func fail(_ reason: String) {
        database.endBackgroundWork()
        core.refuseWrites("a commit failed, and writes are refused until the node is started again: \(reason)")
        core.counters.writesFailed.add(outcomes.count)
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
}
