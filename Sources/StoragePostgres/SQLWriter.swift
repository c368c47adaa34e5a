// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage
internal import Synchronization
internal import Telemetry

/// What a writer's thread does: takes what waits for its keys, decides it, and commits it as one transaction.
///
/// Rows that conditions look at are read first, without locks; the transaction then changes them only if they are as
/// they were, or does nothing and is tried again. Sets without a condition need no read. After a transaction of which
/// nobody knows whether it happened, nothing more is written over this connection until its session is gone from the
/// server: otherwise it could happen after what came later.
struct SQLWriter: ~Copyable {
    private let core: SQLCore
    private let queue: SubmissionQueue<Waiting<SubmittedWrite>>
    private let index: Int
    private var session: SQLSession
    private var clock: HybridLogicalClock
    private var waiting: [Waiting<SubmittedWrite>] = []
    private var taken: [SubmittedWrite] = []
    /// When those who wait for what was taken are about to give up.
    private var giveUp: UInt64 = 0
    /// The session whose transaction may still be under way.
    private var unsettled: SQLSessionIdentity?
    private var nextReap: UInt64
    private var nextEarlierCheck: UInt64 = 0
    private var nextProbe: UInt64 = 0
    /// What writes go by where nodes share the database; those that it holds back, and what holds for those taken.
    private let fence: (any WriteFence)?
    private var fenced = FencedWrites()
    private var permit: WritePermit?

    init(core: SQLCore, index: Int, mark: UInt64) {
        self.core = core
        self.index = index
        queue = core.writes[index]
        fence = core.fence
        session = SQLSession(core: core, index: index)
        clock = HybridLogicalClock(persistedMark: mark)
        nextReap = Clock.monotonicNanoseconds() + UInt64(core.configuration.reapMilliseconds) * 1_000_000
    }

    /// Writes until the queue is closed and empty.
    mutating func run() {
        while true {
            let ticket = queue.parking.ticket
            let isClosed = queue.isClosed
            var isUp = session.ensure() && settle()
            if isUp {
                settleEarlier()
                reap()
                probe()
                isUp = session.isUp
            }
            if queue.count == 0 {
                if isClosed {
                    let stopped = StorageFailure(.notSent, "the store is stopped")
                    answer(fenced.takeOverdue(since: .max).map { ($0.token, .failed(stopped)) })
                    session.close()
                    return
                }
                if !fenced.held.isEmpty {
                    queue.parking.wait(ticket, timeoutNanoseconds: Self.heldNanoseconds)
                    if isUp { commitFenced([]) } else { refuseOverdue() }
                    continue
                }
                let retry = max(session.untilNextTry, unsettled == nil && !watchesEarlier ? 0 : Self.settleNanoseconds)
                let mayRest = isUp && !watchesEarlier
                var most = mayRest ? SQLCore.checkNanoseconds : min(SQLCore.checkNanoseconds, retry)
                if isUp { most = min(most, untilNextReap) }
                queue.parking.wait(ticket, timeoutNanoseconds: max(most, 1_000_000))
                continue
            }
            waiting.removeAll(keepingCapacity: true)
            queue.take(into: &waiting, limit: core.configuration.commitLimit, byteLimit: core.configuration.commitBytes)
            // The thread at the door may have refused what waited.
            if waiting.isEmpty { continue }
            if fence != nil {
                if isUp {
                    commitFenced(waiting)
                    continue
                }
                refuseOverdue()
            }
            giveUp = waiting[0].sinceNanoseconds + UInt64(core.configuration.waitingMilliseconds) * 1_000_000
            taken.removeAll(keepingCapacity: true)
            taken.append(contentsOf: waiting.lazy.map(\.element))
            if isUp { commit(taken) } else { refuseTaken() }
        }
    }

    private func refuseTaken() {
        let reason =
            unsettled != nil && session.isUp
            ? "a transaction before it is not over yet" : "the database cannot be reached: \(session.reason)"
        answer(taken.map { ($0.token, .failed(StorageFailure(.notSent, reason))) })
    }

    private func answer(_ results: [(token: UInt64, outcome: WriteOutcome)], timing: StorageTiming? = nil) {
        core.counters.writes.add(results.count)
        if let timing {
            core.sink?.writesCompleted(results, timing: timing)
        } else {
            core.sink?.writesCompleted(results)
        }
    }

    // MARK: Writes that go by a fence

    /// Between looks at whether writes that are held back may be done.
    private static let heldNanoseconds: UInt64 = 2_000_000

    /// Commits what the fence lets through of the writes that it held back and of those that were taken.
    private mutating func commitFenced(_ taken: [Waiting<SubmittedWrite>]) {
        guard let fence else { return }
        let permit = fence.permit
        self.permit = permit
        let fresh = taken.map { FencedWrite($0.element, sinceNanoseconds: $0.sinceNanoseconds) }
        let admission = fenced.admit(fresh, permit)
        if !admission.refused.isEmpty { answer(admission.refused) }
        if !admission.ready.isEmpty {
            let oldest = admission.ready.map(\.sinceNanoseconds).min() ?? 0
            giveUp = oldest + UInt64(core.configuration.waitingMilliseconds) * 1_000_000
            let (state, left) = commit(admission.ready.map(\.submitted))
            if state == FleetSchema.fencedState {
                core.counters.fenced.add(1)
                let tokens = Set(left.map(\.token))
                fenced.putBack(admission.ready.filter { tokens.contains($0.submitted.token) })
                fence.renew(after: permit.epoch, timeoutNanoseconds: 200_000_000)
            }
        }
        refuseOverdue()
    }

    /// Refuses what the fence has held back for too long: those who asked are about to give up.
    private mutating func refuseOverdue() {
        let (now, limit) = (Clock.monotonicNanoseconds(), UInt64(core.configuration.waitingMilliseconds) * 1_000_000)
        let overdue = fenced.takeOverdue(since: now > limit ? now - limit : 0)
        if overdue.isEmpty { return }
        let failure = StorageFailure(.notSent, "the key's owner is changing")
        core.counters.refused.add(overdue.count)
        answer(overdue.map { ($0.token, .failed(failure)) })
    }

    // MARK: Transactions

    /// Commits writes as one transaction, or as several where the rows that they look at are large, and answers them;
    /// gives the SQLSTATE that refused them, and those that are not answered: only what was fenced is not.
    @discardableResult
    private mutating func commit(_ writes: [SubmittedWrite]) -> (state: String?, left: [SubmittedWrite]) {
        var left = writes
        while !left.isEmpty {
            if left.count < writes.count, Clock.monotonicNanoseconds() >= giveUp {
                refuse(left, "the database takes too long")
                return (nil, [])
            }
            if let state = commitSome(&left) { return (state, left) }
        }
        return (nil, [])
    }

    /// Commits one transaction of writes, and leaves those that are for the next. When the reason that one is refused
    /// may be in one row, each write is tried alone, so that one does not fail the others.
    private mutating func commitSome(_ writes: inout [SubmittedWrite]) -> String? {
        var last = SQLFailure.lostBefore(reason: "not tried")
        var left: [SubmittedWrite] = []
        let taken = Clock.monotonicNanoseconds()
        for attempt in 0..<core.configuration.conflictTries {
            let (began, home) = (Clock.monotonicNanoseconds(), core.homeEpoch.load(ordering: .relaxed))
            do throws(SQLFailure) {
                let outcomes = try transact(writes, home: home, left: &left)
                core.counters.transactions.add(1)
                let ended = Clock.monotonicNanoseconds()
                core.commitTimes[index].record.record(nanoseconds: ended - began)
                answer(
                    outcomes,
                    timing: StorageTiming(
                        taken: taken, began: began, ended: ended, count: outcomes.count, isCommit: true))
                writes = left
                return nil
            } catch {
                last = error
            }
            if case .refused(HomeSchema.fencedState, _) = last, session.renewHome(from: home) { continue }
            guard Self.isConflict(last) else { break }
            core.counters.conflicts.add(1)
            Parking().wait(0, timeoutNanoseconds: 500_000 << UInt64(min(attempt, 6)))
        }
        let all = writes
        switch last {
        // Nothing is wrong with the writes: they may be done under another permit.
        case .refused(FleetSchema.fencedState, _) where permit != nil: return FleetSchema.fencedState
        case .refused(HomeSchema.fencedState, _):
            refuse(all, Self.fencedReason)
            writes = []
            return HomeSchema.fencedState
        case .refused(let state, _) where all.count > 1 && Self.mayBeOfOneRow(state): commitAlone(all)
        case .refused(let state, _):
            if Self.isOfAll(last) { core.note(index, refusal: last.reason) }
            refuse(all, last.reason)
            writes = []
            return state
        case .lostBefore: refuse(all, last.reason)
        case .lostAfter:
            // Those that are left were not in that transaction.
            let tokens = Set(left.map(\.token))
            let sent = all.filter { !tokens.contains($0.token) }
            core.counters.unknown.add(sent.count)
            let failure = StorageFailure(.unknownOutcome, last.reason)
            answer(sent.map { ($0.token, .failed(failure)) })
            writes = left
            return nil
        }
        writes = []
        return nil
    }

    /// One after the other. When two of them take too long, what holds them up is not in a row, and the rest would hold
    /// up whoever waits behind it. What is asked for no longer is not done any more.
    private mutating func commitAlone(_ writes: [SubmittedWrite]) {
        var timeouts = 0
        for write in writes {
            if timeouts >= 2 || Clock.monotonicNanoseconds() >= giveUp {
                refuse([write], "the database takes too long")
            } else {
                switch commit([write]).state {
                case Self.timeoutState: timeouts += 1
                case FleetSchema.fencedState:
                    answer([(write.token, .failed(StorageFailure(.notSent, "the key's owner is changing")))])
                default: break
                }
            }
        }
    }

    private func refuse(_ writes: [SubmittedWrite], _ reason: String) {
        core.counters.writesFailed.add(writes.count)
        let failure = StorageFailure(.refused, reason)
        answer(writes.map { ($0.token, .failed(failure)) })
    }

    static let timeoutState = "57014"

    static let fencedReason = "this region is not home any more, or is about to stop being it"

    /// Whether what the server refused may be the fault of one row: data, constraints, limits, triggers, timeouts. A
    /// full disk and a missing table are everybody's.
    static func mayBeOfOneRow(_ state: String) -> Bool {
        state == timeoutState || ["22", "23", "54", "P0", "XX001"].contains { state.hasPrefix($0) }
    }

    /// Whether others got in the way: serialization failure, deadlock, and our own check that a row is as it was.
    private static func isConflict(_ failure: SQLFailure) -> Bool {
        guard case .refused(let state, _) = failure else { return false }
        return ["40001", "40P01", "22012"].contains(state)
    }

    /// Whether what the server refused is nobody's in particular, and its next answer may be the same. A standby is
    /// left for the primary at once.
    private static func isOfAll(_ failure: SQLFailure) -> Bool {
        guard case .refused(let state, _) = failure else { return false }
        return !mayBeOfOneRow(state) && !isConflict(failure) && state != "25006" && state != FleetSchema.fencedState
    }

    /// Decides and commits under the promotion `home`; gives the outcomes, and what is left for another transaction.
    private mutating func transact(
        _ writes: [SubmittedWrite], home: Int64, left: inout [SubmittedWrite]
    ) throws(SQLFailure) -> [(token: UInt64, outcome: WriteOutcome)] {
        left = []
        var plan = SQLPlan(writes)
        if !plan.lookedAt.isEmpty {
            for columns in try look(plan.lookedAt, home: home) {
                guard let row = SQLRow(columns) else {
                    throw .refused(state: "XX001", reason: "a row has other columns")
                }
                plan.note(row)
            }
        }
        left = plan.decide(writes, clock: &clock, now: core.configuration.now())
        // The first row comes with its value, unless it has none.
        guard left.count < writes.count else { throw .refused(state: "XX001", reason: "a row has no value") }
        var calls: [SQLCall] = []
        if !plan.guarded.isEmpty { calls.append(plan.guarded.guarded) }
        if !plan.blind.isEmpty { calls.append(plan.blind.blind) }
        guard !calls.isEmpty else { return plan.outcomes }
        let fences = fenceCalls(home)
        calls = fences + calls
        let mark = clock.mustPersistBefore(clock.last)
        if let mark { calls.append(SQLCall(.mark, [BinaryParameter.bigint(Int64(bitPattern: mark))])) }
        let identity = session.identity
        do throws(SQLFailure) {
            let results = try session.run(calls)
            if let mark { clock.notePersisted(mark) }
            core.note(index, refusal: nil)
            if !plan.blind.isEmpty { plan.adopt(results[fences.count + (plan.guarded.isEmpty ? 0 : 1)]) }
            return plan.outcomes
        } catch {
            if case .lostAfter = error {
                unsettled = identity
                core.beginUnsettled()
            }
            throw error
        }
    }

    /// What a transaction begins with where nodes share the database, or there are regions, under a promotion.
    private func fenceCalls(_ home: Int64) -> [SQLCall] {
        var calls: [SQLCall] = []
        if let permit {
            let parameters = [
                BinaryParameter.bigint(Int64(bitPattern: permit.epoch)), Array(permit.name.utf8),
                BinaryParameter.bigint(Int64(bitPattern: permit.token)),
            ]
            calls.append(SQLCall(.fence, parameters))
        }
        if core.configuration.keepsOutbox { calls.append(core.homeCall(home)) }
        return calls.isEmpty ? [] : [SQLCall(.share, [])] + calls
    }

    /// The rows as they are, without the values of those that are too much for one transaction beside the others. A
    /// connection that is lost here has changed nothing.
    ///
    /// What comes to no change is answered by them alone: so it is looked whether the promotion holds, behind the rows,
    /// as for reads.
    private mutating func look(_ keys: [[UInt8]], home: Int64) throws(SQLFailure) -> SQLRows {
        do throws(SQLFailure) {
            let bytes = BinaryParameter.bigint(Int64(core.configuration.commitBytes))
            let fence = core.configuration.keepsOutbox ? [core.homeCall(home)] : []
            return try session.run([SQLCall(.look, [BinaryParameter.array(bytea: keys), bytes])] + fence).first ?? []
        } catch {
            if case .lostAfter(let reason) = error { throw .lostBefore(reason: reason) }
            throw error
        }
    }

    // MARK: After a lost connection, and after a restart

    /// Between looks at whether a session is gone.
    private static let settleNanoseconds: UInt64 = 50_000_000

    /// The first writer sees to the sessions of earlier processes.
    private var watchesEarlier: Bool { index == 0 && core.hasEarlier.load(ordering: .relaxed) }

    /// Looks whether sessions of earlier processes are gone, and asks the server to end them.
    private mutating func settleEarlier() {
        guard watchesEarlier, Clock.monotonicNanoseconds() >= nextEarlierCheck else { return }
        nextEarlierCheck = Clock.monotonicNanoseconds() + Self.settleNanoseconds
        _ = try? session.run([SQLCall(.endEarlier, core.nameParameters)])
        guard let rows = try? session.run([SQLCall(.earlier, core.nameParameters)]),
            BinaryParameter.number(rows.first?.first?.first ?? nil) == 0
        else { return }
        core.hasEarlier.store(false, ordering: .relaxed)
        core.endUnsettled()
    }

    /// Whether nothing of an earlier session can happen any more. Asks the server to end that session.
    private mutating func settle() -> Bool {
        guard let parameters = unsettled?.parameters else { return true }
        // A role that may not end sessions waits for them.
        _ = try? session.run([SQLCall(.terminate, parameters)])
        guard let rows = try? session.run([SQLCall(.gone, parameters)]),
            BinaryParameter.number(rows.first?.first?.first ?? nil) == 0
        else { return false }
        unsettled = nil
        core.endUnsettled()
        return true
    }

    // MARK: Deleting what is over

    /// Nanoseconds until this writer deletes again; only the first one does.
    private var untilNextReap: UInt64 {
        let now = Clock.monotonicNanoseconds()
        return index > 0 ? .max : nextReap > now ? nextReap - now : 0
    }

    /// Deletes rows that expired a minute ago and tombstones past their time, some at a time, when it is time, whatever
    /// waits. While there is more of them, it goes on, and takes a tenth of the writer's time.
    private mutating func reap() {
        guard untilNextReap == 0 else { return }
        let began = Clock.monotonicNanoseconds()
        nextReap = began + UInt64(core.configuration.reapMilliseconds) * 1_000_000
        let now = core.configuration.now()
        let keeps = core.configuration.tombstoneMilliseconds
        let parameters = [now - 60_000, now - keeps, Int64(core.configuration.reapLimit), keeps]
        let count: Int64
        do throws(SQLFailure) {
            let rows = try session.run([SQLCall(.reap, parameters.map(BinaryParameter.bigint))])
            count = BinaryParameter.number(rows.first?.first?.first ?? nil) ?? 0
            core.note(.reaping, failure: nil)
        } catch {
            core.counters.reapsFailed.add(1)
            if Self.isOfAll(error) { core.note(.reaping, failure: error.reason) }
            return
        }
        core.counters.reaped.add(Int(count))
        guard count >= core.configuration.reapLimit else { return }
        let ended = Clock.monotonicNanoseconds()
        nextReap = min(nextReap, ended + 9 * (ended - began))
    }

    // MARK: Writes that the database refuses

    private static let probeNanoseconds: UInt64 = 1_000_000_000

    /// While the database refuses writes, tries whether it still does, with one that changes nothing: nobody may be
    /// sending any.
    private mutating func probe() {
        let now = Clock.monotonicNanoseconds()
        guard core.isRefusing(index), now >= nextProbe else { return }
        nextProbe = now + Self.probeNanoseconds
        do throws(SQLFailure) {
            _ = try session.run([SQLColumns().blind, SQLCall(.mark, [BinaryParameter.bigint(0)])])
            core.noteProbe(index, now)
        } catch {
            if Self.isOfAll(error) { core.note(index, refusal: error.reason) }
        }
    }
}
