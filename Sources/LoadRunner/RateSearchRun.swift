// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import Platform

/// `--search`: makes trials of a test at different rates, and says the highest that keeps an objective.
struct RateSearchRun {
    /// What a trial is not kept with, whatever its latencies: a larger share of requests that failed, or of arrivals
    /// that were dropped.
    private static let shareLimit = 0.001
    private static let trialNanoseconds: UInt64 = 5_000_000_000
    private static let firstRate = 1000.0

    /// What one trial came to.
    struct Trial {
        var rate: Double
        /// Milliseconds.
        var value: Double
        var failed: Double
        var dropped: Double
        var isKept: Bool

        fileprivate var json: String {
            "{\"rate\":\(NumberText.json(rate)),\"value\":\(NumberText.json(value)),"
                + "\"failed\":\(NumberText.json(failed)),\"dropped\":\(NumberText.json(dropped)),\"kept\":\(isKept)}"
        }
    }

    private let line: LoadCommandLine
    private let test: PreparedTest
    private let fleet: AgentFleet?
    private let objective: SearchObjective
    private let scenario: Scenario
    private let users: ArrivalUsers
    private let firstRate: Double
    private let trialNanoseconds: UInt64
    private let isJSON: Bool
    private let environment: [String: String]

    /// The tag of a trial's samples: its rate.
    static let rateTag = "search_rate"

    /// A search of the one scenario that the test comes to.
    init(
        _ line: LoadCommandLine, _ test: PreparedTest, _ objective: String, _ fleet: AgentFleet?,
        _ environment: [String: String]
    ) throws(OptionProblem) {
        self.line = line
        self.fleet = fleet
        self.objective = try SearchObjective(objective)
        self.environment = environment
        let outputs = try OutputSettings(line, environment, tags: [:])
        guard fleet == nil || outputs.samples.isEmpty else { throw OptionProblem(OutputSettings.agentsReason) }
        for one in outputs.samples where one.file.isEmpty || one.file == "-" {
            throw OptionProblem("--search: --out needs a file: what the search says is on standard output")
        }
        isJSON = line.has("json")
        let scenarios = try test.options.resolvedScenarios()
        guard scenarios.count == 1 else {
            throw OptionProblem("--search: expected one scenario, not \(scenarios.count)")
        }
        var scenario = scenarios[0]
        let most = scenario.plan.maximumUsers
        switch scenario.plan {
        case .trace: throw OptionProblem("--search: a trace has its own rate")
        case .constantArrivals(let rate, _, let own): (firstRate, users) = (rate, own)
        case .rampingArrivals(_, _, let own): (firstRate, users) = (Self.firstRate, own)
        default:
            var own = ArrivalUsers(preallocated: most, maximum: most)
            own.spacing = .poisson
            (firstRate, users) = (Self.firstRate, own)
        }
        var time = Self.trialNanoseconds
        if let text = line.last("search-time") {
            guard let given = GoDuration.parse(text), given >= 100_000_000 else {
                throw OptionProblem("--search-time \(text): expected a duration of 100ms and more")
            }
            time = given
        }
        trialNanoseconds = time
        scenario.gracefulStop = 1_000_000_000
        scenario.startTime = 0
        self.scenario = scenario
        var one = test.options
        (one.vus, one.duration, one.iterations, one.stages) = (nil, nil, nil, nil)
        one.isOverridden = false
        if one.noThresholds != true, let thresholds = one.thresholds, !thresholds.isEmpty {
            test.log.write(.warning, "--search: thresholds are not looked at; the objective is what a trial keeps")
        }
        if line.has("summary-export") {
            test.log.write(.warning, "--search: no summary is exported; --json prints the trials")
        }
        one.noThresholds = true
        self.test = PreparedTest(test, one)
    }

    /// The test at `rate` iterations a second.
    func test(at rate: Double) -> PreparedTest {
        var one = scenario
        one.plan = .constantArrivals(rate: rate, duration: trialNanoseconds, users: users)
        var options = test.options
        options.scenarios = [one]
        options.tags = tags(rate)
        return PreparedTest(test, options)
    }

    private func tags(_ rate: Double) -> [String: String] {
        (test.options.tags ?? [:]).merging([Self.rateTag: NumberText.short(rate, 1)]) { $1 }
    }

    private func say(_ text: String) { writeWhole(Array("\(text)\n".utf8), to: isJSON ? 2 : 1) }

    /// Makes the trials. Returns k6's exit code: a failed threshold's when no rate keeps the objective.
    func run() throws(RunProblem) -> ExitCode {
        var search = RateSearch(start: firstRate)
        var trials: [Trial] = []
        var outputs: [SampleOutput]?
        defer { for output in outputs ?? [] { if let problem = output.finish() { test.log.write(.error, problem) } } }
        let began = Clock.realtimeNanoseconds()
        say("searching the highest rate that keeps \(objective.source), \(NumberText.span(trialNanoseconds)) a trial")
        while let rate = search.next {
            let (trial, code) = try self.trial(rate, &outputs)
            guard code == .success else { return code }
            trials.append(trial)
            search.note(isKept: trial.isKept)
            let value = NumberText.duration(milliseconds: trial.value)
            say(
                "\(padded(NumberText.short(rate, 1), 12))/s  \(objective.figure) \(padded(value, 9))  "
                    + "failed \(NumberText.fixed(trial.failed * 100, 2))%  "
                    + "dropped \(NumberText.fixed(trial.dropped * 100, 2))%  \(trial.isKept ? "kept" : "not kept")")
        }
        if let best = search.best {
            say("the highest rate that keeps \(objective.source): \(NumberText.short(best, 1))/s")
        } else {
            say("no rate keeps \(objective.source)")
        }
        if let path = line.last("report") { write(page(trials, search.best, began), path) }
        if isJSON {
            let rate = search.best.map { NumberText.json($0) } ?? "null"
            let list = trials.map(\.json).joined(separator: ",")
            let text =
                "{\"objective\":\(JSONString.quoted(objective.source)),\"metric\":\"\(metric)\",\"rate\":\(rate),"
                + "\"trials\":[\(list)]}\n"
            writeWhole(Array(text.utf8), to: 1)
        }
        return search.best == nil ? .thresholds : .success
    }

    private func padded(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    private var metric: String { line.has("probe") ? "memcached_probe_duration" : "memcached_req_duration" }

    private func page(_ trials: [Trial], _ best: Double?, _ began: UInt64) -> SearchPage {
        SearchPage(
            title: "Rate search: \(test.path)", objective: objective, metric: metric, best: best, trials: trials,
            facts: [
                ("date", SampleText.date(began, decimals: false)), ("script", test.path),
                ("scenario", "\(scenario.name): \(scenario.summary)"),
                ("servers", (test.options.servers ?? ["127.0.0.1:11211"]).joined(separator: ", ")),
                ("trials", "\(trials.count) of \(NumberText.span(trialNanoseconds)) each"),
                ("kept", "no more than one in a thousand requests fail or arrivals are dropped"),
                ("martlet-load", "version \(LoadProgram.version)"), ("machine", MachineFacts.text),
            ])
    }

    private func write(_ page: SearchPage, _ path: String) {
        do throws(SystemError) {
            try writeFile(path, Array(page.text.utf8))
        } catch {
            test.log.write(.error, "\(path): \(error.reason)")
        }
    }

    /// Makes a trial; the first one starts `outputs`, which go on through all of them.
    private func trial(_ rate: Double, _ outputs: inout [SampleOutput]?) throws(RunProblem) -> (Trial, ExitCode) {
        let run: TestRun
        let settings: OutputSettings
        do throws(OptionProblem) {
            settings = try OutputSettings(line, environment, tags: tags(rate))
            run = try TestRun(
                line, test(at: rate), fleet: fleet, searchRate: rate, keepsSeries: settings.remote != nil)
        } catch {
            throw RunProblem(.invalidOptions, error.description)
        }
        if outputs == nil {
            let basis = try run.makeBasis()
            outputs = try run.start(settings.samples, basis.registry, basis.builtIn)
        }
        let done = try run.perform(settings.continuing(outputs ?? []), isQuiet: true)
        if let failure = done.control.failed { throw RunProblem(failure.code, failure.message) }
        if let problem = done.setupProblem { throw RunProblem(done.code, problem) }
        let result = done.watch.result()
        done.screen.showWarnings(done.watch.warnings())
        let builtIn = result.builtIn
        let measured = result.sinks[line.has("probe") ? builtIn.probeDuration : builtIn.requestDuration]
        let value = measured.figure(objective.figure, seconds: result.seconds) ?? 0
        let dropped = Double(result.sinks[builtIn.droppedIterations].samples)
        let arrivals = max(1, dropped + Double(result.sinks[builtIn.iterations].samples))
        let failed = result.sinks[builtIn.requestFailed].rate
        var trial = Trial(rate: rate, value: value, failed: failed, dropped: dropped / arrivals, isKept: false)
        trial.isKept =
            !measured.isEmpty && value < objective.limitMilliseconds && failed <= Self.shareLimit
            && trial.dropped <= Self.shareLimit
        return (trial, done.code)
    }
}
