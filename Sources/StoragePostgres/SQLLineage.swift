// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage
internal import Synchronization

/// Whose rows a session shows: of which server, on which branch of its history, in which database and table. What a
/// server does not tell is nil, and compared with nothing.
struct SQLLineage: Sendable, Equatable {
    /// What `initdb` called the server; the same in all its physical copies.
    var system: Int64?
    /// Grows with each standby that takes over, and with each recovery to a point in time.
    var timeline: Int64?
    var database: Int64
    /// The table of rows; another one behind a `pg_restore --clean`. Not told where a view is in its place.
    var table: Int64?

    /// What one is beside another that is known.
    enum Relation: Equatable {
        case same
        /// It took the place of the known one, and may lack rows that were there.
        case successor
        /// It is not to be used, with the reason.
        case refused(String)
    }

    /// What `found` is, where this one is known. See decision 0060.
    func relation(of found: SQLLineage) -> Relation {
        if let system, let other = found.system, system != other {
            return .refused(
                "it is another server (system identifier \(UInt64(bitPattern: other))) than this node began with "
                    + "(\(UInt64(bitPattern: system))): start the node again if that one took its place")
        }
        if let timeline, let other = found.timeline, timeline != other {
            if timeline < other { return .successor }
            return .refused(
                "it is an old primary, on timeline \(other): another server took over on \(timeline): start the node "
                    + "again if that one is meant")
        }
        if database != found.database { return .successor }
        if let table, let other = found.table, table != other { return .successor }
        return .same
    }

    /// With what this one lacks taken from `known`.
    func filled(from known: SQLLineage) -> SQLLineage {
        SQLLineage(
            system: system ?? known.system, timeline: timeline ?? known.timeline, database: database,
            table: table ?? known.table)
    }

    /// Its numbers in one word.
    var word: String {
        [system, timeline, database, table].map { $0.map { String(UInt64(bitPattern: $0), radix: 16) } ?? "" }
            .joined(separator: ".")
    }

    // MARK: Asking

    private static let place =
        "SELECT (SELECT oid FROM pg_database WHERE datname = current_database())::bigint, "
        + "(SELECT oid FROM pg_class WHERE oid = to_regclass('martlet_kv') AND relkind IN ('r', 'p'))::bigint"
    private static let system = "SELECT system_identifier FROM pg_control_system()"
    private static let timeline = "SELECT \(StreamSchema.timeline)"

    /// Asks a server that takes writes, until `end`. One that refuses to tell one of the numbers, or has no function
    /// for it, is asked for the others alone.
    static func look(_ connection: borrowing SQLConnection, until end: UInt64) throws(SQLFailure) -> SQLLineage {
        do throws(SQLFailure) {
            let answers = try connection.run(texts: [place, system, timeline], until: end)
            return try lineage(answers[0], number(answers[1]), number(answers[2]))
        } catch .refused(let state, _) where isSilence(state) {
            let answers = try connection.run(texts: [place], until: end)
            return try lineage(answers[0], try ask(connection, system, end), try ask(connection, timeline, end))
        }
    }

    /// Asks for the database and the table alone. A server stays who it is for as long as a session lasts.
    static func place(_ connection: borrowing SQLConnection) throws(SQLFailure) -> SQLLineage {
        try lineage(try connection.run(texts: [place]).first ?? [], nil, nil)
    }

    private static func lineage(_ rows: SQLRows, _ system: Int64?, _ timeline: Int64?) throws(SQLFailure) -> SQLLineage
    {
        guard let database = number(rows) else {
            throw .refused(state: "XX001", reason: "the server does not say which database this is")
        }
        let table = rows.first?.last.flatMap { $0 }.flatMap { Int64(String(decoding: $0, as: UTF8.self)) }
        return SQLLineage(system: system, timeline: timeline, database: database, table: table)
    }

    private static func ask(
        _ connection: borrowing SQLConnection, _ text: String, _ end: UInt64
    ) throws(SQLFailure) -> Int64? {
        do throws(SQLFailure) { return number(try connection.run(texts: [text], until: end).first ?? []) } catch {
            guard case .refused(let state, _) = error, isSilence(state) else { throw error }
            return nil
        }
    }

    /// No right, no such function, not supported, or an error inside a server that is PostgreSQL's in part.
    private static func isSilence(_ state: String) -> Bool {
        ["42", "0A", "XX"].contains { state.hasPrefix($0) }
    }

    private static func number(_ rows: SQLRows) -> Int64? {
        (rows.first?.first ?? nil).flatMap { Int64(String(decoding: $0, as: UTF8.self)) }
    }
}

/// The newest lineage that this process has seen. Sessions of an earlier one are of no use from the moment on that a
/// newer one is known, and what was read over them neither.
final class KnownLineage: Sendable {
    private let newest = Guarded<SQLLineage?>(nil)
    /// How often another one took the place of the known one. Grows before anything is said of it.
    private let count = Atomic<UInt64>(0)

    /// What sessions that are made now belong to.
    var generation: UInt64 { count.load(ordering: .sequentiallyConsistent) }

    /// The newest one; nil before the first session.
    var current: SQLLineage? { newest.withLock { $0 } }

    /// Takes note of a session's; gives the generation that the session belongs to, or the reason why it is refused.
    /// `replaced` is called where it took the place of a known one, and no session of it is let in before that returns:
    /// nobody reads a new row beside an old copy.
    func admit(_ found: SQLLineage, replaced: () -> Void) throws(SQLFailure) -> UInt64 {
        try newest.withLock { newest throws(SQLFailure) in
            switch newest?.relation(of: found) ?? .same {
            case .same: break
            case .successor:
                count.add(1, ordering: .sequentiallyConsistent)
                replaced()
            case .refused(let reason): throw .lostBefore(reason: reason)
            }
            newest = newest.map { found.filled(from: $0) } ?? found
            return generation
        }
    }

    /// Takes note of what a session of `generation` has found since it was admitted. One whose place another took
    /// meanwhile has nothing to tell.
    func note(_ found: SQLLineage, of generation: UInt64, replaced: () -> Void) {
        newest.withLock { newest in
            guard generation == self.generation, let known = newest else { return }
            guard known.relation(of: found) == .successor else { return }
            count.add(1, ordering: .sequentiallyConsistent)
            replaced()
            newest = found.filled(from: known)
        }
    }

    /// What became of a session whose generation is over.
    static let replaced = "another server took the place of the one that was asked"
}
