// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The summary at the end of a test, as k6 shows it.
package struct SummaryText {
    private let data: SummaryData
    private let isColored: Bool

    /// Of `data`.
    package init(_ data: SummaryData, isColored: Bool = false) {
        self.data = data
        self.isColored = isColored
    }

    /// For `result`, trends with these figures, in milliseconds, seconds or microseconds where `timeUnit` says so.
    package init(_ result: TestResult, trendStats: [String], timeUnit: String? = nil, isColored: Bool = false) {
        self.init(SummaryData(result, trendStats: trendStats, timeUnit: timeUnit), isColored: isColored)
    }

    private struct Row {
        var name: String
        var indent = 0
        var columns: [String]
        var isTrend = false
    }

    /// The whole text, with a line end at its end.
    package var text: String {
        var lines: [String] = [""]
        if data.metrics.contains(where: { !$0.conditions.isEmpty }) { lines += thresholds() }
        lines += ["", "  \(bold("█ TOTAL RESULTS")) ", ""] + results()
        for section in data.sections {
            lines += ["", "  \(bold("█ SCENARIO: \(section.title)")) ", ""]
            lines += SummaryText(section.data, isColored: isColored).results()
            for group in section.data.sections {
                lines += ["    \(bold("↳ GROUP: \(group.title)")) ", ""]
                let inner = SummaryText(group.data, isColored: isColored).results()
                lines += inner.map { $0.isEmpty ? "" : "  " + $0 }
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// Checks and metrics, without what stands above them.
    private func results() -> [String] {
        var lines: [String] = []
        let made = data.checks.totals
        if made.passes + made.fails > 0 { lines += checks() }
        let sections = sections()
        let all = sections.flatMap(\.rows)
        let width = all.map { $0.indent + $0.name.count }.max() ?? 0
        let layout = Layout(all, columns: data.trendStats.count)
        for section in sections where !section.rows.isEmpty {
            lines.append("    \(bold(section.title))")
            lines += section.rows.map { line($0, width, layout) }
            lines.append("")
        }
        return lines
    }

    // MARK: Thresholds

    private func thresholds() -> [String] {
        var lines = ["", "  \(bold("█ THRESHOLDS")) "]
        for metric in data.metrics where !metric.conditions.isEmpty {
            lines += ["", "    \(metric.name)"]
            for condition in metric.conditions {
                let mark = condition.isPassed ? green("✓") : red("✗")
                let figure = condition.value.map { show($0, metric, condition.figure) } ?? "no samples"
                let shown = condition.figure.isEmpty ? "" : " \(condition.figure)=\(figure)"
                lines.append("    \(mark) '\(condition.source)'\(shown)")
            }
        }
        return lines + [""]
    }

    private func show(_ figure: Double, _ metric: SummaryData.Metric, _ name: String) -> String {
        switch metric.kind {
        case .rate: return NumberText.fixed(figure * 100, 2) + "%"
        case .counter where name == "rate": return NumberText.short(figure, 6) + "/s"
        default: return value(figure, metric.content)
        }
    }

    // MARK: Checks

    private func checks() -> [String] {
        var lines: [String] = []
        if let values = data.metrics.first(where: { $0.name == "checks" })?.values {
            let (passes, fails) = (values["passes"] ?? 0, values["fails"] ?? 0)
            let total = passes + fails
            func share(_ part: Double) -> String {
                let percent = NumberText.fixed(total == 0 ? 0 : part / total * 100, 2)
                return "\(percent)% \(NumberText.short(part, 0)) out of \(NumberText.short(total, 0))"
            }
            guard total > 0 else { return [] }
            let rate = NumberText.short(data.seconds > 0 ? total / data.seconds : 0, 6)
            lines += [
                "    checks_total.......: \(NumberText.short(total, 0)) \(rate)/s",
                "    checks_succeeded...: \(share(passes))", "    checks_failed......: \(share(fails))", "",
            ]
        }
        appendChecks(data.checks, indent: 4, &lines)
        if lines.last != "" { lines.append("") }
        return lines
    }

    private func appendChecks(_ group: CheckGroup, indent: Int, _ lines: inout [String]) {
        let space = String(repeating: " ", count: indent)
        for check in group.checks {
            if check.fails == 0 {
                lines.append("\(space)\(green("✓")) \(check.name)")
            } else {
                let percent = check.passes * 100 / (check.passes + check.fails)
                lines.append("\(space)\(red("✗")) \(check.name)")
                lines.append("\(space)  ↳  \(percent)% — ✓ \(check.passes) / ✗ \(check.fails)")
            }
        }
        for one in group.groups where !one.isEmpty {
            if lines.last != "" { lines.append("") }
            lines += ["\(space)█ \(one.name)", ""]
            appendChecks(one, indent: indent + 2, &lines)
        }
    }

    // MARK: Metrics

    private static let execution: Set = [
        "iteration_duration", "iterations", "dropped_iterations", "vus", "vus_max", "group_duration",
    ]
    private static let network: Set = ["data_sent", "data_received"]

    private func sections() -> [(title: String, rows: [Row])] {
        var tables: [(title: String, metrics: [SummaryData.Metric])] = [
            ("CUSTOM", []), ("MEMCACHED", []), ("EXECUTION", []), ("NETWORK", []),
        ]
        let names = Set(data.metrics.map(\.name))
        for metric in data.metrics where metric.name != "checks" {
            // A part stands below its metric, or alone when that is not shown.
            if metric.tags != nil, names.contains(metric.base) { continue }
            let base = metric.base
            let table =
                base.hasPrefix("memcached_")
                ? 1 : Self.execution.contains(base) ? 2 : Self.network.contains(base) ? 3 : 0
            tables[table].metrics.append(metric)
        }
        return tables.map { table in
            (table.title, table.metrics.sorted { $0.name < $1.name }.flatMap { rows($0) })
        }
    }

    private func rows(_ metric: SummaryData.Metric) -> [Row] {
        var rows = [Row(name: metric.name, columns: columns(metric), isTrend: metric.kind == .trend)]
        guard metric.tags == nil else { return rows }
        let parts = data.metrics.filter { $0.tags != nil && $0.base == metric.name }
        for part in parts.sorted(by: { $0.name < $1.name }) {
            rows.append(
                Row(name: "{ \(part.tags ?? "") }", indent: 2, columns: columns(part), isTrend: rows[0].isTrend))
        }
        return rows
    }

    private func columns(_ metric: SummaryData.Metric) -> [String] {
        let content = metric.content
        func figure(_ name: String) -> Double { metric.values[name] ?? 0 }
        switch metric.kind {
        case .counter:
            let rate = figure("rate")
            if content == .data { return [value(figure("count"), content), "\(value(rate, content))/s"] }
            return [value(figure("count"), content), "\(NumberText.short(rate, 6))/s"]
        case .gauge:
            return [
                value(figure("value"), content), "min=\(value(figure("min"), content))",
                "max=\(value(figure("max"), content))",
            ]
        case .rate:
            let (passes, fails) = (figure("passes"), figure("fails"))
            return [
                NumberText.fixed(figure("rate") * 100, 2) + "%",
                "\(NumberText.short(passes, 0)) out of \(NumberText.short(passes + fails, 0))",
            ]
        case .trend:
            return data.trendStats.map { name in
                "\(name)=\(name == "count" ? NumberText.short(figure(name), 0) : value(figure(name), content))"
            }
        }
    }

    private func value(_ number: Double, _ content: MetricContent) -> String {
        switch content {
        case .time: NumberText.duration(milliseconds: number, unit: data.timeUnit)
        case .data: NumberText.bytes(number)
        case .plain: NumberText.short(number, 6)
        }
    }

    // MARK: Layout

    /// How wide columns are: those of trends among themselves, and the first two of the others.
    private struct Layout {
        var trend: [Int]
        var other = [0, 0, 0]

        init(_ rows: [Row], columns: Int) {
            trend = Array(repeating: 0, count: columns)
            for row in rows {
                for (index, column) in row.columns.enumerated() {
                    if row.isTrend, index < trend.count {
                        trend[index] = max(trend[index], column.count)
                    } else if !row.isTrend {
                        other[index] = max(other[index], column.count)
                    }
                }
            }
        }
    }

    private func line(_ row: Row, _ width: Int, _ layout: Layout) -> String {
        let dots = String(repeating: ".", count: width - row.indent - row.name.count + 3)
        let widths = row.isTrend ? layout.trend : layout.other
        let columns = row.columns.enumerated().map { index, column in
            index == row.columns.count - 1
                ? column : column + String(repeating: " ", count: max(0, widths[index] - column.count))
        }
        return String(repeating: " ", count: 4 + row.indent) + row.name + faint(dots) + ": "
            + cyan(columns.joined(separator: " "))
    }

    private func paint(_ text: String, _ code: String) -> String {
        isColored ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text
    }
    private func bold(_ text: String) -> String { paint(text, "1") }
    private func faint(_ text: String) -> String { paint(text, "2") }
    private func green(_ text: String) -> String { paint(text, "32") }
    private func red(_ text: String) -> String { paint(text, "31") }
    private func cyan(_ text: String) -> String { paint(text, "36") }
}
