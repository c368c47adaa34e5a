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

    private struct Trial {
        var rate: Double
        /// Milliseconds.
        var value: Double
        var failed: Double
        var dropped: Double
        var isKept: Bool

        var json: String {
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

    /// A search of the one scenario that the test comes to.
    init(
        _ line: LoadCommandLine, _ test: PreparedTest, _ objective: String, _ fleet: AgentFleet?
    ) throws(OptionProblem) {
        self.line = line
        self.fleet = fleet
        self.objective = try SearchObjective(objective)
        for name in ["out", "report"] where line.has(name) {
            throw OptionProblem("--search: --\(name) is of one test; --json prints the trials of a search")
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
        return PreparedTest(test, options)
    }

    private func say(_ text: String) { writeWhole(Array("\(text)\n".utf8), to: isJSON ? 2 : 1) }

    /// Makes the trials. Returns k6's exit code: a failed threshold's when no rate keeps the objective.
    func run() throws(RunProblem) -> ExitCode {
        var search = RateSearch(start: firstRate)
        var trials: [Trial] = []
        say("searching the highest rate that keeps \(objective.source), \(NumberText.span(trialNanoseconds)) a trial")
        while let rate = search.next {
            let (trial, code) = try self.trial(rate)
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

    private func trial(_ rate: Double) throws(RunProblem) -> (Trial, ExitCode) {
        let run: TestRun
        do throws(OptionProblem) {
            run = try TestRun(line, test(at: rate), fleet: fleet, searchRate: rate)
        } catch {
            throw RunProblem(.invalidOptions, error.description)
        }
        let done = try run.perform(OutputSettings(), isQuiet: true)
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
