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
                let connection = try core.connect()
                _ = try connection.run(texts: [PostgresSchema.session(core.configuration)])
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
        desk.close(.failure(PostgresBackend.stopped))
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
                try core.requireCurrent(connection)
                let page = try page(connection, question)
                try core.requireCurrent(connection)
                desk.answer(number, .success(page))
            } catch .refused(let state, let reason) where state != "25006" {
                desk.answer(number, .failure(StorageFailure(.refused, reason)))
            }
            answered += 1
            end = Clock.monotonicNanoseconds() + idle
        }
    }

    // MARK: Pages

    /// Rows, live or not, that one statement looks at at most: nobody waits for long behind many dead ones.
    private static let lookedLimit = 4_096
    /// How many it looks at now: fewer after one that took too long.
    private let lookedNow = Atomic<Int>(lookedLimit)

    /// Where one row may be why a page is refused, fewer are asked for, until that row is alone; and fewer are looked
    /// at where it takes too long.
    private func page(
        _ connection: borrowing SQLConnection, _ question: ScanQuestion
    ) throws(SQLFailure) -> ScanPage {
        var (question, looked) = (question, lookedNow.load(ordering: .relaxed))
        let hasValues = question.bounds.hasValues
        question.bounds.rows = max(0, min(question.bounds.rows, 1_000_000))
        while true {
            do throws(SQLFailure) {
                let page = page(of: try rows(connection, question, looked))
                lookedNow.store(min(Self.lookedLimit, 2 * looked), ordering: .relaxed)
                return page
            } catch {
                guard case .refused(let state, let reason) = error, SQLWriter.mayBeOfOneRow(state) else { throw error }
                let isLate = state == SQLWriter.timeoutState
                if question.bounds.rows > 1 || isLate && looked > 1 {
                    // Each try takes long where the time is over.
                    question.bounds.rows = max(1, question.bounds.rows / (isLate ? 64 : 2))
                    if isLate { looked = max(1, looked / 64) }
                    continue
                }
                // Its key can be read where its value cannot.
                var keyOnly = question
                keyOnly.bounds = ScanBounds(rows: 1, hasValues: false)
                guard hasValues, !isLate, let damaged = try rows(connection, keyOnly, looked).rows.first?.key else {
                    throw error
                }
                let damage = ScanDamage(position: 0, key: damaged, isOneRow: true, reason: reason)
                return ScanPage(damage: [damage], next: damaged)
            }
        }
    }

    private func page(of found: FoundRows) -> ScanPage {
        var page = ScanPage(next: found.isFull ? found.rows.last?.key : found.end)
        for row in found.rows {
            if row.hasVersion {
                page.rows.append((row.key, row.row))
            } else {
                page.damage.append(
                    ScanDamage(
                        position: page.rows.count, key: row.key, isOneRow: true, reason: SQLRow.oddVersion.reason))
            }
        }
        return page
    }

    /// What one statement found.
    private struct FoundRows {
        var rows: [SQLRow] = []
        /// Whether it is as much as was asked for; there may be more behind the last row.
        var isFull = false
        /// The last key that was looked at, where it is not; nil where there are no more.
        var end: [UInt8]?
    }

    private func rows(
        _ connection: borrowing SQLConnection, _ question: ScanQuestion, _ looked: Int
    ) throws(SQLFailure) -> FoundRows {
        var found = FoundRows()
        let text = Self.statement(question, looked: looked, now: core.configuration.now())
        for columns in try connection.run(texts: [text], isBinary: true).first ?? [] {
            if columns.count == 6, columns[1] == nil {
                (found.end, found.isFull) = (columns[0], columns[4] == [1])
                continue
            }
            guard let row = SQLRow(columns), row.hasValue else {
                throw .refused(state: "XX001", reason: "a row has other columns")
            }
            found.rows.append(row)
        }
        return found
    }

    /// Live rows of the next `looked` rows of any kind, and one row more, without a version: the last key that was
    /// looked at, unless the page is full. Keys that no client can have are passed over. Bytes before each row are
    /// summed up from lengths; values behind the bound are neither read nor sent.
    private static func statement(_ question: ScanQuestion, looked: Int, now: Int64) -> String {
        let (rows, bytes) = (question.bounds.rows, question.bounds.bytes)
        let value = question.bounds.hasValues ? "val" : "''::bytea AS val"
        let keys = "FROM martlet_kv WHERE \(range(question)) AND octet_length(k) BETWEEN 1 AND 250 ORDER BY k"
        return """
            WITH live AS MATERIALIZED (SELECT k, ver, exp, flags, del, val,
                sum(octet_length(k) + octet_length(val)) OVER (ORDER BY k ROWS UNBOUNDED PRECEDING)
                - octet_length(k) - octet_length(val) AS before
              FROM (SELECT * FROM (SELECT k, ver, exp, flags, del, \(value)
                  \(keys) LIMIT \(looked)) AS looked
                WHERE NOT del AND (exp = 0 OR exp > \(now)) ORDER BY k LIMIT \(rows)) AS found),
            page AS (SELECT count(*) >= \(rows) OR coalesce(max(before), 0) >= \(bytes) AS is_full FROM live)
            SELECT k, ver, exp, flags, del, val FROM live WHERE before < \(bytes)
            UNION ALL SELECT CASE WHEN NOT is_full THEN (SELECT k \(keys) OFFSET \(looked - 1) LIMIT 1) END,
              NULL, NULL, NULL, is_full, NULL FROM page
            """
    }

    /// The keys behind a key that begin with a prefix.
    private static func range(_ question: ScanQuestion) -> String {
        let (prefix, key) = (question.prefix, question.key)
        let start = key.lexicographicallyPrecedes(prefix) ? "k >= \(literal(prefix))" : "k > \(literal(key))"
        guard let last = prefix.lastIndex(where: { $0 < 255 }) else { return start }
        let end = prefix[..<last] + [prefix[last] + 1]
        return "\(start) AND k < \(literal(Array(end)))"
    }

    private static func literal(_ bytes: [UInt8]) -> String { "'\\x" + Hexadecimal.digits(bytes) + "'::bytea" }
}
