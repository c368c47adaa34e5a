// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import Platform
internal import Settings

extension TestRun {
    /// Shows and writes what the test came to. Returns the exit code: the run's own when that is none of success.
    func conclude(_ done: FinishedRun, _ screen: inout ProgressScreen) -> ExitCode {
        let (watch, control) = (done.watch, done.control)
        var result = watch.result()
        result.verdicts = watch.thresholds.evaluate(result.sinks, seconds: result.seconds)
        screen.showWarnings(watch.warnings())
        if result.series.leftOut > 0 {
            screen.showWarning(
                "there are more than \(SeriesTable.limit) different sets of tags: "
                    + "\(result.series.leftOut) samples are in no series")
        }
        screen.endProgress()
        // What Prometheus got by tags is not told again, unless that is asked for.
        if options.summaryMode != .full { result.series = SeriesTable() }
        if let problem = done.setupProblem {
            screen.showError(problem)
        } else if let failure = control.failed, control.startTime == 0 {
            screen.showError(failure.message)
            return failure.code
        }
        if let fleet, !screen.isQuiet { screen.showNote("\(fleet.count) agents, \(fleet.clockNote)") }
        let stats = options.summaryTrendStats ?? TestResult.trendStats
        if options.summaryMode != .disabled { summarise(result, stats, screen) }
        screen.showEnd(nanoseconds: result.nanoseconds)
        if options.summaryMode != .disabled, let path = line.setting("summary-export", environment) {
            screen.write(file: path, Array(SummaryExport(result, trendStats: stats).file.utf8))
        }
        if let report = line.last("report") {
            let page = ReportPage(
                result: result, series: watch.points, title: "Load test: \(path)", facts: facts(result),
                trendStats: stats)
            screen.write(file: report, Array(page.text.utf8))
        }
        if let failure = control.failed { screen.showError(failure.message) }
        if done.code != .success { return done.code }
        if let reason = control.markedFailed ?? session?.markedFailed {
            screen.showError("the script marked the test as failed: \(reason)")
            return .markedFailed
        }
        if result.hasFailed {
            let names = Set(result.verdicts.filter { !$0.isPassed }.map { result.registry.name($0.place) })
            screen.showError("thresholds on metrics '\(names.sorted().joined(separator: ", "))' have been crossed")
            return .thresholds
        }
        return .success
    }

    /// What the report says of the run, by names.
    private func facts(_ result: TestResult) -> [(String, String)] {
        let begin = Clock.realtimeNanoseconds() - min(Clock.realtimeNanoseconds(), result.nanoseconds)
        var facts = [
            ("date", SampleText.date(begin, decimals: false)), ("script", path),
            ("scenarios", scenarios.map { "\($0.name): \($0.summary)" }.joined(separator: "; ")),
            ("servers", zip(servers, addresses).map { describe($0, $1) }.joined(separator: ", ")),
            ("martlet-load", "version \(LoadProgram.version), seed \(seed)"),
            ("duration", NumberText.duration(milliseconds: result.seconds * 1000)),
            ("machine", MachineFacts.text),
            ("latency", "from the intended start of each request; service time from when it was sent"),
        ]
        if let tags = options.tags, !tags.isEmpty {
            let list = tags.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            facts.append(("tags", list.joined(separator: ", ")))
        }
        if let fleet { facts.append(("agents", "\(fleet.names.joined(separator: ", ")); \(fleet.clockNote)")) }
        return facts
    }

    /// A server and the version it says that it has.
    private func describe(_ name: String, _ address: ServerAddress) -> String {
        ServerVersion.ask(address).map { "\(name) (version \($0))" } ?? "\(name) (version not known)"
    }

    /// The summary: what the script's handleSummary makes of it, or the usual text.
    private func summarise(_ result: TestResult, _ stats: [String], _ screen: ProgressScreen) {
        let shown = SummaryData(result, trendStats: stats, timeUnit: options.summaryTimeUnit)
        let usual = SummaryText(shown, isColored: screen.isColored)
        func text(_ data: JSONNode, _ isColored: Bool) throws(OptionProblem) -> String {
            SummaryText(try SummaryData(data, original: shown), isColored: isColored).text
        }
        let isTerminal = ProcessControl.isTerminal(1) ? "true" : "false"
        let state =
            "{\"isStdOutTTY\":\(isTerminal),\"isStdErrTTY\":\(ProcessControl.isTerminal(2) ? "true" : "false"),"
            + "\"testRunDurationMs\":\(NumberText.json(Double(result.nanoseconds) / 1e6))}"
        let unit = JSONString.quoted(options.summaryTimeUnit ?? "")
        let given =
            "{\"summaryTrendStats\":[\(stats.map { JSONString.quoted($0) }.joined(separator: ","))],"
            + "\"summaryTimeUnit\":\(unit),\"noColor\":\(screen.isColored ? "false" : "true")}"
        let data = SummaryExport(result, trendStats: stats).scriptData(
            options: given, state: state, setupData: session?.setupData)
        do throws(RunProblem) {
            let limit = options.handleSummaryTimeout ?? 120_000_000_000
            guard let targets = try session?.summarise(data, limit: limit, text: text) else {
                writeWhole(Array(usual.text.utf8), to: 1)
                return
            }
            for (target, content) in targets {
                switch target {
                case "stdout": writeWhole(content, to: 1)
                case "stderr": writeWhole(content, to: 2)
                default: screen.write(file: target, content)
                }
            }
        } catch {
            screen.showError(error.message)
            writeWhole(Array(usual.text.utf8), to: 1)
        }
    }
}
