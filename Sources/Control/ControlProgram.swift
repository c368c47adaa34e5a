// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Storage
internal import StoragePostgres
internal import StorageRocksDB

/// `martletctl`: operations on nodes, from a command line to an exit code.
package struct ControlProgram {
    private let program: String
    private let arguments: [String]
    private let environment: [String: String]

    /// The program with its name, the arguments behind it, and the environment.
    package init(program: String, arguments: [String], environment: [String: String]) {
        self.program = program
        self.arguments = arguments
        self.environment = environment
    }

    /// Does what the command line says. Returns what is to be printed. Blocks; shows progress on standard error.
    package func run() throws(ControlError) -> String {
        let options = try ControlOptions(program: program, arguments: arguments)
        if let page = try help(options) { return page }
        guard let command = options.operands.first else { return CommandGuide.overview(program: program) }
        if options.operands == ["storage", "init"] { return try initialise(options) }
        if options.operands == ["stream", "status"] {
            return try StreamCommand(try options.client(environment)).status(asJSON: options.has("json"))
        }
        if command == "stream", let word = options.operands.dropFirst().first, options.operands.count == 2,
            ["repair", "replay", "skip"].contains(word)
        {
            return try StreamCommand(try options.client(environment)).order(word, options)
        }
        if options.operands == ["stream", "tail"] {
            var tail = try StreamTail(options, try options.client(environment))
            return try tail.run()
        }
        if command == "region" { return try region(options) }
        if command == "audit" {
            var audit = try AuditCommand(
                Array(options.operands.dropFirst()), options, try options.client(environment),
                try CacheAccess(options, environment))
            return try audit.run()
        }
        if options.operands == ["backup", "list"] { return try BackupCommands(options).list() }
        if options.operands == ["backup", "verify"] { return try BackupCommands(options).verify() }
        if command == "explain", options.operands.count == 3 {
            return try RouteCommands(options).explain(options.operands[1], options.operands[2])
        }
        if command == "members", options.operands.count > 1 {
            let command = try MembersCommand(Array(options.operands.dropFirst()), options, environment: environment)
            return options.has("watch") ? try command.forEver() : try command.once()
        }
        if command == "top" {
            return try TopCommand(Array(options.operands.dropFirst()), options, environment: environment).run()
        }
        if ["ring", "hotkeys", "events"].contains(command) {
            let look = try LookCommands(Array(options.operands.dropFirst()), options)
            switch command {
            case "ring": return try look.ring()
            case "hotkeys": return try look.hotKeys()
            default: return try look.events()
            }
        }
        if command == "convert", options.operands.count == 2 {
            return try RouteCommands(options).convert(options.operands[1])
        }
        guard options.operands.count == 1 else {
            throw ControlError(.usage, "\(options.operands[1]): one command at a time\nTry: \(program) --help")
        }
        switch command {
        case "dump": return try dump(options)
        case "restore": return try restore(options)
        case "backup": return try backup(options)
        case "warm": return try warm(options)
        case "drain": return try drain(options)
        case "explain":
            throw ControlError(.usage, "explain needs an operation and a key: explain get user:1 --routes FILE")
        case "members": throw ControlError(.usage, "members needs a source, such as dnssrv+_memcached._tcp.example.org")
        case "stream": throw ControlError(.usage, "stream needs a word: stream status, tail, repair, replay or skip")
        case "storage": throw ControlError(.usage, "storage needs a word: storage init")
        case "convert": throw ControlError(.usage, "convert needs a file")
        default: throw unknown(command)
        }
    }

    private func region(_ options: ControlOptions) throws(ControlError) -> String {
        switch (options.operands.dropFirst().first, options.operands.count) {
        case ("status"?, 2): return try RegionCommands(options, try options.client(environment)).status()
        case ("promote"?, 3):
            return try RegionCommands(options, try options.client(environment)).promote(options.operands[2])
        case ("promote"?, _):
            throw ControlError(.usage, "region promote needs one name: region promote eu-west --token-file=token")
        default: throw ControlError(.usage, "region needs a word: region status or region promote")
        }
    }

    private func unknown(_ command: String) -> ControlError {
        let known = CommandGuide.all.map(\.name).joined(separator: ", ")
        let lines = ControlText.wrap("\(command): unknown command; there are: \(known)")
        return ControlError(.usage, (lines + ["Try: \(program) --help"]).joined(separator: "\n"))
    }

    /// The help that is asked for, as `--help`, `COMMAND --help` or `help COMMAND`; nil when none is.
    private func help(_ options: ControlOptions) throws(ControlError) -> String? {
        let isWord = options.operands.first == "help"
        guard isWord || options.has("help") else { return nil }
        let words = Array(options.operands.dropFirst(isWord ? 1 : 0))
        guard let first = words.first else { return CommandGuide.overview(program: program) }
        guard let guide = CommandGuide.find(words) else { throw unknown(first) }
        return guide.page(program: program)
    }

    private func dump(_ options: ControlOptions) throws(ControlError) -> String {
        let path = try options.required("output")
        let command = DumpCommand(
            client: try options.client(environment), path: path, prefix: Array((options["prefix"] ?? "").utf8))
        var progress = Progress(isShown: !options.has("json"))
        defer { progress.finish() }
        let (rows, bytes) = try command.run(resumes: options.has("resume"), progress: &progress)
        if options.has("json") { return "{\"rows\":\(rows),\"bytes\":\(bytes)}\n" }
        return "\(rows) rows, \(bytes) bytes in \(path)\n"
    }

    private func restore(_ options: ControlOptions) throws(ControlError) -> String {
        switch (options["input"], options["from"]) {
        case (let path?, nil): return try restoreDump(path, options)
        case (nil, .some): return try BackupCommands(options).restore()
        default:
            throw ControlError(
                .usage, "restore needs --input FILE (a dump) or --from DIR --to DIR (backups), one of them")
        }
    }

    private func restoreDump(_ path: String, _ options: ControlOptions) throws(ControlError) -> String {
        let server = options["server"] ?? "127.0.0.1:11211"
        guard let colon = server.lastIndex(of: ":"), let port = UInt16(server[server.index(after: colon)...]) else {
            throw ControlError(.usage, "--server=\(server): expected HOST:PORT")
        }
        var host = server[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        var progress = Progress(isShown: !options.has("json"))
        defer { progress.finish() }
        let access = try CacheAccess(options, environment)
        let result = try RestoreCommand(path: path, host: String(host), port: port, access: access)
            .run(resumes: options.has("resume"), progress: &progress)
        if options.has("json") {
            return "{\"rows\":\(result.rows),\"expired\":\(result.expired),\"bytes\":\(result.bytes)}\n"
        }
        return "\(result.rows) rows restored, \(result.expired) were expired\n"
    }

    /// Makes the tables of a database that is to be a node's store.
    private func initialise(_ options: ControlOptions) throws(ControlError) -> String {
        guard let url = options["url"] ?? environment["MARTLET_STORAGE_URL"], !url.isEmpty else {
            throw ControlError(.usage, "--url is missing; or set MARTLET_STORAGE_URL, which no list of processes shows")
        }
        let captures: Bool?
        switch options["capture"] {
        case nil: captures = nil
        case "on": captures = true
        case "off": captures = false
        case .some(let word): throw ControlError(.usage, "--capture=\(word): expected on or off")
        }
        do throws(StorageStartError) {
            try PostgresBackend.createTables(PostgresConfiguration(url: url), captures: captures)
        } catch {
            throw ControlError(.unavailable, error.description)
        }
        return options.has("json") ? "{\"initialised\":true}\n" : "The tables are there.\n"
    }

    private func backup(_ options: ControlOptions) throws(ControlError) -> String {
        let target = try options.required("to")
        guard target.hasPrefix("/") else {
            throw ControlError(.usage, "--to=\(target): expected a directory of the node's machine, from / on")
        }
        let client = try options.client(environment)
        let keep = try options.number("keep").map { "&keep=\($0)" } ?? ""
        let path = PercentEncoding.encoded(Array(target.utf8).span)
        let begun = try client.send("POST", "/storage/backup?path=\(path)\(keep)")
        _ = try wait(client, begun, options) { progress, _ in progress.show("the node copies its files") }
        return options.has("json") ? "{\"backup\":true}\n" : "The backup is in \(target)\n"
    }

    private func warm(_ options: ControlOptions) throws(ControlError) -> String {
        var query = "prefix=\(Hexadecimal.digits(Array((options["prefix"] ?? "").utf8)))"
        if let limit = try options.number("limit") { query += "&limit=\(limit)" }
        if let rate = try options.number("rate") { query += "&rate=\(rate)" }
        let client = try options.client(environment)
        let begun = try client.send("POST", "/storage/warm?\(query)")
        let done = try wait(client, begun, options) { progress, rows in progress.show(rows: rows) }
        return options.has("json") ? "{\"rows\":\(done)}\n" : "\(done) rows were read into the cache\n"
    }

    private func drain(_ options: ControlOptions) throws(ControlError) -> String {
        let seconds = try options.seconds("timeout") ?? 30
        return try DrainCommand(
            client: try options.client(environment), waitSeconds: options.has("wait") ? seconds : nil,
            isJSON: options.has("json")
        ).run()
    }

    /// Waits until the operation that was begun is over, and shows how far it is. Returns how much it did. Fails when
    /// the node knows nothing of it any more: it restarted, or ended it and began another before we looked.
    private func wait(
        _ client: HTTPClient, _ begun: HTTPClient.Answer, _ options: ControlOptions,
        show: (inout Progress, _ done: Int) -> Void
    ) throws(ControlError) -> Int {
        var progress = Progress(isShown: !options.has("json"))
        defer { progress.finish() }
        let parking = Parking()
        while true {
            let status = try client.send("GET", "/storage/operation")
            guard status.field("number") == begun.field("number") else {
                throw ControlError(
                    .unavailable,
                    "the node does not know any more how it ended: it restarted, or does something else now")
            }
            let done = status.field("done").flatMap { Int($0) } ?? 0
            if status.field("running") != "true" {
                if let failure = status.field("failure") { throw ControlError(.unavailable, failure) }
                return done
            }
            show(&progress, done)
            parking.wait(parking.ticket, timeoutNanoseconds: 100_000_000)
        }
    }
}
