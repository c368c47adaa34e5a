// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import Platform
internal import ScriptEngine

/// One test: prepares the threads, watches over them, and says what came of it.
struct TestRun {
    /// Threads at most: a script that sleeps needs one for each virtual user.
    static let threadLimit = 2048

    let line: LoadCommandLine
    let options: LoadOptions
    let path: String
    let session: ScriptSession?
    private let native: [Scenario]
    private let scripted: [Scenario]
    private let traces: [Trace?]
    let addresses: [ServerAddress]
    let servers: [String]
    let seed: UInt64
    let log: RunLog
    /// Variables that say where and how results are shown.
    let environment: [String: String]
    /// Whether what is gathered is kept apart by all tags.
    private let keepsSeries: Bool
    private let nativeThreads: Int
    /// How often a connection of its own measures, each second; nil for never.
    private let probeRate: Int?
    /// The part of the test that is run here.
    let segment: ExecutionSegment
    /// The agents that run it; nil when it is run here.
    let fleet: AgentFleet?
    /// The rate of a search's trial.
    private let searchRate: Double?
    /// The cap on requests a second of scripts; nil without one.
    private let requestCap: RequestCap?
    /// For each thread of scripts, the virtual users that it runs.
    private let assigned: [[(scenario: Int, number: Int)]]

    /// A test, on agents if there are some, or a part of one that a coordinator sent.
    init(
        _ line: LoadCommandLine, _ test: PreparedTest, fleet: AgentFleet? = nil, searchRate: Double? = nil,
        job: AgentJob? = nil, environment: [String: String] = [:], keepsSeries: Bool = false
    ) throws(OptionProblem) {
        let (options, path, session) = (test.options, test.path, test.session)
        self.line = line
        self.options = options
        self.path = path
        self.session = session
        self.fleet = fleet
        self.searchRate = searchRate
        (log, self.environment) = (test.log, environment)
        // Agents send what thresholds and summaries need, and no more.
        self.keepsSeries = job == nil && fleet == nil && (keepsSeries || options.summaryMode == .full)
        segment = try Self.part(options, fleet, job)
        var (native, scripted, traces) = ([Scenario](), [Scenario](), [Trace?]())
        for var scenario in try options.resolvedScenarios() {
            if let reason = Self.refusal(of: scenario, segment, fleet) {
                throw OptionProblem("\(path): scenario \(scenario.name): \(reason)")
            }
            guard let workload = scenario.workload else {
                guard let session else {
                    throw OptionProblem("\(path): scenario \(scenario.name) has no workload")
                }
                guard session.functions.contains(scenario.function) else {
                    throw OptionProblem(
                        "\(path): scenario \(scenario.name): the script exports no function '\(scenario.function)'")
                }
                if case .trace = scenario.plan {
                    throw OptionProblem("\(path): scenario \(scenario.name): trace-replay needs workload.trace")
                }
                scripted.append(scenario)
                continue
            }
            let trace = try workload.trace.map { path throws(OptionProblem) in try Trace(path: path, test.files) }
            if case .trace = scenario.plan, trace == nil {
                throw OptionProblem("\(path): scenario \(scenario.name): trace-replay needs workload.trace")
            }
            if let trace, let reason = trace.operations.lazy.compactMap({ workload.refusal(of: $0) }).first {
                throw OptionProblem("\(path): scenario \(scenario.name): workload.\(reason)")
            }
            // A trace's end is the scenario's.
            if case .trace(let speed, let duration, let users) = scenario.plan, let last = trace?.rows.last {
                let length = ArrivalSchedule.nanoseconds(last.time, speed: speed) + 1
                scenario.plan = .trace(speed: speed, duration: min(duration, length), users: users)
            }
            traces.append(trace)
            native.append(scenario)
        }
        requestCap = try Self.cap(options, native, path, segment)
        (self.native, self.scripted, self.traces) = (native, scripted, traces)
        servers = options.servers ?? ["127.0.0.1:11211"]
        addresses = try ServerAddress.find(servers, options.tlsRules.applied(to: options.tls))
        probeRate = try line.last("probe").map { (text) throws(OptionProblem) in
            guard let rate = Int(text), (1...ProbeWorker.rateLimit).contains(rate) else {
                throw OptionProblem("--probe \(text): expected 1 to \(ProbeWorker.rateLimit) requests a second")
            }
            return rate
        }
        seed = job?.seed ?? options.seed ?? Clock.realtimeNanoseconds()
        let threads = job?.threads ?? options.threads ?? Self.defaultThreads
        // As many on each agent: the first has the largest share.
        let first = ExecutionSegment(index: 0, count: segment.count)
        nativeThreads = min(threads, first.share(of: native.map(\.plan.maximumUsers).max() ?? 0))
        // Agents have threads of their own.
        let own = fleet == nil ? scripted : []
        assigned = try Self.assign(own, segment, isDedicated: session?.library.canSleep ?? false, threads)
    }

    /// The part of the test that options ask for.
    private static func part(
        _ options: LoadOptions, _ fleet: AgentFleet?, _ job: AgentJob?
    ) throws(OptionProblem) -> ExecutionSegment {
        if let job { return job.segment }
        guard fleet == nil || options.segment == nil else {
            throw OptionProblem("--execution-segment: agents have their parts already; leave one of the two out")
        }
        return options.segment ?? .whole
    }

    /// The cap on requests a second that options ask for; nil when there is none.
    private static func cap(
        _ options: LoadOptions, _ native: [Scenario], _ path: String, _ segment: ExecutionSegment
    ) throws(OptionProblem) -> RequestCap? {
        guard let rate = options.requestsPerSecond, rate > 0 else { return nil }
        if let one = native.first {
            throw OptionProblem(
                "\(path): rps: a cap is for scripts; scenario \(one.name) has a workload, whose rate the executors "
                    + "constant-arrival-rate and ramping-arrival-rate set")
        }
        return RequestCap(rate: rate, segment)
    }

    /// Why a scenario cannot be cut into parts; nil when it can.
    private static func refusal(of scenario: Scenario, _ segment: ExecutionSegment, _ fleet: AgentFleet?) -> String? {
        let (parts, users) = (fleet?.count ?? segment.count, scenario.plan.maximumUsers)
        guard users < parts else { return nil }
        return "\(users) VUs are too few for \(parts) \(fleet == nil ? "execution segments" : "agents")"
    }

    /// Threads that make the load when nothing is said of them.
    static var defaultThreads: Int { min(LoadOptions.threadLimit, max(1, ProcessControl.processors - 1)) }

    private static func assign(
        _ scenarios: [Scenario], _ segment: ExecutionSegment, isDedicated: Bool, _ threads: Int
    ) throws(OptionProblem) -> [[(scenario: Int, number: Int)]] {
        let all = scenarios.enumerated().flatMap { index, scenario in
            (0..<segment.share(of: scenario.plan.maximumUsers)).map { own in
                (scenario: index, number: segment.number(of: own))
            }
        }
        guard isDedicated else {
            let count = min(threads, all.count)
            return (0..<count).map { thread in all.filter { segment.own($0.number) % count == thread } }
        }
        guard all.count <= threadLimit else {
            throw OptionProblem(
                "a script that can call sleep needs a thread for each of its VUs: at most \(threadLimit), "
                    + "not \(all.count). Await a timer of k6/timers instead, or have fewer VUs")
        }
        return all.map { [$0] }
    }

    /// `host:port`, `[::1]:port`, `host`, or the path of a unix socket; messages call it `what`.
    static func resolve(
        _ names: [String], port standard: UInt16 = 11211, what: String = "server"
    ) throws(OptionProblem) -> [SocketAddress] {
        var result: [SocketAddress] = []
        for name in names {
            if name.hasPrefix("/") {
                guard name.utf8.count <= SocketAddress.pathLimitBytes else {
                    throw OptionProblem("\(what) \(name): the path is too long")
                }
                result.append(SocketAddress(path: name))
                continue
            }
            var (host, port) = (Substring(name), standard)
            if let colon = name.lastIndex(of: ":"), name.hasPrefix("[") || name.firstIndex(of: ":") == colon,
                name[colon...] != ":", !name.hasSuffix("]")
            {
                guard let number = UInt16(name[name.index(after: colon)...]), number > 0 || what == "--listen" else {
                    throw OptionProblem("\(what) \(name): expected HOST:PORT")
                }
                (host, port) = (name[..<colon], number)
            }
            if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
            do throws(SystemError) {
                let found = try ListeningSocket.resolve(host: String(host), port: port, isDatagram: false)
                guard let address = found.first else { throw SystemError("getaddrinfo", subject: name) }
                result.append(address)
            } catch {
                throw OptionProblem("\(what) \(name): \(error.description)")
            }
        }
        return result
    }

    private func makeProgress(_ scenarios: [Scenario], _ traces: [Trace?]) -> [ScenarioProgress] {
        scenarios.enumerated().map { index, scenario in
            ScenarioProgress(
                scenario.plan, seed: RandomSource.mix(seed &+ UInt64(index)),
                times: traces.indices.contains(index) ? traces[index]?.rows.map(\.time) : nil, segment: segment)
        }
    }

    /// Runs the test, and sends its metrics where `settings` say meanwhile. Returns k6's exit code.
    func run(_ settings: OutputSettings) throws(RunProblem) -> ExitCode {
        var done = try perform(settings, isQuiet: line.isOn("quiet", environment))
        return conclude(done, &done.screen)
    }

    /// What all threads of a test share.
    struct Basis {
        var registry: MetricRegistry
        let builtIn: BuiltInMetrics
        let thresholds: ThresholdSet
        let native: [ScenarioProgress]
        let scripted: [ScenarioProgress]

        var progress: [ScenarioProgress] { native + scripted }
    }

    /// All scenarios, in the order of their progress.
    var scenarios: [Scenario] { native + scripted }

    /// Finds the metrics that thresholds name, and begins to count.
    func makeBasis() throws(RunProblem) -> Basis {
        var registry = session?.registry ?? MetricRegistry()
        let builtIn = session?.builtIn ?? BuiltInMetrics(&registry)
        do throws(OptionProblem) {
            let thresholds = try ThresholdSet(options.noThresholds == true ? [] : options.thresholds ?? [], &registry)
            return Basis(
                registry: registry, builtIn: builtIn, thresholds: thresholds, native: makeProgress(native, traces),
                scripted: makeProgress(scripted, []))
        } catch {
            throw RunProblem(.invalidOptions, error.description)
        }
    }

    /// Threads that make the load here.
    var ownThreads: Int { nativeThreads + assigned.count }

    /// Starts the threads that make the load here.
    func startThreads(
        _ basis: Basis, _ outputs: [SampleOutput], _ control: RunControl
    ) throws(RunProblem) -> [Thread] {
        let setup = NativeSetup(
            scenarios: native, progress: basis.native, traces: traces, registry: basis.registry,
            builtIn: basis.builtIn, servers: addresses, threads: nativeThreads, seed: seed, outputs: outputs,
            segment: segment, systemTags: options.systemTags ?? .all, keepsSeries: keepsSeries)
        let scripts = scriptSetup(basis.registry, basis.builtIn, basis.scripted, outputs)
        return try start(setup, scripts, control)
    }

    /// Runs the test, without a word of what it came to.
    func perform(_ settings: OutputSettings, isQuiet: Bool) throws(RunProblem) -> FinishedRun {
        let basis = try makeBasis()
        let (registry, builtIn) = (basis.registry, basis.builtIn)
        let threads = fleet?.count ?? ownThreads
        let control = RunControl(threads: threads + 2)
        var screen = ProgressScreen(
            isQuiet: isQuiet, isColored: !line.hasNoColor(environment) && ProcessControl.isTerminal(1),
            scenarios: scenarios, progress: basis.progress, log: log)
        try fleet?.connect(control, basis)
        screen.showHeading(path: path, servers: servers, agents: fleet?.names ?? [], segment: segment)
        if options.isOverridden { screen.showWarning("vus stands in the place of the scenarios") }
        let own = try start(settings.samples, registry, builtIn)
        let outputs = own + settings.running
        try session?.adopt(
            registry, servers: servers, options: options, outputs: outputs, shown: shownOptions,
            keepsSeries: keepsSeries, requestCap: requestCap)
        if fleet == nil { raiseLimits(screen.showWarning) }
        let running: [Thread]
        do throws(RunProblem) {
            if options.noSetup != true { try session?.setUp(limit: options.setupTimeout ?? 60_000_000_000) }
        } catch {
            fleet?.disconnect(control)
            // As in k6, what there is of a summary is shown all the same.
            if let session { control.publish(session.snapshot, thread: threads) }
            for output in own { if let problem = output.finish() { screen.showError(problem) } }
            let watch = makeWatch(basis, control, threads: threads)
            return FinishedRun(
                watch: watch, code: error.code, screen: screen, control: control, setupProblem: error.message)
        }
        do throws(RunProblem) {
            if let fleet {
                running = try fleet.start(job(for: fleet))
            } else {
                running = try startThreads(basis, outputs, control)
            }
        } catch {
            fleet?.disconnect(control)
            _ = tearDown(screen)
            throw error
        }
        let (probe, isProbed) = try startProbe(registry, builtIn, control, thread: threads + 1)
        var watch = makeWatch(basis, control, threads: threads)
        watch.output = try start(settings.remote, registry)
        watch.samples = SampleLog(outputs, options.systemTags ?? .all)
        watch.tags = options.tags ?? [:]
        var code = watch.watch(&screen)
        if !watch.isStuck { for thread in running { thread.join() } }
        isProbed.set()
        probe?.join()
        if let failed = tearDown(screen), code == .success { code = failed }
        if let session { control.publish(session.snapshot, thread: threads) }
        if let problem = watch.output?.finish(watch.sinks(), watch.series()) { screen.showError(problem) }
        for output in own { if let problem = output.finish() { screen.showError(problem) } }
        return FinishedRun(watch: watch, code: code, screen: screen, control: control)
    }

    private func makeWatch(_ basis: Basis, _ control: RunControl, threads: Int) -> RunWatch {
        RunWatch(
            control: control, thresholds: basis.thresholds, registry: basis.registry, builtIn: basis.builtIn,
            scenarios: scenarios, progress: basis.progress, threads: threads, isRemote: fleet != nil,
            keepsSeries: keepsSeries)
    }

    /// What each agent is sent, but for its part.
    private func job(for fleet: AgentFleet) -> AgentJob {
        AgentJob(
            segment: segment, threads: options.threads ?? fleet.threads, seed: seed,
            path: session?.library.path ?? path, arguments: line.shipped, environment: fleet.environment,
            files: fleet.files.kept, data: session?.data, searchRate: searchRate)
    }

    /// Starts the thread that measures beside the load, if there is to be one; the flag ends it.
    private func startProbe(
        _ registry: MetricRegistry, _ builtIn: BuiltInMetrics, _ control: RunControl, thread: Int
    ) throws(RunProblem) -> (Thread?, Flag) {
        let isOver = Flag()
        guard let probeRate else { return (nil, isOver) }
        let address = addresses[0]
        do throws(SystemError) {
            let made = try Thread(name: "martlet-probe") {
                do throws(SystemError) {
                    let worker = try ProbeWorker(
                        address, rate: probeRate, registry, builtIn, control, thread: thread, until: isOver)
                    worker.run()
                } catch {
                    control.fail(RunFailure(code: .generic, message: "probe: \(error.description)"))
                }
            }
            return (made, isOver)
        } catch {
            throw RunProblem(.generic, "no more threads: \(error.description)")
        }
    }

    /// Starts what has each sample.
    func start(
        _ settings: [SampleOutputSettings], _ registry: MetricRegistry, _ builtIn: BuiltInMetrics
    ) throws(RunProblem) -> [SampleOutput] {
        do throws(SystemError) {
            return try settings.map { (one) throws(SystemError) in
                try SampleOutput(one, registry, builtIn, thresholds: options.thresholds ?? [])
            }
        } catch {
            throw RunProblem(.generic, "--out: \(error.description)")
        }
    }

    private func start(
        _ output: RemoteWriteSettings?, _ registry: MetricRegistry
    ) throws(RunProblem) -> RemoteWriteOutput? {
        do throws(SystemError) {
            return try output.map { (settings) throws(SystemError) in try RemoteWriteOutput(settings, registry) }
        } catch {
            throw RunProblem(.generic, error.description)
        }
    }

    /// Runs what the script has for the end, whatever became of the test behind its setup. Its code when it fails.
    private func tearDown(_ screen: ProgressScreen) -> ExitCode? {
        guard options.noTeardown != true else { return nil }
        do throws(RunProblem) {
            try session?.tearDown(limit: options.teardownTimeout ?? 60_000_000_000)
            return nil
        } catch {
            screen.showError(error.message)
            return error.code
        }
    }

    /// Makes room for the connections of all virtual users, as far as this process may.
    func raiseLimits(_ warn: (String) -> Void) {
        func most(_ scenarios: [Scenario]) -> [Int] { scenarios.map { segment.share(of: $0.plan.maximumUsers) } }
        let (users, scripts) = (most(native), most(scripted))
        let own = session?.connections(users: scripts.reduce(0, +), groups: assigned.count * scripted.count) ?? 0
        let connections = users.reduce(0, +) + own
        let count = UInt64(connections + 4 * (nativeThreads + assigned.count) + 64)
        let limit = ProcessControl.raiseDescriptorLimit(upTo: count)
        if limit < count {
            warn("\(count) descriptors may be needed, and \(limit) are allowed: see ulimit -n")
        }
    }

    /// The options that a script sees: what all places come to, and the scenario that shortcuts describe. Scenarios
    /// that the script has itself are as it wrote them.
    var shownOptions: String {
        guard let session else { return "{}" }
        var own = session.optionFields
        if own["scenarios"] == nil || options.scenarios == nil || options.isOverridden {
            let list = scenarios.map { "\(JSONString.quoted($0.name)):\($0.json)" }.joined(separator: ",")
            own["scenarios"] = "{\(list)}"
        }
        return options.json(own)
    }

    private func scriptSetup(
        _ registry: MetricRegistry, _ builtIn: BuiltInMetrics, _ progress: [ScenarioProgress],
        _ outputs: [SampleOutput]
    ) -> ScriptSetup? {
        guard let session, !scripted.isEmpty else { return nil }
        for (index, one) in progress.enumerated() {
            let first = segment.share(of: scripted[index].plan.initialUsers)
            for _ in 0..<first { _ = one.makeUser(limit: .max) }
        }
        return ScriptSetup(
            library: session.library, scenarios: scripted, progress: progress, registry: registry, builtIn: builtIn,
            servers: servers, tls: options.tls, environment: session.environment, options: shownOptions,
            minIterationDuration: options.minIterationDuration ?? 0, data: session.data,
            isDedicated: session.library.canSleep, seed: options.seed, tags: options.tags ?? [:],
            outputs: outputs, log: log, systemTags: options.systemTags ?? .all,
            throwsErrors: options.throwsErrors ?? false, tlsRules: options.tlsRules, keepsSeries: keepsSeries,
            requestCap: requestCap)
    }

    private func start(
        _ setup: NativeSetup, _ scripts: ScriptSetup?, _ control: RunControl
    ) throws(RunProblem) -> [Thread] {
        var running: [Thread] = []
        do throws(SystemError) {
            for index in 0..<nativeThreads {
                running.append(
                    try Thread(name: "martlet-l\(index)") {
                        do throws(SystemError) {
                            var worker = try NativeWorker(setup, thread: index, control: control)
                            worker.run()
                        } catch {
                            control.fail(RunFailure(code: .generic, message: error.description))
                            control.noteEnd()
                        }
                    })
            }
            for (index, users) in assigned.enumerated() {
                guard let scripts else { break }
                let thread = nativeThreads + index
                running.append(
                    try Thread(name: "martlet-s\(index)") {
                        do throws(ScriptProblem) {
                            try ScriptWorker(scripts, control, thread: thread).run(users)
                        } catch {
                            control.fail(RunFailure(code: .scriptException, message: error.description))
                            control.noteEnd()
                        }
                    })
            }
        } catch {
            control.fail(RunFailure(code: .generic, message: "no more threads: \(error.description)"))
            for thread in running { thread.join() }
            throw RunProblem(.generic, "no more threads: \(error.description)")
        }
        return running
    }
}

/// What is left of a test that has run.
struct FinishedRun {
    var watch: RunWatch
    /// Why it ended before its time, or success.
    var code: ExitCode
    var screen: ProgressScreen
    var control: RunControl
    /// What was wrong with setup, which let nothing begin; nil when nothing was.
    var setupProblem: String?
}
