// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import Platform

extension TestRun {
    /// Shows and writes what the test came to. Returns the exit code: `code` when that is none of success.
    func conclude(
        _ watch: RunWatch, _ code: ExitCode, _ screen: inout ProgressScreen, _ control: RunControl
    ) -> ExitCode {
        var result = watch.result()
        result.verdicts = watch.thresholds.evaluate(result.sinks, seconds: result.seconds)
        screen.showWarnings(watch.warnings())
        if let failure = control.failed, control.startTime == 0 {
            screen.showError(failure.message)
            return failure.code
        }
        if let fleet, !screen.isQuiet { screen.showNote("\(fleet.count) agents, \(fleet.clockNote)") }
        let code = summarise(result, code, screen)
        screen.showEnd(nanoseconds: result.nanoseconds)
        let stats = options.summaryTrendStats ?? TestResult.trendStats
        if let path = line.last("summary-export") ?? Environment.value("K6_SUMMARY_EXPORT") {
            screen.write(file: path, Array(SummaryExport(result, trendStats: stats).file.utf8))
        }
        if let report = line.last("report") {
            var facts = [
                ("script", path), ("servers", servers.joined(separator: ", ")), ("seed", "\(seed)"),
                ("duration", NumberText.duration(milliseconds: result.seconds * 1000)),
                ("processors", "\(ProcessControl.processors)"),
                ("latency", "from the intended start of each request; service time from when it was sent"),
            ]
            if let fleet { facts.append(("agents", "\(fleet.names.joined(separator: ", ")); \(fleet.clockNote)")) }
            let page = ReportPage(
                result: result, series: watch.series, title: "Load test: \(path)", facts: facts, trendStats: stats)
            screen.write(file: report, Array(page.text.utf8))
        }
        if let failure = control.failed { screen.showError(failure.message) }
        if code != .success { return code }
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

    /// The summary: what the script's handleSummary makes of it, or the usual text.
    private func summarise(_ result: TestResult, _ code: ExitCode, _ screen: ProgressScreen) -> ExitCode {
        let stats = options.summaryTrendStats ?? TestResult.trendStats
        func text(_ isColored: Bool) -> String {
            SummaryText(result, trendStats: stats, timeUnit: options.summaryTimeUnit, isColored: isColored).text
        }
        if options.noSummary == true { return code }
        let isTerminal = ProcessControl.isTerminal(1) ? "true" : "false"
        let state =
            "{\"isStdOutTTY\":\(isTerminal),\"isStdErrTTY\":\(ProcessControl.isTerminal(2) ? "true" : "false"),"
            + "\"testRunDurationMs\":\(NumberText.json(Double(result.nanoseconds) / 1e6))}"
        let unit = JSONString.quoted(options.summaryTimeUnit ?? "")
        let shown =
            "{\"summaryTrendStats\":[\(stats.map { JSONString.quoted($0) }.joined(separator: ","))],"
            + "\"summaryTimeUnit\":\(unit),\"noColor\":\(screen.isColored ? "false" : "true")}"
        let data = SummaryExport(result, trendStats: stats).scriptData(options: shown, state: state)
        do throws(RunProblem) {
            let limit = options.handleSummaryTimeout ?? 120_000_000_000
            guard let targets = try session?.summarise(data, limit: limit, text: text) else {
                writeWhole(Array(text(screen.isColored).utf8), to: 1)
                return code
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
            writeWhole(Array(text(screen.isColored).utf8), to: 1)
        }
        return code
    }
}
