// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage
internal import Synchronization
internal import Telemetry

/// What a reader's thread does: asks for what waits with one statement, and answers.
struct SQLReader: ~Copyable {
    /// How often a read is asked for, when connections are lost meanwhile.
    private static let tries = 2

    private let core: SQLCore
    private var session: SQLSession
    private let isFirst: Bool
    private var waiting: [Waiting<StorageRead>] = []
    private var taken: [StorageRead] = []
    /// How large rows are lately: of large ones it takes fewer at once.
    private var sizes = RowSizes()

    init(core: SQLCore, index: Int) {
        self.core = core
        isFirst = index == 0
        session = SQLSession(core: core, index: core.configuration.writers + index)
    }

    /// Reads until the queue is closed and empty.
    mutating func run() {
        while true {
            let ticket = core.reads.parking.ticket
            let isClosed = core.reads.isClosed
            // One looks for all: where it finds another table, all sessions are made again.
            if isFirst { session.look() }
            let isUp = session.ensure()
            core.sink?.waitForRoom()
            waiting.removeAll(keepingCapacity: true)
            if isUp || !core.hasReader {
                let (bytes, most) = (core.configuration.readBatchBytes, core.configuration.readBatchLimit)
                core.reads.take(into: &waiting, limit: sizes.count(fitting: bytes, in: min(4, most)...most))
            }
            taken.removeAll(keepingCapacity: true)
            taken.append(contentsOf: waiting.lazy.map(\.element))
            if !taken.isEmpty {
                answer()
            } else if isClosed, isUp || core.reads.count == 0 {
                session.close()
                return
            } else {
                let most = isUp ? SQLCore.checkNanoseconds : min(SQLCore.checkNanoseconds, session.untilNextTry)
                core.reads.parking.wait(ticket, timeoutNanoseconds: max(most, 1_000_000))
            }
        }
    }

    private mutating func answer() {
        core.counters.reads.add(taken.count)
        var timeouts = 0
        answer(taken, &timeouts)
    }

    /// Asks for rows with one statement. Where one of them may be why it is refused, each half is asked for alone,
    /// until two took too long.
    private mutating func answer(_ reads: [StorageRead], _ timeouts: inout Int) {
        core.counters.readBatches.add(1)
        let keys = BinaryParameter.array(bytea: reads.map(\.key))
        var reason = timeouts < 2 ? "the database cannot be reached: \(session.reason)" : "the database takes too long"
        for _ in 0..<Self.tries where timeouts < 2 && session.ensure() {
            let home = core.homeEpoch.load(ordering: .relaxed)
            do throws(SQLFailure) {
                let began = Clock.monotonicNanoseconds()
                // What another region wrote since it is home is not here: behind the rows, so that it holds for them.
                let fence = core.configuration.keepsOutbox ? [core.homeCall(home)] : []
                let rows = try session.run([question(keys)] + fence)
                let (outcomes, later) = try outcomes(of: reads, in: rows.first ?? [])
                let ended = Clock.monotonicNanoseconds()
                core.sink?.readsCompleted(
                    outcomes,
                    timing: StorageTiming(
                        taken: began, began: began, ended: ended, count: outcomes.count, isCommit: false))
                if !later.isEmpty {
                    core.sink?.waitForRoom()
                    answer(later, &timeouts)
                }
                return
            } catch {
                reason = error.reason
                guard case .refused(let state, _) = error, state != "40001" else { continue }
                if state == HomeSchema.fencedState {
                    if session.renewHome(from: home) { continue }
                    reason = SQLWriter.fencedReason
                    break
                }
                if state == SQLWriter.timeoutState { timeouts += 1 }
                guard reads.count > 1, timeouts < 2, SQLWriter.mayBeOfOneRow(state) else { break }
                answer(Array(reads[..<(reads.count / 2)]), &timeouts)
                answer(Array(reads[(reads.count / 2)...]), &timeouts)
                return
            }
        }
        core.counters.readsFailed.add(reads.count)
        let failure = StorageFailure(.refused, reason)
        core.sink?.readsCompleted(reads.map { ($0.token, .failed(failure)) })
    }

    /// Asks for rows; of large ones not for more than a few megabytes at once.
    private func question(_ keys: [UInt8]) -> SQLCall {
        guard core.configuration.hasLargeRows else { return SQLCall(.rows, [keys]) }
        return SQLCall(.look, [keys, BinaryParameter.bigint(Int64(core.configuration.readBatchBytes))])
    }

    /// What became of reads, and those whose rows are there and did not come: they are to be asked for again.
    private mutating func outcomes(
        of reads: [StorageRead], in rows: SQLRows
    ) throws(SQLFailure) -> (outcomes: [(token: UInt64, outcome: ReadOutcome)], later: [StorageRead]) {
        let now = core.configuration.now()
        var found: [[UInt8]: ReadOutcome] = [:]
        var later: Set<[UInt8]> = []
        for columns in rows {
            guard let row = SQLRow(columns) else { throw Self.strange }
            if !row.hasValue {
                later.insert(row.key)
            } else if !row.hasVersion {
                found[row.key] = .failed(SQLRow.oddVersion)
            } else if let live = row.live(at: now) {
                sizes.note(live.value.count)
                found[row.key] = .found(live)
            }
        }
        // One comes in any case.
        guard later.isEmpty || core.configuration.hasLargeRows && !found.isEmpty else { throw Self.strange }
        return (
            reads.filter { !later.contains($0.key) }.map { ($0.token, found[$0.key] ?? .absent) },
            reads.filter { later.contains($0.key) }
        )
    }

    private static let strange = SQLFailure.refused(state: "XX001", reason: "a row has other columns")
}
