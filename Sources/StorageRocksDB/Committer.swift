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
    private var plan = CommitPlan()
    /// How large rows are lately that are looked up: of large ones it looks up fewer at once.
    private var sizes = RowSizes()
    /// What the commit at hand took.
    private var timing = StorageTiming(taken: 0, began: 0, ended: 0, count: 0, isCommit: true)
    /// How many writes the last commit answered; 0 since it slept.
    private var lastCount = 0
    private var arrivals = ArrivalSpin(processors: ProcessControl.processors)
    private var lookup = LookupScratch()
    private var head: [UInt8] = []

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
                if configuration.keepsOutbox, core.refusesWrites == nil { trimOutbox() }
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
                guard plan.changedBytes + plan.lookedBytes < configuration.commitBytes else {
                    carried = Array(taken[index...])
                    break rounds
                }
                // Of large rows fewer, once it is known that they are; and never more than their limit allows.
                let typical = sizes.count(fitting: configuration.commitBytes, in: 1...Self.lookupLimit)
                let most = min(typical, configuration.lookupRows)
                let end = min(index + most, taken.count)
                readRows(index..<end)
                // The disk may have failed just now: what was decided before is committed yet, and no more.
                if let reason = core.refusesWrites {
                    refuse(taken[index...], reason)
                    break
                }
                // Many changes of one large row are large too.
                repeat {
                    if let change = plan.decide(taken[index], clock: &clock, now: now) { put(change, now: now) }
                    index += 1
                } while index < end && plan.changedBytes < configuration.commitBytes
            }
        }
        commit()
        lastCount = plan.outcomes.count
        timing.count = UInt32(clamping: plan.outcomes.count)
        if timing.endedNanoseconds == 0 { timing.endedNanoseconds = Clock.monotonicNanoseconds() }
        core.sink?.writesCompleted(plan.outcomes, timing: timing)
        // Not at the begin of the next commit, which may be long in coming: rows are large.
        plan.clear()
        taken.removeAll(keepingCapacity: true)
        waiting.removeAll(keepingCapacity: true)
        batch.clear()
    }

    private mutating func refuse(_ writes: ArraySlice<SubmittedWrite>, _ reason: String) {
        core.counters.writesRefused.add(writes.count)
        plan.refuse(writes, reason)
    }

    /// Takes what the last commit left, or else what waits.
    private mutating func takeRound() {
        taken.removeAll(keepingCapacity: true)
        if !carried.isEmpty {
            swap(&taken, &carried)
            return
        }
        let limit = configuration.commitLimit - plan.outcomes.count
        let bytes = configuration.commitBytes - plan.changedBytes - plan.lookedBytes
        guard limit > 0, bytes > 0 else { return }
        waiting.removeAll(keepingCapacity: true)
        core.writes.take(into: &waiting, limit: limit, byteLimit: bytes)
        taken.append(contentsOf: waiting.lazy.map(\.element))
    }

    // MARK: Rows

    /// Reads the rows that the taken writes look at, and that are not known from earlier in this commit, together.
    private mutating func readRows(_ range: Range<Int>) {
        let keys = plan.unknownKeys(of: taken[range])
        guard !keys.isEmpty else { return }
        core.counters.writeLookups.add(keys.count)
        let sorted = KeyOrder.sorted(keys)
        var found: [(Int, CommitPlan.Known)] = []
        database.values(.rows, sortedKeys: sorted, scratch: &lookup) { index, bytes in
            switch RowCodec.decode(bytes, keyHash: hash(of: sorted[index])) {
            case .row(let row): found.append((index, .row(row)))
            case .tombstone(let version): found.append((index, .absent(version: version)))
            case .damaged:
                core.counters.checksumErrors.add(1)
                found.append((index, .unreadable(BackendCore.damaged)))
            }
        } failed: { index, reason in
            found.append((index, .unreadable("reading the row failed: \(reason)")))
            core.noteFailedRead(RocksDatabase.Failure(reason: reason), database)
        }
        for (index, known) in found {
            if case .row(let row) = known { sizes.note(row.value.count) }
            plan.note(known, of: sorted[index])
        }
    }

    /// Puts a row and its record in the batch.
    private mutating func put(_ change: CommitPlan.Change, now: Int64) {
        let (write, row) = (change.write, change.row)
        let keyHash = hash(of: write.key)
        let rowHead = RowCodec.Head(
            isTombstone: change.isTombstone, clientFlags: row.clientFlags, version: row.version,
            expiryMilliseconds: row.expiryMilliseconds)
        RowCodec.encode(rowHead, value: row.value, keyHash: keyHash, into: &head)
        batch.put(.rows, in: database, key: write.key, head: head, value: row.value)
        let record = outbox.append(write, row: row, keyHash: keyHash, now: now, to: batch, in: database)
        plan.noteChanged(bytes: write.key.count + head.count + row.value.count + record)
    }

    // MARK: Committing

    /// Commits the batch, and makes failures of the outcomes when that fails.
    private mutating func commit() {
        let changes = outbox.batchRecords
        guard changes > 0 else { return }
        let mark = clock.mustPersistBefore(plan.lastVersion)
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
        counters.committedBytes.add(plan.changedBytes)
        if isSynced {
            counters.syncs.add(1)
            counters.syncedWrites.add(changes)
            counters.leftWaiting.add(waiting)
        }
        counters.writes.add(plan.outcomes.count)
        if let mark { clock.notePersisted(mark) }
        outbox.noteCommitted()
    }

    private mutating func trimOutbox() {
        do throws(RocksDatabase.Failure) {
            try outbox.maintain(database, consumed: core.trimRequests.withLock { $0 })
        } catch { endCommits(error.reason) }
    }

    /// After a failed commit there is no other one.
    private func endCommits(_ reason: String) {
        database.endBackgroundWork()
        core.refuseWrites("a commit failed, and writes are refused until the node is started again: \(reason)")
    }

    /// A commit failed: whether it happened will be seen after a restart. The log is not touched again: what a second
    /// sync of the same file says is worth nothing.
    private mutating func fail(_ reason: String) {
        endCommits(reason)
        core.counters.writesFailed.add(plan.outcomes.count)
        plan.fail(reason)
    }
}
