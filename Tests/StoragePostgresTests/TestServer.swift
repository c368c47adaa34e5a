// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// A PostgreSQL server of Debian's, in a directory of its own, on a unix socket there; as the user postgres when the
/// tests run as root, because it refuses to run as root.
final class TestServer {
    static let binaries = "/usr/lib/postgresql/15/bin"
    let directory: String
    private(set) var isRunning = false
    static let number = Int.random(in: 20_000...30_000)

    static var isInstalled: Bool { FileManager.default.isExecutableFile(atPath: binaries + "/initdb") }

    init() throws {
        directory = NSTemporaryDirectory() + "martlet-sql-\(UUID().uuidString.prefix(8))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        if getuid() == 0 { try require("chown", ["postgres", directory]) }
        try asServer("initdb", ["-D", directory + "/data", "-U", "martlet", "--auth=trust", "-E", "UTF8", "--no-sync"])
        try start()
    }

    deinit {
        if isRunning { try? stop("immediate") }
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// Where backends connect to.
    var url: String { "postgresql:///postgres?host=\(directory)&port=\(Self.number)&user=martlet" }

    func start() throws {
        let options =
            "-c listen_addresses='' -c unix_socket_directories=\(directory) -c port=\(Self.number) "
            + "-c max_connections=40 -c shared_buffers=16MB"
        try asServer(
            "pg_ctl", ["-D", directory + "/data", "-l", directory + "/log", "-w", "-t", "30", "-o", options, "start"])
        isRunning = true
    }

    /// Starts again as a standby, which follows nobody.
    func becomeStandby() throws {
        try stop("fast")
        let signal = directory + "/data/standby.signal"
        try Data().write(to: URL(fileURLWithPath: signal))
        if getuid() == 0 { try require("chown", ["postgres", signal]) }
        try start()
    }

    /// `fast` or `immediate`, which is a crash.
    func stop(_ mode: String) throws {
        isRunning = false
        try asServer("pg_ctl", ["-D", directory + "/data", "-m", mode, "-w", "stop"])
    }

    /// Runs SQL as another program would, and gives what it shows.
    @discardableResult
    func sql(_ text: String) throws -> String {
        try asServer(
            "psql", ["-h", directory, "-p", "\(Self.number)", "-U", "martlet", "-d", "postgres", "-Atqc", text])
    }

    /// Returns once there are rows, `from` a table with a condition; records an issue where there are none in ten
    /// seconds.
    func awaitRows(_ from: String) throws {
        for _ in 0..<500 {
            if try sql("SELECT count(*) > 0 \(from)").hasPrefix("t") { return }
            usleep(20_000)
        }
        Issue.record("no rows \(from)")
    }

    /// Sends a signal to the process that takes connections, as one that stops answering or goes on.
    func signal(_ signal: Int32) throws {
        let lines = try String(contentsOfFile: directory + "/data/postmaster.pid", encoding: .utf8).split(
            separator: "\n")
        let process = try #require(lines.first.flatMap { Int32($0) })
        kill(process, signal)
    }

    /// The processes that serve a backend's connections.
    func sessions() throws -> [Int32] {
        try sql("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'martlet %'").split(separator: "\n")
            .compactMap { Int32($0) }
    }

    /// Lets the server take `seconds` for each row whose value is `slow`.
    func slowDown(seconds: Int) throws {
        try sql(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN "
                + "IF NEW.val = convert_to(''slow'', ''UTF8'') THEN PERFORM pg_sleep(\(seconds)); END IF; "
                + "RETURN NEW; END'"
        )
        try sql("CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON martlet_kv FOR EACH ROW EXECUTE FUNCTION slow()")
    }

    @discardableResult
    private func asServer(_ program: String, _ arguments: [String]) throws -> String {
        let command = [Self.binaries + "/" + program] + arguments
        if getuid() != 0 { return try require(command[0], Array(command.dropFirst())) }
        return try require("setpriv", ["--reuid=postgres", "--regid=postgres", "--clear-groups"] + command)
    }

    @discardableResult
    private func require(_ program: String, _ arguments: [String]) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/bash")
        // Foundation takes a process for alive as long as somebody has a descriptor that it inherited, such as the
        // server that pg_ctl starts.
        let shedding = #"for n in /proc/$$/fd/*; do n=${n##*/}; [ "$n" -gt 2 ] && eval "exec $n>&-"; done; exec "$@""#
        process.arguments = ["-c", shedding, "bash", program] + arguments
        process.currentDirectoryURL = URL(fileURLWithPath: "/")
        // A file, not a pipe: the server that pg_ctl starts would keep a pipe open.
        let output = NSTemporaryDirectory() + UUID().uuidString
        _ = FileManager.default.createFile(atPath: output, contents: nil)
        defer { try? FileManager.default.removeItem(atPath: output) }
        let handle = try #require(FileHandle(forWritingAtPath: output))
        process.standardOutput = handle
        process.standardError = handle
        try process.run()
        process.waitUntilExit()
        let text = try String(contentsOfFile: output, encoding: .utf8)
        try #require(process.terminationStatus == 0, "\(program): \(text)")
        return text.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
