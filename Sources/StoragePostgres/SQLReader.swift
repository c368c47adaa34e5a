// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage
internal import Telemetry

/// What a reader's thread does: asks for what waits with one statement, and answers.
struct SQLReader: ~Copyable {
    /// How often a read is asked for, when connections are lost meanwhile.
    private static let tries = 2

    private let core: SQLCore
    private var session: SQLSession
    private var waiting: [Waiting<StorageRead>] = []
    private var taken: [StorageRead] = []
    /// How large rows are lately: of large ones it takes fewer at once.
    private var sizes = RowSizes()

    init(core: SQLCore, index: Int) {
        self.core = core
        session = SQLSession(core: core, index: core.configuration.writers + index)
    }

    /// Reads until the queue is closed and empty.
    mutating func run() {
        while true {
            let ticket = core.reads.parking.ticket
            let isClosed = core.reads.isClosed
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
            do throws(SQLFailure) {
                let began = Clock.monotonicNanoseconds()
                let rows = try session.run([SQLCall(.rows, [keys])])
                let outcomes = try outcomes(of: reads, in: rows.first ?? [])
                let ended = Clock.monotonicNanoseconds()
                core.sink?.readsCompleted(
                    outcomes,
                    timing: StorageTiming(
                        taken: began, began: began, ended: ended, count: reads.count, isCommit: false))
                return
            } catch {
                reason = error.reason
                guard case .refused(let state, _) = error, state != "40001" else { continue }
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

    private mutating func outcomes(
        of reads: [StorageRead], in rows: SQLRows
    ) throws(SQLFailure) -> [(token: UInt64, outcome: ReadOutcome)] {
        let now = core.configuration.now()
        var found: [[UInt8]: ReadOutcome] = [:]
        for columns in rows {
            guard let row = SQLRow(columns) else {
                throw .refused(state: "XX001", reason: "a row has other columns")
            }
            if !row.hasVersion {
                found[row.key] = .failed(SQLRow.oddVersion)
            } else if let live = row.live(at: now) {
                sizes.note(live.value.count)
                found[row.key] = .found(live)
            }
        }
        return reads.map { ($0.token, found[$0.key] ?? .absent) }
    }
}
