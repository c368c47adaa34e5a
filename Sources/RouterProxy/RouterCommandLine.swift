// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Hosting
internal import RouteConfiguration
internal import Routing
internal import Settings
internal import Tracing

/// The command line of a router: flags, servers, the configuration file and the environment, made into one
/// configuration.
///
/// Pure: what it reads it is given. Flags win over the environment, that over the file.
package struct RouterCommandLine {
    private let program: String
    private let arguments: [String]
    private let environment: [String: String]
    private let readFile: (String) -> Result<File, FileProblem>

    /// A file as it was read.
    package struct File {
        let bytes: [UInt8]
        let stamp: [Int]?

        /// What a file holds, and its stamp from before it was read: a change in between is noticed later.
        package init(_ bytes: [UInt8], stamp: [Int]?) {
            self.bytes = bytes
            self.stamp = stamp
        }
    }

    /// A file that a configuration came from, as it was then.
    package struct WatchedFile: Equatable {
        let path: String
        let stamp: [Int]?
    }

    /// Why a file could not be read.
    package struct FileProblem: Error {
        /// In words, without the path.
        package let reason: String

        /// A problem in the words of whoever met it.
        package init(_ reason: String) { self.reason = reason }
    }

    /// A command line and its surroundings; nothing is read yet.
    package init(
        program: String, arguments: [String], environment: [String: String],
        readFile: @escaping (String) -> Result<File, FileProblem>
    ) {
        self.program = program
        self.arguments = arguments
        self.environment = environment
        self.readFile = readFile
    }

    /// What the arguments said.
    private struct Findings {
        var flags: [SettingsSchema.Flag] = []
        var path: String?
        var checksOnly = false
    }

    /// What was read.
    package struct Loaded {
        /// What it says.
        package var configuration: RouterConfiguration
        /// The files that it came from.
        package var files: [WatchedFile]
        /// What stood in them.
        package var contents: LastGoodConfiguration
        /// Why it is the last one that could be used, rather than the one that is there; nil where it is that.
        package var failure: String?
    }

    /// The configuration to start with: the last good one, where that was kept and the one that is there is wrong.
    package func startingConfiguration() throws(StartRefusal) -> Loaded {
        do throws(StartRefusal) {
            return try configuration()
        } catch {
            let findings = try scan()
            guard error.code == StartRefusal.Code.configuration, !findings.checksOnly,
                let path = lastGoodPath(findings), case .success(let file) = readFile(path),
                let last = LastGoodConfiguration(encoded: file.bytes)
            else { throw error }
            let kept = RouterCommandLine(program: program, arguments: arguments, environment: environment) { path in
                last.bytes(of: path).map { .success(File($0, stamp: nil)) } ?? .failure(FileProblem("not kept"))
            }
            guard var loaded = try? kept.configuration() else { throw error }
            // A change of the files themselves is looked for from now on.
            loaded.files = loaded.files.map { WatchedFile(path: $0.path, stamp: stamp(of: $0.path)) }
            loaded.failure = error.errors
            return loaded
        }
    }

    private func stamp(of path: String) -> [Int]? {
        guard case .success(let file) = readFile(path) else { return nil }
        return file.stamp
    }

    /// Where the last good configuration is kept, as far as anybody says so.
    private func lastGoodPath(_ findings: Findings) -> String? {
        if let flag = findings.flags.last(where: { $0.0 == "last-good-file" }) { return flag.1 }
        if let text = environment["MARTLET_LAST_GOOD_FILE"] { return text }
        guard let path = findings.path ?? environment["MARTLET_CONFIG"], case .success(let file) = readFile(path) else {
            return nil
        }
        return LastGoodConfiguration.path(in: file.bytes)
    }

    /// The configuration to run with, and the files that it came from. Everything that ends the start instead, `-h` and
    /// `--check-config` among it, is thrown.
    package func configuration() throws(StartRefusal) -> Loaded {
        let findings = try scan()
        let reads = Reads(readFile)
        var file: (path: String, bytes: [UInt8])?
        if let path = findings.path ?? environment["MARTLET_CONFIG"] {
            switch reads.read(path) {
            case .success(let bytes): file = (path, bytes)
            case .failure(let problem): throw refusal(["\(path): cannot be read: \(problem.reason)"])
            }
        }
        // mcrouter's JSON is about routes and nothing else.
        let isForeign = file.map { RouteFile.format(of: $0.path) == .mcrouter } ?? false
        let values: SettingsValues
        var notes: [String]
        do throws(SettingsError) {
            (values, notes) = try RouterConfiguration.schema.resolve(
                file: isForeign ? nil : file, environment: environment, flags: findings.flags,
                otherKeys: Set(RouteFile.keys))
        } catch {
            throw refusal(error.problems)
        }
        var problems: [String] = []
        var configuration = RouterConfiguration(values, problems: &problems)
        configuration.filePath = file?.path
        configuration.discovery.environment = environment
        configuration.tracing = TracingConfiguration(
            values, environment: environment, program: "martlet-router", problems: &problems,
            notes: &configuration.notes)
        configuration.tracing.version = ProductVersion.martlet
        configuration.tracing.propagates = values.boolean("tracing.propagate")
        var files = file.map { [$0.path] } ?? []
        if problems.isEmpty, let file, isForeign || Self.hasRoutes(file.bytes) {
            files = try readRoutes(file.path, values, reads, into: &configuration)
        }
        if problems.isEmpty { problems += RouterPlan.problems(configuration) }
        guard problems.isEmpty else { throw refusal(problems) }
        configuration.notes += notes
        // Routes stand in files beside the settings: those count as they are, comments and all.
        let hasRoutes = isForeign || file.map { Self.hasRoutes($0.bytes) } ?? false
        configuration.summary = ConfigurationSummary(
            RouterConfiguration.schema, values,
            files: hasRoutes ? files.compactMap { path in reads.contents.first { $0.path == path }?.bytes } : [])
        if findings.checksOnly {
            notes = RouterConfiguration.schema.describe(values) + configuration.notes.map { "# note: \($0)" }
            throw StartRefusal(code: 0, output: (["the configuration is valid"] + notes).joined(separator: "\n") + "\n")
        }
        return Loaded(
            configuration: configuration, files: files.map { WatchedFile(path: $0, stamp: reads.stamps[$0] ?? nil) },
            contents: LastGoodConfiguration(reads.contents))
    }

    /// Reads files, and keeps the stamp that each had when it was first read.
    private final class Reads {
        private let readFile: (String) -> Result<File, FileProblem>
        private(set) var stamps: [String: [Int]?] = [:]
        /// What was read, each file once.
        private(set) var contents: [(path: String, bytes: [UInt8])] = []

        init(_ readFile: @escaping (String) -> Result<File, FileProblem>) { self.readFile = readFile }

        func read(_ path: String) -> Result<[UInt8], FileProblem> {
            readFile(path).map { file in
                if stamps[path] == nil {
                    stamps[path] = .some(file.stamp)
                    contents.append((path, file.bytes))
                }
                return file.bytes
            }
        }
    }

    /// Whether a file of ours says something of routes.
    private static func hasRoutes(_ bytes: [UInt8]) -> Bool {
        guard let root = try? SettingsNode.parse(bytes, file: ""), case .mapping(let entries) = root.content else {
            return false
        }
        return entries.contains { RouteFile.keys.contains($0.key) }
    }

    /// Reads routes, and returns the files that they stand in.
    private func readRoutes(
        _ path: String, _ values: SettingsValues, _ reads: Reads, into configuration: inout RouterConfiguration
    ) throws(StartRefusal) -> [String] {
        guard values.list("servers").isEmpty else {
            throw refusal(["\(path): servers cannot go with routes: name them in pools"])
        }
        if let name = ["storage", "consistency", "staleness"].first(where: values.isSet) {
            throw refusal(["\(path): \(name) cannot go with routes: say it of pools"])
        }
        let own = RouterConfiguration.schema.settings.map { setting in String(setting.name.prefix { $0 != "." }) }
        do throws(SettingsError) {
            let found = try RouteFile.load(path, defaults: configuration.defaults, otherKeys: Set(own)) {
                path throws(RouteFile.ReadError) in
                switch reads.read(path) {
                case .success(let bytes): return bytes
                case .failure(let problem): throw RouteFile.ReadError("cannot be read: \(problem.reason)")
                }
            }
            configuration.routes = found.tree
            configuration.defaults = found.defaults
            configuration.notes += found.warnings
            return found.files
        } catch {
            throw refusal(error.problems)
        }
    }

    private func refusal(_ problems: [String]) -> StartRefusal {
        let lines = problems.map { "\(program): \($0)\n" }
        return StartRefusal(code: StartRefusal.Code.configuration, errors: lines.joined())
    }

    private static let longs: [OptionScanner.Long] = {
        var longs: [OptionScanner.Long] = [
            .init("help", .none), .init("version", .none), .init("config", .required), .init("check-config", .none),
        ]
        for setting in RouterConfiguration.schema.settings where setting.isScalar {
            var argument = OptionScanner.Argument.required
            if case .boolean = setting.type { argument = .boolean }
            longs.append(.init(setting.flagName, argument, abbreviable: false))
        }
        return longs
    }()

    private func scan() throws(StartRefusal) -> Findings {
        var findings = Findings()
        var scanner = OptionScanner(
            program: program, shorts: "hVp:l:t:c:u:", longs: Self.longs, arguments: arguments)
        while let step = scanner.next() {
            switch step {
            case .problem(let message, let flag):
                var errors = message + "\n"
                if let flag, let near = suggestion(for: flag, among: Self.longs.map(\.name)) {
                    errors += "Did you mean --\(near)?\n"
                }
                throw StartRefusal(code: StartRefusal.Code.usage, errors: errors)
            case .short("h", _), .long("help", _): throw StartRefusal(code: 0, output: Self.help)
            case .short("V", _), .long("version", _):
                throw StartRefusal(code: 0, output: "martlet-router \(ProductVersion.martlet)\n")
            case .short(let letter, let value): findings.flags.append((Self.long(letter), value ?? ""))
            case .long("config", let value): findings.path = value
            case .long("check-config", _): findings.checksOnly = true
            case .long(let name, let value): findings.flags.append((name, value ?? "true"))
            }
        }
        for server in scanner.operands {
            guard Self.isServer(server) else {
                throw StartRefusal(
                    code: StartRefusal.Code.usage,
                    errors: "\(program): \"\(server)\" is no option, and names no server; expected "
                        + "host:port[:weight], [v6]:port[:weight], /path[=weight] or a source such as dns+host:port\n")
            }
            findings.flags.append(("servers", server))
        }
        return findings
    }

    /// Whether each part of a word, with commas between, says where a server is: a path, a source, a host with a port,
    /// or what can be nothing but a host. A plain word would make a server of what was meant as an option's value.
    private static func isServer(_ word: String) -> Bool {
        let parts = word.split(separator: ",")
        return !parts.isEmpty
            && parts.allSatisfy { part in
                if let colon = part.firstIndex(of: ":") { return colon > part.startIndex }
                return part.contains { "/+.".contains($0) } || part == "localhost"
            }
    }

    /// memcached's letters for what routers have as well.
    private static func long(_ letter: Character) -> String {
        switch letter {
        case "p": "port"
        case "l": "listen"
        case "t": "threads"
        case "c": "connections-limit"
        default: "user"
        }
    }

    private static var help: String {
        """
        Martlet \(ProductVersion.martlet), a router in front of servers that speak memcached's protocols.

        martlet-router [OPTIONS] [SERVER...]
          SERVER                          host:port[:weight], [v6]:port[:weight], or /path[=weight]; or where they are
                                          looked up: file:PATH, dns+, dnssrv+, etcd://, k8s://
          --config=FILE                   read settings from a YAML file (or MARTLET_CONFIG)
          --check-config                  say whether all settings are right, and exit
          -p PORT, -l ADDRESS, -t THREADS, -c CONNECTIONS, -u USER
                                          --port, --listen, --threads, --connections-limit, --user
          -h, -V                          this help, the version
        Each setting is a key of the file (upstream.timeout), a variable (MARTLET_UPSTREAM_TIMEOUT) and a flag
        (--upstream-timeout). A flag wins over a variable, and that over the file.

        \(RouterConfiguration.schema.help())
        """
    }
}
