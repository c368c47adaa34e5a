// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization
internal import Telemetry

/// A session as the server knows it, also after it is gone.
struct SQLSessionIdentity: Equatable {
    var process: Int32
    var startMicroseconds: Int64

    /// Both as parameters of a statement.
    var parameters: [[UInt8]] {
        [BinaryParameter.integer(process), BinaryParameter.bigint(startMicroseconds)]
    }
}

/// A connection that is made again when it is lost. Of one thread.
struct SQLSession: ~Copyable {
    private let core: SQLCore
    /// Its number among the backend's connections.
    private let index: Int
    private let isReader: Bool
    /// For a reader, what writers had reconnected when it connected; for a writer, whether it ever was connected.
    private var reconnections: UInt64 = 0
    private var wasConnected = false
    private var connection: SQLConnection?
    /// What the connection belongs to: see ``KnownLineage``.
    private var generation: UInt64 = 0
    private var retryMilliseconds: Int
    private var nextTry: UInt64 = 0
    /// How many connections the backend had made when this one's last attempt failed.
    private var madeAtFailure: UInt64 = 0
    /// Why there is no connection.
    private(set) var reason = "not connected yet"
    /// When it is looked again whether another table is in the place of that of rows.
    private var nextLook: UInt64 = 0
    /// Whether the database said that a table or a column is missing, and nothing was done since.
    private var missesRows = false

    init(core: SQLCore, index: Int) {
        self.core = core
        self.index = index
        isReader = index >= core.configuration.writers
        retryMilliseconds = core.configuration.firstRetryMilliseconds
    }

    /// Whether there is a connection.
    private(set) var isUp = false

    /// What names the session to the server: its process and when it began; nil when there is no connection.
    private(set) var identity: SQLSessionIdentity?

    /// Makes a connection if there is none and it is time to try; notices one that the server closed. May block as long
    /// as connecting may take.
    mutating func ensure() -> Bool {
        if isUp, isReader, core.reconnections.load(ordering: .acquiring) != reconnections {
            // A writer may have found another primary: what was answered since is read there.
            drop()
        }
        // It asks a server whose place another one took.
        if isUp, !isCurrent { drop() }
        if isUp {
            guard let complaint = connection?.complaint() else { return true }
            wait(complaint)
        }
        // A connection that another thread made since says that the server is back.
        guard Clock.monotonicNanoseconds() >= nextTry || core.counters.connections.value != madeAtFailure else {
            return false
        }
        do throws(SQLFailure) {
            let known = core.reconnections.load(ordering: .acquiring)
            let fresh = try core.connect()
            try fresh.prepare(core.configuration)
            identity = try fresh.identity()
            generation = fresh.generation
            connection = consume fresh
            isUp = true
            missesRows = false
            nextLook = Clock.monotonicNanoseconds() + SQLCore.checkNanoseconds
            reconnections = known
            if !isReader, wasConnected { core.reconnections.add(1, ordering: .acquiringAndReleasing) }
            wasConnected = true
            retryMilliseconds = core.configuration.firstRetryMilliseconds
            core.counters.connections.add(1)
            core.note(index, down: nil)
            return true
        } catch {
            wait(error.reason)
            return false
        }
    }

    /// Nanoseconds until the next attempt to connect.
    var untilNextTry: UInt64 {
        let now = Clock.monotonicNanoseconds()
        return nextTry > now ? nextTry - now : 0
    }

    /// Closes the connection.
    mutating func close() {
        drop()
        core.note(index, down: "stopped")
    }

    /// Whether no server took the place of the one that is asked, as far as is known.
    private var isCurrent: Bool { core.lineage.generation == generation }

    /// Looks, once a second, whether another table took the place of that of rows, by which no session ends.
    mutating func look() {
        let now = Clock.monotonicNanoseconds()
        guard isUp, isCurrent, now >= nextLook else { return }
        nextLook = now + SQLCore.checkNanoseconds
        do throws(SQLFailure) { try compare() } catch { wait(error.reason) }
    }

    /// Has taken note of which table of rows there is now. Fails where the connection is lost.
    private func compare() throws(SQLFailure) {
        do throws(SQLFailure) {
            if let found = try connection?.place() { core.note(found, of: generation) }
        } catch {
            switch error {
            case .refused: break
            case .lostBefore, .lostAfter: throw .lostBefore(reason: error.reason)
            }
        }
    }

    /// Runs statements as one transaction. A connection that is lost by it is closed. What a server did whose place
    /// another one took meanwhile counts for nothing: what it committed may be there or not.
    mutating func run(_ calls: [SQLCall]) throws(SQLFailure) -> [SQLRows] {
        guard isUp else { throw .lostBefore(reason: reason) }
        do throws(SQLFailure) {
            if missesRows, isCurrent { try compare() }
            guard isCurrent else { throw .lostBefore(reason: KnownLineage.replaced) }
            let rows = try connection?.run(calls) ?? []
            // Behind the answer: what is asked later is asked behind the emptying of the cache.
            guard isCurrent else { throw .lostAfter(reason: KnownLineage.replaced) }
            missesRows = false
            return rows
        } catch {
            switch error {
            // A server that became a standby: another one is the primary now.
            case .refused(state: "25006", _): wait(error.reason)
            case .refused(let state, _): if Self.missing.contains(state) { missesRows = true }
            case .lostBefore, .lostAfter: wait(error.reason)
            }
            throw error
        }
    }

    /// No such table, or no such column.
    private static let missing = ["42P01", "42703"]

    /// The database refused `epoch`, the promotion under which this session read or wrote: looks which is the newest.
    /// Whether it is another one, under which the database is used. Another session may have looked before.
    mutating func renewHome(from epoch: Int64) -> Bool {
        guard let rows = try? run([SQLCall(.newest, [])]) else { return false }
        let row = rows.first?.first ?? []
        let newest = row.count == 3 ? BinaryParameter.number(row[0]) ?? 0 : 0
        if row.count == 3, row[2] == [1] { return false }
        core.homeEpoch.store(newest, ordering: .relaxed)
        return newest != epoch
    }

    private mutating func drop() {
        connection = nil
        isUp = false
        identity = nil
    }

    private mutating func wait(_ reason: String) {
        // The first attempt after a loss is made at once: one server of several went, or one session.
        let wasUp = isUp
        drop()
        self.reason = reason
        core.note(index, down: "the database cannot be reached: \(reason)", hasFailed: !wasUp)
        madeAtFailure = core.counters.connections.value
        nextTry = Clock.monotonicNanoseconds() + (wasUp ? 0 : UInt64(retryMilliseconds) * 1_000_000)
        if wasUp { return }
        retryMilliseconds = min(2 * retryMilliseconds, core.configuration.lastRetryMilliseconds)
    }
}
