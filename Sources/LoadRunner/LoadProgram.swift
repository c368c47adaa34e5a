// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform
internal import Settings

/// `martlet-load`: load tests in the manner of k6, from a command line to an exit code.
package struct LoadProgram {
    /// The program's version.
    static let version = "0.1.0"

    private let program: String
    private let arguments: [String]
    private let environment: [String: String]

    /// The program with its name, the arguments behind it, and the environment.
    package init(program: String, arguments: [String], environment: [String: String]) {
        self.program = program
        self.arguments = arguments
        self.environment = environment
    }

    /// Does what the command line says, writing to standard output and error. Returns the exit code: k6's.
    package func run() -> Int32 {
        do throws(RunProblem) {
            return try dispatch().rawValue
        } catch {
            writeWhole(Array("\(program): \(error.message)\n".utf8), to: 2)
            return error.code.rawValue
        }
    }

    private func dispatch() throws(RunProblem) -> ExitCode {
        let line: LoadCommandLine
        do throws(OptionProblem) {
            line = try LoadCommandLine(program: program, arguments: arguments)
        } catch {
            throw RunProblem(.invalidOptions, error.description)
        }
        if line.has("version") { return show("\(program) \(Self.version)\n") }
        guard !line.has("help"), let command = line.operands.first else { return show(help()) }
        switch command {
        case "run":
            guard line.operands.count == 2 else {
                throw RunProblem(.invalidOptions, "run: expected one script or scenario file\nTry: \(program) --help")
            }
            return try start(line, path: line.operands[1])
        case "agent":
            guard line.operands.count == 1 else {
                throw RunProblem(.invalidOptions, "agent: expected no file\nTry: \(program) --help")
            }
            return try AgentProgram(program: program, line, environment).run()
        case "presets":
            return show(WorkloadPreset.names.joined(separator: "\n") + "\n")
        case "version": return show("\(program) \(Self.version)\n")
        default:
            throw RunProblem(
                .invalidOptions,
                "\(command): there is no such command; run, agent, presets and version are\n"
                    + "Try: \(program) --help")
        }
    }

    private func show(_ text: String) -> ExitCode {
        writeWhole(Array(text.utf8), to: 1)
        return .success
    }

    private func start(_ line: LoadCommandLine, path: String) throws(RunProblem) -> ExitCode {
        // Before any other thread is there, and those of the script's machine are as soon as there is one.
        Signal.block()
        let files = TestFiles()
        let fleet: AgentFleet?
        let log: RunLog
        var notices: [String]
        do throws(OptionProblem) {
            fleet = try AgentFleet(line, environment, files)
            log = try RunLog(line, environment)
            notices = try line.notices(environment)
        } catch {
            throw RunProblem(.invalidOptions, error.description)
        }
        // With agents, what a script sees must be the same everywhere.
        let seesSystem = fleet == nil && line.isOn("include-system-env-vars", environment, otherwise: true)
        let test = try PreparedTest(
            line, path: path, environment: environment, variables: seesSystem ? environment : [:], files: files,
            log: log)
        notices += test.options.notices
        for notice in notices { log.write(.warning, notice) }
        let code: ExitCode
        if let objective = line.last("search") {
            let search: RateSearchRun
            do throws(OptionProblem) {
                search = try RateSearchRun(line, test, objective, fleet, environment)
            } catch {
                throw RunProblem(.invalidOptions, error.description)
            }
            code = try search.run()
        } else {
            code = try run(line, test, fleet)
        }
        if test.options.lingers == true { linger(log) }
        return code
    }

    /// Stays until a signal.
    private func linger(_ log: RunLog) {
        log.write(.info, "the test is over; Ctrl-C ends the program")
        while true {
            if let signal = Signal.wait(milliseconds: 500), signal != .user1, signal != .user2 { return }
        }
    }

    private func run(
        _ line: LoadCommandLine, _ test: PreparedTest, _ fleet: AgentFleet?
    ) throws(RunProblem) -> ExitCode {
        let run: TestRun
        let output: OutputSettings
        do throws(OptionProblem) {
            output = try OutputSettings(line, environment, tags: test.options.tags ?? [:])
            if fleet != nil, !output.samples.isEmpty {
                throw OptionProblem(OutputSettings.agentsReason)
            }
            run = try TestRun(line, test, fleet: fleet, environment: environment, keepsSeries: output.remote != nil)
        } catch {
            throw RunProblem(.invalidOptions, error.description)
        }
        return try run.run(output)
    }

    private func help() -> String {
        let lines = LoadCommandLine.table.map { row in
            let name = (row.letter.map { "-\($0), " } ?? "    ") + "--\(row.name)" + (row.value.map { " \($0)" } ?? "")
            return "  \(name)\(String(repeating: " ", count: max(2, 36 - name.count)))\(row.help)"
        }
        return """
            \(program): load tests that speak memcached, in the manner of k6

              \(program) run script.js           a script, as k6 has them
              \(program) run SCENARIOS.yaml      workloads without script
              \(program) run -                   a script from standard input
              \(program) agent               a part of the tests of others: see --agents
              \(program) presets                 the workloads that others measured

            \(lines.joined(separator: "\n"))

            k6's other flags are taken, and those that have no effect here are told.

            Options come from the file, above them from the environment (K6_VUS or MARTLET_LOAD_VUS and so on), above
            them from flags. The exit code is k6's: 0, or 99 when a threshold failed, 104 for options that are wrong,
            105 after Ctrl-C.

            """
    }
}

/// What a test's file and the places around it come to.
struct PreparedTest {
    let path: String
    let options: LoadOptions
    let session: ScriptSession?
    let files: TestFiles
    let log: RunLog

    /// Reads the script or scenarios at `path`, a script from standard input where that is `-`. `environment` has
    /// variables that say how the test runs, `variables` those that scripts see below the command line's.
    init(
        _ line: LoadCommandLine, path: String, environment: [String: String], variables: [String: String],
        files: TestFiles, log: RunLog = .standard
    ) throws(RunProblem) {
        self.path = path
        self.files = files
        self.log = log
        let low: LoadOptions
        let (high, flags, pairs): (LoadOptions, LoadOptions, [String: String])
        do throws(OptionProblem) {
            low = try line.last("config").map { path throws(OptionProblem) in try Self.read(path, files) } ?? .init()
            high = try LoadCommandLine.options(environment: environment)
            (flags, pairs) = (try line.options(), try line.pairs("env"))
        } catch {
            throw RunProblem(.invalidOptions, error.description)
        }
        var session: ScriptSession?
        let file: LoadOptions
        if path == "-" {
            do throws(SystemError) {
                try files.takeInput(
                    as: ScriptLibrary(path: path, files).path, limitBytes: ScriptLibrary.sizeLimitBytes)
            } catch {
                throw RunProblem(.invalidOptions, "standard input: \(error.reason)")
            }
        }
        if [".js", ".mjs", "/-"].contains(where: { path.hasSuffix($0) }) || path == "-" {
            let servers = low.overridden(by: high).overridden(by: flags).servers ?? ["127.0.0.1:11211"]
            let made = try ScriptSession(
                path: path, environment: variables.merging(pairs) { $1 }, servers: servers, files: files, log: log)
            file = made.options
            session = made
        } else if path.hasSuffix(".ts") {
            throw RunProblem(.invalidOptions, "\(path): TypeScript is not supported; give its JavaScript")
        } else {
            do throws(OptionProblem) { file = try Self.read(path, files) } catch {
                throw RunProblem(.invalidOptions, error.description)
            }
        }
        self.session = session
        options = low.overridden(by: file).overridden(by: high).overridden(by: flags)
    }

    /// The same test with other options.
    init(_ other: PreparedTest, _ options: LoadOptions) {
        (path, session, files, log) = (other.path, other.session, other.files, other.log)
        self.options = options
    }

    private static func read(_ path: String, _ files: TestFiles) throws(OptionProblem) -> LoadOptions {
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try files.read(path, limitBytes: 4 << 20)
        } catch {
            throw OptionProblem("\(path): \(error.reason)")
        }
        do throws(SettingsError) {
            return try OptionsReader.read(try SettingsNode.parse(bytes, file: path), file: path)
        } catch {
            throw OptionProblem(error.description)
        }
    }
}

/// Why the program ends without a result.
struct RunProblem: Error {
    let code: ExitCode
    let message: String

    init(_ code: ExitCode, _ message: String) {
        self.code = code
        self.message = message
    }
}
