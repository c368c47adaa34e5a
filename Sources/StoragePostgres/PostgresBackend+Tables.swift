// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
package import Storage

/// What `martletctl storage init` does, also while nodes serve.
extension PostgresBackend {
    /// How long a statement that makes something waits for a lock: whoever writes waits behind it.
    private static let lockMilliseconds = 500
    /// How often it is tried: others hold locks for as long as a backup takes.
    private static let lockTries = 60
    /// Between two tries, so that those who waited behind one are done before the next.
    private static let pauseNanoseconds: UInt64 = 500_000_000
    /// How long it may take then, in milliseconds: an index of a large table.
    private static let statementMilliseconds = 600_000

    /// Makes the tables where they are missing, and adds what this version has more; a database of a newer format, or
    /// of none that is known, is refused and left as it is. With `captures`, changes of other programs are put into the
    /// stream from now on, or are not any more; nil leaves it as it is. What is there is not touched, and no lock is
    /// waited for by more than half a second at once. Blocks: for a minute where somebody holds a lock that it needs.
    package static func createTables(
        _ configuration: PostgresConfiguration, captures: Bool? = nil
    ) throws(StorageStartError) {
        let complaint: String?
        do throws(SQLFailure) {
            var own = configuration
            own.statementTimeoutMilliseconds = statementMilliseconds
            let connection = try SQLConnection.open(own, name: "martlet init", SQLHosts(own.url))
            // Asked before anything is changed.
            try connection.requireSessions()
            _ = try connection.run(texts: [PostgresSchema.session(own), manners])
            // Alone: one that knows the setting may not have it on its system.
            do throws(SQLFailure) { _ = try connection.run(texts: watchesClient) } catch {
                guard case .refused = error else { throw error }
            }
            // One at a time: of two that make one thing, the second fails at a catalog's key.
            try patiently(connection, [alone])
            let isThere = try isTrue("SELECT \(PostgresSchema.isThere)", connection)
            let format = isThere ? try meta(connection)["format"] : nil
            complaint = format.flatMap { Self.complaint(format: $0) }
            if complaint == nil { try make(connection, isNew: !isThere, captures) }
        } catch { throw StorageStartError("storage: the tables cannot be made: \(error.reason)") }
        if let complaint { throw StorageStartError(complaint) }
    }

    private static let manners = "SELECT set_config('lock_timeout', '\(lockMilliseconds)', false)"
    private static let alone = "SELECT pg_advisory_lock(5570748136)"
    /// A server that can notices that nobody waits for an answer any more.
    private static let watchesClient = [
        "SELECT set_config(name, '1000', false) FROM pg_settings WHERE name = 'client_connection_check_interval'"
    ]

    private static func make(
        _ connection: borrowing SQLConnection, isNew: Bool, _ captures: Bool?
    ) throws(SQLFailure) {
        if isNew {
            // Nobody uses it yet: all of it, or nothing.
            try patiently(connection, (PostgresSchema.parts + PostgresSchema.rows).map(\.text))
        } else {
            try add(PostgresSchema.parts, connection)
            try add(PostgresSchema.rows, connection)
        }
        let isOutdated = captures == nil ? try isTrue(CaptureSchema.isOutdated, connection) : false
        guard captures == true || isOutdated else {
            if captures == false { try add(CaptureSchema.removal, connection) }
            return
        }
        let found = try connection.run(texts: [CaptureSchema.schema]).first?.first?.first ?? nil
        let schema = found.map { String(decoding: $0, as: UTF8.self) } ?? "public"
        try patiently(connection, CaptureSchema.functions(in: schema))
        guard captures == true else { return }
        try add(CaptureSchema.triggers(in: schema), connection)
        for row in try connection.run(texts: [CaptureSchema.leftovers]).first ?? [] {
            guard let name = row.first ?? nil else { continue }
            try patiently(connection, ["DROP FUNCTION IF EXISTS \(String(decoding: name, as: UTF8.self))"])
        }
    }

    /// Makes what is missing, each in a transaction of its own, which holds no other lock.
    private static func add(_ parts: [PostgresSchema.Part], _ connection: borrowing SQLConnection) throws(SQLFailure) {
        var missing: [PostgresSchema.Part] = []
        for part in parts where try !isTrue("SELECT \(part.isThere)", connection) { missing.append(part) }
        for part in missing { try patiently(connection, [part.text]) }
    }

    private static func isTrue(_ question: String, _ connection: borrowing SQLConnection) throws(SQLFailure) -> Bool {
        try connection.run(texts: [question]).first?.first?.first == Array("t".utf8)
    }

    /// Runs statements as one transaction, again where it waited for a lock in vain.
    private static func patiently(_ connection: borrowing SQLConnection, _ texts: [String]) throws(SQLFailure) {
        for _ in 1..<lockTries {
            do throws(SQLFailure) {
                _ = try connection.run(texts: texts)
                return
            } catch {
                // Lock not available, or a deadlock.
                guard case .refused(let state, _) = error, state == "55P03" || state == "40P01" else { throw error }
                Parking().wait(0, timeoutNanoseconds: pauseNanoseconds)
            }
        }
        _ = try connection.run(texts: texts)
    }
}
