// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Storage
internal import Synchronization

/// Which rows a page is wanted of.
struct ScanQuestion: Sendable {
    var prefix: [UInt8]
    /// The page begins behind this key.
    var key: [UInt8]
    var bounds: ScanBounds
}

/// Pages of rows for dumps and warming: a thread with one session for all of them, which is set up as the others are,
/// kept from page to page, and closed when nobody has asked for a while.
final class PostgresScans: Sendable {
    private let core: SQLCore
    private let desk = QuestionDesk<ScanQuestion, Result<ScanPage, StorageFailure>>()
    /// Held by the one who asks.
    private let turn = Turn()
    private let parking = Parking()
    private let isStopping = Atomic<Bool>(false)

    /// Where those who ask stand in line.
    private final class Turn: Sendable { let lock = Lock() }

    init(_ core: SQLCore) { self.core = core }

    /// The rows of a page. Blocks: behind pages that others asked for, too.
    func page(_ question: ScanQuestion) throws(StorageFailure) -> ScanPage {
        let answer = turn.lock.withLock {
            isStopping.load(ordering: .acquiring)
                ? .failure(PostgresBackend.stopped)
                : desk.ask(question, timeoutNanoseconds: answerNanoseconds) { parking.announce() }
        }
        guard let answer else { throw StorageFailure(.refused, "the database did not answer in time") }
        return try answer.get()
    }

    /// Two connections, the statements of one page that takes too long, and how long each waits for a dead server.
    private var answerNanoseconds: UInt64 {
        let configuration = core.configuration
        let statement = configuration.statementTimeoutMilliseconds + 2_000
        return UInt64(2 * configuration.connectTimeoutMilliseconds + 4 * statement) * 1_000_000
    }

    /// Ends the thread.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        parking.announce()
    }

    /// Answers until the end. On a thread of its own.
    func run() {
        // A question that a kept session failed is asked once more, over a fresh one.
        var isSecondTry = false
        while !isStopping.load(ordering: .acquiring) {
            let ticket = parking.ticket
            guard desk.waiting != nil else {
                parking.wait(ticket, timeoutNanoseconds: SQLCore.checkNanoseconds)
                continue
            }
            var answered = 0
            do throws(SQLFailure) {
                let known = core.reconnections.load(ordering: .acquiring)
                let connection = try SQLConnection(core.configuration, name: core.name.full)
                let timeout = core.configuration.statementTimeoutMilliseconds
                _ = try connection.run(texts: [PostgresSchema.session(statementTimeoutMilliseconds: timeout)])
                try answer(connection, reconnections: known, &answered)
                isSecondTry = false
            } catch {
                guard answered == 0 || isSecondTry else {
                    isSecondTry = true
                    continue
                }
                isSecondTry = false
                if let (number, _) = desk.waiting {
                    desk.answer(number, .failure(StorageFailure(.refused, error.reason)))
                }
            }
        }
        if let (number, _) = desk.waiting { desk.answer(number, .failure(PostgresBackend.stopped)) }
    }

    /// Answers until nobody has asked for a while, or another server may be the primary. Counts what it answered.
    private func answer(
        _ connection: borrowing SQLConnection, reconnections: UInt64, _ answered: inout Int
    ) throws(SQLFailure) {
        let idle = UInt64(core.configuration.scanIdleMilliseconds) * 1_000_000
        var end = Clock.monotonicNanoseconds() + idle
        while !isStopping.load(ordering: .acquiring) {
            let ticket = parking.ticket
            guard core.reconnections.load(ordering: .acquiring) == reconnections else { return }
            guard let (number, question) = desk.waiting else {
                let now = Clock.monotonicNanoseconds()
                guard now < end else { return }
                parking.wait(ticket, timeoutNanoseconds: min(end - now, SQLCore.checkNanoseconds))
                continue
            }
            if let complaint = connection.complaint() { throw .lostBefore(reason: complaint) }
            do throws(SQLFailure) {
                desk.answer(number, .success(try page(connection, question)))
            } catch .refused(let state, let reason) where state != "25006" {
                desk.answer(number, .failure(StorageFailure(.refused, reason)))
            }
            answered += 1
            end = Clock.monotonicNanoseconds() + idle
        }
    }

    // MARK: Pages

    /// Where one row may be why a page is refused, fewer are asked for, until that row is alone.
    private func page(
        _ connection: borrowing SQLConnection, _ question: ScanQuestion
    ) throws(SQLFailure) -> ScanPage {
        var question = question
        let hasValues = question.bounds.hasValues
        question.bounds.rows = max(0, min(question.bounds.rows, 1_000_000))
        while true {
            do throws(SQLFailure) {
                let rows = try rows(connection, question)
                return ScanPage(rows: rows, next: rows.last?.key)
            } catch {
                guard case .refused(let state, let reason) = error, SQLWriter.mayBeOfOneRow(state) else { throw error }
                let isLate = state == SQLWriter.timeoutState
                if question.bounds.rows > 1 {
                    // Each try takes long where the time is over.
                    question.bounds.rows = max(1, question.bounds.rows / (isLate ? 64 : 2))
                    continue
                }
                // Its key can be read where its value cannot.
                var keyOnly = question
                keyOnly.bounds = ScanBounds(rows: 1, hasValues: false)
                guard hasValues, !isLate, let damaged = try rows(connection, keyOnly).first?.key else { throw error }
                let damage = ScanDamage(position: 0, key: damaged, isOneRow: true, reason: reason)
                return ScanPage(damage: [damage], next: damaged)
            }
        }
    }

    private func rows(
        _ connection: borrowing SQLConnection, _ question: ScanQuestion
    ) throws(SQLFailure) -> [(key: [UInt8], row: StoredRow)] {
        let (prefix, key, bounds) = (question.prefix, question.key, question.bounds)
        let start = key.lexicographicallyPrecedes(prefix) ? "k >= \(literal(prefix))" : "k > \(literal(key))"
        let first = key.isEmpty && prefix.isEmpty ? "true" : start
        let value = bounds.hasValues ? "val" : "''::bytea"
        // The bytes before each row are summed up from lengths; values behind the bound are neither read nor sent.
        let text =
            "SELECT encode(k, 'hex'), ver, exp, flags, encode(val, 'hex') FROM (SELECT k, ver, exp, flags, val, "
            + "sum(octet_length(k) + octet_length(val)) OVER (ORDER BY k) "
            + "- octet_length(k) - octet_length(val) AS before "
            + "FROM (SELECT k, ver, exp, flags, \(value) AS val FROM martlet_kv WHERE NOT del AND "
            + "(exp = 0 OR exp > \(core.configuration.now())) AND \(first) ORDER BY k "
            + "LIMIT \(bounds.rows)) AS rows) AS page "
            + "WHERE before < \(bounds.bytes) ORDER BY k"
        var rows: [(key: [UInt8], row: StoredRow)] = []
        for columns in try connection.run(texts: [text]).first ?? [] {
            guard let row = Self.row(columns) else {
                throw .refused(state: "XX001", reason: "a row has other columns")
            }
            guard row.key.starts(with: prefix) else { break }
            rows.append(row)
        }
        return rows
    }

    private func literal(_ bytes: [UInt8]) -> String {
        "'\\x" + Hexadecimal.digits(bytes) + "'::bytea"
    }

    /// A row from columns of text, keys and values in hexadecimal digits.
    private static func row(_ columns: [[UInt8]?]) -> (key: [UInt8], row: StoredRow)? {
        let texts = columns.compactMap { $0.map { String(decoding: $0, as: UTF8.self) } }
        guard texts.count == 5, let key = Hexadecimal.bytes(texts[0]), let version = UInt64(texts[1]),
            let expiry = Int64(texts[2]), let flags = UInt32(texts[3]), let value = Hexadecimal.bytes(texts[4])
        else { return nil }
        return (key, StoredRow(version: version, expiryMilliseconds: expiry, clientFlags: flags, value: value))
    }
}
