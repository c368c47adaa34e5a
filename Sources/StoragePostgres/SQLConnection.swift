// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPostgres
internal import Platform

/// What went wrong with a statement or a connection.
enum SQLFailure: Error, Equatable {
    /// The server refused a statement, and the transaction with it: nothing was done. With SQLSTATE and its words.
    case refused(state: String, reason: String)
    /// The connection is gone, and what would have ended the transaction was never handed to it: the server cannot have
    /// committed.
    case lostBefore(reason: String)
    /// The connection is gone, and nobody knows whether the server committed.
    case lostAfter(reason: String)

    /// Whether an error of this SQLSTATE says that the transaction did not happen. Statements are rolled back whatever
    /// stops them; a commit may fail behind the point of no return, in databases of several nodes above all, unless it
    /// failed for a conflict or a constraint. 40003 and class 08 say themselves that they do not know.
    /// Source: PostgreSQL 15 documentation, appendix A; CockroachDB documentation, "ambiguous results".
    static func isDefinite(_ state: String, isAtCommit: Bool) -> Bool {
        if state == "40003" || state.hasPrefix("08") { return false }
        return !isAtCommit || ["40", "23", "25", "P0"].contains { state.hasPrefix($0) }
    }

    private static let diskFullState = "53100"

    var reason: String {
        switch self {
        // Clients are told what stands before a colon, and the server's own words begin with the name of a file.
        case .refused(Self.diskFullState, let reason):
            "the database's disk is full: \(reason) (SQLSTATE \(Self.diskFullState))"
        case .refused(let state, let reason): "\(reason) (SQLSTATE \(state))"
        case .lostBefore(let reason), .lostAfter(let reason): reason
        }
    }
}

/// One statement with its parameters in binary form.
struct SQLCall {
    var statement: PostgresSchema.Statement
    var parameters: [[UInt8]]

    /// Bytes of all parameters.
    var bytes: Int { parameters.reduce(0) { $0 + $1.count } }

    init(_ statement: PostgresSchema.Statement, _ parameters: [[UInt8]]) {
        self.statement = statement
        self.parameters = parameters
    }
}

/// Rows of columns in binary form; nil is null.
typealias SQLRows = [[[UInt8]?]]

/// A connection to a server, in pipeline mode, used by one thread. It waits in epoll, reads while it writes, and gives
/// up at its deadlines.
///
/// Source: PostgreSQL 15 documentation, libpq: asynchronous processing, pipeline mode.
@safe
struct SQLConnection: ~Copyable {
    // SAFETY (type): the connection is this value's alone until it goes out of scope; results are cleared where they
    // are got; what the library shows of them is copied before. Parameters live during the calls, which copy them.
    private let connection: OpaquePointer
    private let poller: Poller
    private let timeoutMilliseconds: Int
    /// What the session belongs to: see ``KnownLineage``.
    private(set) var generation: UInt64 = 0

    /// Connects to one of the servers that the URL names, by a name that the server shows. Blocks until there is a
    /// connection, or the time `end` is there.
    init(
        _ configuration: PostgresConfiguration, name: String, to target: SQLHosts.Target, until end: UInt64
    ) throws(SQLFailure) {
        // What stands before the URL is for it to change. While a statement waits in the server, a batch may fill its
        // window: that must not end the session before the server has given the statement up.
        let patience = max(
            configuration.connectTimeoutMilliseconds / 2, configuration.statementTimeoutMilliseconds + 500)
        let parameters =
            [
                ("keepalives_idle", "10"), ("keepalives_interval", "3"), ("keepalives_count", "3"),
                ("tcp_user_timeout", "\(patience)"),
                ("dbname", configuration.url), ("application_name", name), ("client_encoding", "UTF8"),
                ("target_session_attrs", configuration.allowsStandby ? "any" : "read-write"),
            ] + target.parameters
        let poller: Poller
        do throws(SystemError) { poller = try Poller(capacity: 4) } catch {
            throw .lostBefore(reason: error.description)
        }
        let opened = unsafe SQLConnection.withTerminated(parameters.map(\.0)) { names in
            unsafe SQLConnection.withTerminated(parameters.map(\.1)) { values in
                unsafe PQconnectStartParams(names, values, 1)
            }
        }
        guard let opened = unsafe opened else { throw .lostBefore(reason: "no memory for a connection") }
        if let reason = unsafe SQLConnection.establish(opened, poller, end) {
            unsafe PQfinish(opened)
            throw .lostBefore(reason: reason)
        }
        unsafe connection = opened
        self.poller = poller
        timeoutMilliseconds = configuration.statementTimeoutMilliseconds + 2_000
    }

    /// Asks the server whose rows it has, until `end`, and has that taken note of. Throws where it is not to be used.
    mutating func admit(to known: LineageCheck, until end: UInt64) throws(SQLFailure) {
        generation = try known.lineage.admit(SQLLineage.look(self, until: end), replaced: known.replaced)
    }

    /// Whether the server is a standby. One of 14 and later has said so already.
    func isInRecovery(until end: UInt64) throws(SQLFailure) -> Bool {
        if let said = unsafe PQparameterStatus(connection, "in_hot_standby") {
            return unsafe String(cString: said) == "on"
        }
        let answer = try run(texts: ["SELECT pg_is_in_recovery()"], until: end).first?.first?.first ?? nil
        return answer == Array("t".utf8)
    }

    /// In which database the session is, and which table the rows are in: what may change while it lasts.
    func place() throws(SQLFailure) -> SQLLineage { try SQLLineage.place(self) }

    deinit { unsafe PQfinish(connection) }

    /// What is said of a server that nothing is heard of.
    static let silence = "the server did not answer in time"

    /// Drives the handshake; nil when it is done, else what went wrong.
    private static func establish(_ connection: OpaquePointer, _ poller: borrowing Poller, _ end: UInt64) -> String? {
        var polling = unsafe PQstatus(connection) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING
        while polling != PGRES_POLLING_OK {
            guard polling == PGRES_POLLING_READING || polling == PGRES_POLLING_WRITING else {
                return unsafe words(connection)
            }
            // The socket changes from one address to the next.
            let socket = unsafe PQsocket(connection)
            let interest: Readiness = polling == PGRES_POLLING_READING ? .input : .output
            guard socket >= 0, (try? poller.add(socket, interest, user: 0)) != nil else {
                return unsafe words(connection)
            }
            let isReady = wait(poller, until: end)
            poller.remove(socket)
            guard isReady else { return silence }
            unsafe polling = PQconnectPoll(connection)
        }
        guard unsafe PQsetnonblocking(connection, 1) == 0, unsafe PQenterPipelineMode(connection) == 1 else {
            return unsafe words(connection)
        }
        return (try? poller.add(unsafe PQsocket(connection), .input, user: 0)) == nil ? "epoll refused a socket" : nil
    }

    /// Waits for the poller; false when the time is over.
    private static func wait(_ poller: borrowing Poller, until end: UInt64) -> Bool {
        while true {
            let now = Clock.monotonicNanoseconds()
            guard now < end else { return false }
            if poller.wait(timeoutMilliseconds: Int((end - now) / 1_000_000) + 1) > 0 { return true }
        }
    }

    /// The library's words, in one line: one part for each host that was tried, without the advice below it.
    private static func words(_ connection: OpaquePointer) -> String {
        // SAFETY: a terminated string that we copy at once.
        let text = unsafe String(cString: PQerrorMessage(connection))
        return text.split(separator: "\n").filter { $0.first != "\t" }.joined(separator: " ")
    }

    /// Takes in what the server said while nothing was asked; nil when the connection is well, else why it is not.
    func complaint() -> String? {
        while poller.wait(timeoutMilliseconds: 0) > 0 {
            guard unsafe PQconsumeInput(connection) == 1, unsafe PQstatus(connection) == CONNECTION_OK else {
                return unsafe Self.words(connection)
            }
        }
        return nil
    }

    // MARK: Exchanges

    /// Sets the session up, and prepares the statements.
    func prepare(_ configuration: PostgresConfiguration) throws(SQLFailure) {
        _ = try run(texts: [PostgresSchema.session(configuration)])
        let statements = PostgresSchema.Statement.allCases.filter { $0.isUsed(configuration) }
        for statement in statements {
            let types = statement.parameterTypes
            guard
                unsafe PQsendPrepare(
                    connection, statement.rawValue, statement.text(keepsOutbox: configuration.keepsOutbox),
                    Int32(types.count),
                    types)
                    == 1
            else { throw .lostBefore(reason: unsafe Self.words(connection)) }
        }
        _ = try finish(statements.count)
    }

    /// Fails where the server does not list its sessions. Before anything is prepared, which such a server may refuse
    /// with less clear words.
    func requireSessions() throws(SQLFailure) {
        let count = try run(texts: [PostgresSchema.sessions]).first?.first?.first ?? nil
        guard let count, count != Array("0".utf8) else { throw Self.unlisted }
    }

    private static let unlisted = SQLFailure.lostBefore(
        reason: "the server does not list its sessions in pg_stat_activity, as PostgreSQL does and CockroachDB does "
            + "not: nobody could say when an unknown outcome is settled")

    /// What names the session to the server. A server that does not list it could not say either when it is gone. The
    /// process is asked for: behind a pooler, the one that the library knows is not the server's.
    func identity() throws(SQLFailure) -> SQLSessionIdentity {
        guard let row = try run([SQLCall(.identity, [])]).first?.first, row.count == 2,
            let process = BinaryParameter.number(row[0]).flatMap({ Int32(exactly: $0) })
        else { throw Self.unlisted }
        guard let start = BinaryParameter.number(row[1]) else {
            throw .lostBefore(
                reason: "the role of the statements may not see when its own session began, so nobody could say when "
                    + "an unknown outcome is settled: GRANT pg_read_all_stats to the role that SET role names, or log "
                    + "in as it")
        }
        return SQLSessionIdentity(process: process, startMicroseconds: start)
    }

    /// What a server takes in one message: a GiB with all that stands around the parameters. Source: PostgreSQL 15,
    /// PQ_LARGE_MESSAGE_LIMIT in libpq.h.
    static let parameterBytesMax = 1 << 30 - 64 << 10

    /// Runs prepared statements as one transaction; gives the rows of each. What is too large for a message is refused
    /// before anything is sent: the server would end the session at it.
    func run(_ calls: [SQLCall]) throws(SQLFailure) -> [SQLRows] {
        for call in calls where call.bytes > Self.parameterBytesMax {
            throw .refused(state: "54000", reason: "the database takes at most 1 GiB at once")
        }
        for call in calls {
            let lengths = call.parameters.map { Int32($0.count) }
            let formats = [Int32](repeating: 1, count: call.parameters.count)
            var joined: [UInt8] = []
            // A byte more, so that the address of an empty parameter is one: a null would be SQL's null.
            joined.reserveCapacity(call.bytes + 1)
            var offsets: [Int] = []
            for parameter in call.parameters {
                offsets.append(joined.count)
                joined += parameter
            }
            joined.append(0)
            let isSent = unsafe joined.withUnsafeBytes { bytes in
                let starts = unsafe offsets.map { offset in
                    unsafe bytes.baseAddress.map { unsafe ($0 + offset).assumingMemoryBound(to: CChar.self) }
                }
                return unsafe PQsendQueryPrepared(
                    connection, call.statement.rawValue, Int32(starts.count), starts, lengths, formats, 1)
            }
            guard isSent == 1 else { throw .lostBefore(reason: unsafe Self.words(connection)) }
        }
        return try finish(calls.count)
    }

    /// Runs statements without parameters as one transaction; columns come as text, or in binary form. Waits until
    /// `end`, or for as long as a statement may take.
    func run(texts: [String], isBinary: Bool = false, until end: UInt64? = nil) throws(SQLFailure) -> [SQLRows] {
        for text in texts {
            guard unsafe PQsendQueryParams(connection, text, 0, nil, nil, nil, nil, isBinary ? 1 : 0) == 1 else {
                throw .lostBefore(reason: unsafe Self.words(connection))
            }
        }
        return try finish(texts.count, until: end)
    }

    /// Ends the transaction, and collects what the server says of each of `count` statements.
    private func finish(_ count: Int, until end: UInt64? = nil) throws(SQLFailure) -> [SQLRows] {
        let end = end ?? Clock.monotonicNanoseconds() + UInt64(timeoutMilliseconds) * 1_000_000
        // From here on the library has what ends the transaction, and may send it in any call, even in the one that
        // closes the connection: whatever goes wrong, nobody knows whether the server got it.
        guard unsafe PQpipelineSync(connection) == 1 else { throw .lostAfter(reason: unsafe Self.words(connection)) }
        try flush(end)
        var all: [SQLRows] = []
        var failure: SQLFailure?
        while true {
            try awaitResult(end)
            // A null ends the results of one statement.
            guard let result = unsafe PQgetResult(connection) else {
                if unsafe PQstatus(connection) != CONNECTION_OK {
                    throw .lostAfter(reason: unsafe Self.words(connection))
                }
                continue
            }
            defer { unsafe PQclear(result) }
            switch unsafe PQresultStatus(result) {
            case PGRES_PIPELINE_SYNC:
                if let failure { throw failure }
                guard all.count == count else { throw .lostAfter(reason: "the server answered too little") }
                return all
            case PGRES_TUPLES_OK, PGRES_COMMAND_OK: all.append(unsafe Self.rows(result))
            case PGRES_PIPELINE_ABORTED: break
            default:
                if unsafe PQstatus(connection) != CONNECTION_OK {
                    throw .lostAfter(reason: unsafe Self.words(connection))
                }
                if failure == nil { failure = unsafe Self.refusal(result, isAtCommit: all.count == count) }
            }
        }
    }

    /// Sends everything. Reads meanwhile, because a server that cannot write does not read.
    private func flush(_ end: UInt64) throws(SQLFailure) {
        while true {
            let left = unsafe PQflush(connection)
            if left == 0 { return }
            guard left > 0 else { throw .lostAfter(reason: unsafe Self.words(connection)) }
            let socket = unsafe PQsocket(connection)
            poller.change(socket, [.input, .output], user: 0)
            let isReady = Self.wait(poller, until: end)
            poller.change(socket, .input, user: 0)
            guard isReady, unsafe PQconsumeInput(connection) == 1 else {
                throw .lostAfter(reason: isReady ? unsafe Self.words(connection) : "the server took nothing in time")
            }
        }
    }

    /// Waits until a result can be got without blocking.
    private func awaitResult(_ end: UInt64) throws(SQLFailure) {
        while unsafe PQisBusy(connection) == 1 {
            guard Self.wait(poller, until: end) else { throw .lostAfter(reason: "the server did not answer in time") }
            guard unsafe PQconsumeInput(connection) == 1 else {
                throw .lostAfter(reason: unsafe Self.words(connection))
            }
        }
    }

    private static func rows(_ result: OpaquePointer) -> SQLRows {
        let (rows, columns) = unsafe (PQntuples(result), PQnfields(result))
        return (0..<rows).map { row in
            (0..<columns).map { column in
                if unsafe PQgetisnull(result, row, column) == 1 { return nil }
                let length = Int(unsafe PQgetlength(result, row, column))
                return unsafe Array(UnsafeRawBufferPointer(start: PQgetvalue(result, row, column), count: length))
            }
        }
    }

    /// What the server says no with. At the commit itself, only some errors say for certain that nothing was done.
    private static func refusal(_ result: OpaquePointer, isAtCommit: Bool) -> SQLFailure {
        func field(_ code: Int32) -> String {
            guard let text = unsafe PQresultErrorField(result, code) else { return "" }
            return unsafe String(cString: text)
        }
        // PG_DIAG_SQLSTATE and PG_DIAG_MESSAGE_PRIMARY.
        let (state, reason) = (field(Int32(UInt8(ascii: "C"))), field(Int32(UInt8(ascii: "M"))))
        let refused = SQLFailure.refused(state: state, reason: reason)
        return SQLFailure.isDefinite(state, isAtCommit: isAtCommit) ? refused : .lostAfter(reason: refused.reason)
    }

    /// Runs `body` with the strings as a C array of terminated strings that ends with a null.
    private static func withTerminated<R>(_ strings: [String], _ body: ([UnsafePointer<CChar>?]) -> R) -> R {
        var bytes: [CChar] = []
        var offsets: [Int] = []
        for string in strings {
            offsets.append(bytes.count)
            bytes.append(contentsOf: string.utf8.map { CChar(bitPattern: $0) })
            bytes.append(0)
        }
        return unsafe bytes.withUnsafeBufferPointer { buffer in
            unsafe body(offsets.map { offset in unsafe buffer.baseAddress.map { unsafe $0 + offset } } + [nil])
        }
    }
}
