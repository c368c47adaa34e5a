// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import Platform
internal import ScriptEngine
internal import Settings

/// What the main thread runs of a script: reads its options, and runs setup, teardown and handleSummary.
final class ScriptSession {
    let library: ScriptLibrary
    let environment: String
    private let worker: ScriptWorker
    private let control = RunControl(threads: 1)
    /// The script's `options`, each as JSON, and read.
    let optionFields: [String: String]
    let options: LoadOptions
    /// The functions that the main module exports.
    let functions: Set<String>
    private(set) var data: [UInt8]?

    /// Reads the script at `path`. Throws what is wrong with it, with the lines.
    init(
        path: String, environment: [String: String], servers: [String], files: TestFiles, log: RunLog = .standard
    ) throws(RunProblem) {
        library = ScriptLibrary(path: path, files)
        self.environment = JSONText.object(environment)
        var registry = MetricRegistry()
        let builtIn = BuiltInMetrics(&registry)
        var setup = ScriptSetup(
            library: library, scenarios: [], progress: [], registry: registry, builtIn: builtIn, servers: servers,
            environment: self.environment, options: "{}", minIterationDuration: 0, data: nil, isDedicated: true,
            seed: nil, tags: [:])
        setup.log = log
        let said: SettingsNode?
        // Init code may take as long as it likes, until a signal.
        let guardian: ScriptGuard
        do throws(SystemError) {
            guardian = try ScriptGuard(path, until: .max / 2, words: "", code: .generic)
        } catch {
            throw RunProblem(.generic, error.description)
        }
        defer { guardian.finish() }
        do throws(ScriptProblem) {
            worker = try ScriptWorker(setup, control, thread: 0)
            worker.registers = true
            worker.machine?.mustEnd = { guardian.isSignalled }
            worker.machine?.watch(everySeconds: 0.25)
            let text = try worker.makeUser()
            worker.registers = false
            do throws(SettingsError) {
                said = try SettingsNode.parse(Array(text.utf8), file: path)
            } catch {
                throw ScriptProblem(error.description)
            }
        } catch {
            // What a script ends the test with says itself why.
            if let failure = control.failed { throw RunProblem(failure.code, failure.message) }
            throw RunProblem(guardian.isSignalled ? .interrupted : .scriptException, error.description)
        }
        guard !guardian.isSignalled else { throw RunProblem(.interrupted, "\(path): a signal ended it") }
        guard case .mapping(let entries) = said?.content else {
            throw RunProblem(.scriptException, "\(path): no module")
        }
        var (fields, read, names) = ([String: String](), LoadOptions(), Set<String>())
        for entry in entries {
            if entry.key == "options" {
                if case .mapping(let all) = entry.value.content {
                    for one in all { fields[one.key] = Self.json(one.value) }
                }
                // The lines of the script, not of its options' text.
                let source = (try? files.read(library.path, limitBytes: ScriptLibrary.sizeLimitBytes)) ?? []
                let lines = LiteralLines(source, of: "options")
                do throws(SettingsError) {
                    read = try OptionsReader.read(entry.value.relined { lines.line($0) ?? 0 }, file: path)
                } catch {
                    throw RunProblem(.invalidOptions, error.problems.joined(separator: "\n"))
                }
            } else if case .sequence(let items) = entry.value.content {
                for item in items { if case .scalar(let name, _) = item.content { names.insert(name) } }
            }
        }
        (optionFields, options, functions) = (fields, read, names)
    }

    private static func json(_ node: SettingsNode) -> String {
        switch node.content {
        case .mapping(let entries):
            return "{" + entries.map { "\(JSONString.quoted($0.key)):\(json($0.value))" }.joined(separator: ",") + "}"
        case .sequence(let items): return "[" + items.map { json($0) }.joined(separator: ",") + "]"
        case .scalar(let text, let isPlain): return isPlain ? text.isEmpty ? "null" : text : JSONString.quoted(text)
        }
    }

    /// The metrics that the script made, and those that every test has.
    var registry: MetricRegistry { worker.registry }
    var builtIn: BuiltInMetrics { worker.setup.builtIn }

    /// Takes over what the options came to.
    func adopt(
        _ registry: MetricRegistry, servers: [String], options: LoadOptions, outputs: [SampleOutput],
        shown: String, keepsSeries: Bool = false, requestCap: RequestCap? = nil
    ) throws(RunProblem) {
        worker.registry = registry
        worker.places = []
        worker.placeNumbers = [:]
        worker.sampleCache = [:]
        for user in worker.users.indices { worker.users[user].place = -1 }
        worker.sinks = registry.makeSinks()
        worker.setup.systemTags = options.systemTags ?? .all
        worker.log = SampleLog(outputs, worker.setup.systemTags)
        worker.setup.tags = options.tags ?? [:]
        worker.setup.options = shown
        worker.setup.throwsErrors = options.throwsErrors ?? false
        worker.setup.tlsRules = options.tlsRules
        worker.setup.keepsSeries = keepsSeries
        worker.setup.requestCap = requestCap
        do throws(OptionProblem) { try worker.setServers(servers, options.tls) } catch {
            throw RunProblem(.invalidOptions, error.description)
        }
    }

    /// What setup gave, as JSON; nil when it gave nothing.
    var setupData: String? { data.map { String(decoding: $0, as: UTF8.self) } }

    /// Why setup, teardown or handleSummary called the test failed; nil when none did.
    var markedFailed: String? { control.markedFailed }

    /// Connections at most of so many virtual users, in so many groups that share them, as far as the script made its
    /// clients in init code.
    func connections(users: Int, groups: Int) -> Int {
        let made = worker.clients.reduce(0) { $0 + $1.servers.count * $1.pool * ($1.isShared ? groups : users) }
        return max(worker.setup.servers.count * users, made)
    }

    /// What it gathered.
    var snapshot: WorkerSnapshot {
        worker.log.flush()
        var shown = worker.sinks
        for place in worker.places { place.add(to: &shown) }
        return WorkerSnapshot(
            sinks: shown, checks: worker.checks, warnings: worker.warnings.counts, series: worker.series)
    }

    /// What setup gave on another machine.
    func adopt(data: [UInt8]?) { self.data = data }

    /// Runs setup, if there is one; its result goes to the virtual users.
    func setUp(limit: UInt64) throws(RunProblem) {
        guard functions.contains("setup") else { return }
        try run("setup", argument: nil, limit: limit, late: .setupTimeout)
        data = try result(of: "setup")
    }

    /// Runs teardown, if there is one, with what setup gave.
    func tearDown(limit: UInt64) throws(RunProblem) {
        guard functions.contains("teardown") else { return }
        worker.heedsStop = false
        try run("teardown", argument: data ?? Array("null".utf8), limit: limit, late: .teardownTimeout)
    }

    /// What the script's handleSummary makes of the result: texts by where they go; nil when there is no such function.
    func summarise(
        _ data: String, limit: UInt64, text: @escaping (JSONNode, Bool) throws(OptionProblem) -> String
    ) throws(RunProblem) -> [(target: String, bytes: [UInt8])]? {
        guard functions.contains("handleSummary") else { return nil }
        worker.heedsStop = false
        worker.summaryText = text
        try run("handleSummary", argument: Array(data.utf8), limit: limit, late: .generic)
        worker.summaryParts = []
        do throws(ScriptProblem) {
            _ = try worker.users[0].context.call(worker.users[0].deliver, [])
        } catch {
            throw RunProblem(.scriptException, "handleSummary(): \(error.description)")
        }
        return worker.summaryParts
    }

    /// Runs a function of the script to its end.
    private func run(_ name: String, argument: [UInt8]?, limit: UInt64, late: ExitCode) throws(RunProblem) {
        let end = Clock.monotonicNanoseconds() + limit
        let guardian: ScriptGuard
        do throws(SystemError) {
            guardian = try ScriptGuard(
                "\(name)()", until: end,
                words: "\(name)() took more than \(NumberText.span(limit)) and cannot be stopped", code: late)
        } catch {
            throw RunProblem(.generic, error.description)
        }
        defer { guardian.finish() }
        if worker.phase != name {
            worker.phase = name
            worker.sampleCache = [:]
            worker.users[0].place = -1
        }
        worker.isInterrupted = { guardian.isSignalled }
        worker.machine?.mustEnd = { [weak worker] in worker?.isRunningCut ?? true }
        worker.machine?.watch(everySeconds: 0.25)
        worker.beginWork(0)
        worker.users[0].isInterrupted = false
        worker.users[0].outcome = nil
        worker.users[0].deadline = end
        worker.call(0, worker.users[0].once, [.string(name), argument.map { .text($0) } ?? .undefined])
        while worker.users[0].outcome == nil {
            worker.deliver()
            let next = min(worker.fireTimers(), worker.releasePaced())
            worker.flushDirty()
            let now = Clock.monotonicNanoseconds()
            guard worker.users[0].outcome == nil, now < end, !guardian.isSignalled else { break }
            worker.takeEvents(worker.poller.wait(nanoseconds: min(5_000_000, next > now ? next - now : 0)))
            worker.timeOut(Clock.monotonicNanoseconds())
        }
        if guardian.isSignalled {
            worker.users[0].isRunning = false
            throw RunProblem(.interrupted, "\(name)(): a signal ended it")
        }
        if let failure = control.failed { throw RunProblem(failure.code, failure.message) }
        guard Clock.monotonicNanoseconds() < end, let outcome = worker.users[0].outcome else {
            worker.users[0].isRunning = false
            throw RunProblem(late, "\(name)() took more than \(NumberText.span(limit))")
        }
        if let error = outcome { throw RunProblem(.scriptException, "\(name)(): \(error)") }
    }

    /// What the function that ran last gave, as JSON.
    private func result(of name: String) throws(RunProblem) -> [UInt8]? {
        do throws(ScriptProblem) {
            guard case .text(let json) = try worker.users[0].context.call(worker.users[0].take, []) else { return nil }
            return json
        } catch {
            throw RunProblem(.scriptException, "\(name)(): what it returns cannot be JSON: \(error.description)")
        }
    }
}
