// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The summary at the end of a test, as k6 shows it.
package struct SummaryText {
    private let result: TestResult
    private let trendStats: [String]
    private let timeUnit: String?
    private let isColored: Bool

    /// For `result`, trends with these figures, in milliseconds, seconds or microseconds where `timeUnit` says so.
    package init(_ result: TestResult, trendStats: [String], timeUnit: String? = nil, isColored: Bool = false) {
        self.result = result
        self.trendStats = trendStats
        self.timeUnit = timeUnit
        self.isColored = isColored
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
        if !result.verdicts.isEmpty { lines += thresholds() }
        lines += ["", "  \(bold("█ TOTAL RESULTS")) ", ""]
        if !result.checks.isEmpty, result.sinks[result.builtIn.checks].samples > 0 { lines += checks() }
        let sections = sections()
        let all = sections.flatMap(\.rows)
        let width = all.map { $0.indent + $0.name.count }.max() ?? 0
        let layout = Layout(all, columns: trendStats.count)
        for section in sections where !section.rows.isEmpty {
            lines.append("    \(bold(section.title))")
            lines += section.rows.map { line($0, width, layout) }
            lines.append("")
        }
        return lines.joined(separator: "\n") + "\n"
    }

    // MARK: Thresholds

    private func thresholds() -> [String] {
        var lines = ["", "  \(bold("█ THRESHOLDS")) "]
        var shown = -1
        for verdict in result.verdicts {
            if verdict.place != shown {
                lines += ["", "    \(result.registry.name(verdict.place))"]
                shown = verdict.place
            }
            let mark = verdict.isPassed ? green("✓") : red("✗")
            let threshold = verdict.threshold
            let figure = verdict.figure.map { show($0, verdict.place, threshold.figure) } ?? "no samples"
            lines.append("    \(mark) '\(threshold.source)' \(threshold.figure)=\(figure)")
        }
        return lines + [""]
    }

    private func show(_ figure: Double, _ place: Int, _ name: String) -> String {
        let definition = result.registry.definition(place)
        switch definition.kind {
        case .rate: return NumberText.fixed(figure * 100, 2) + "%"
        case .counter where name == "rate": return NumberText.short(figure, 6) + "/s"
        default: return value(figure, definition.content)
        }
    }

    // MARK: Checks

    private func checks() -> [String] {
        let sink = result.sinks[result.builtIn.checks]
        let (passes, total) = (sink.passes, sink.samples)
        func share(_ part: UInt64) -> String {
            "\(NumberText.fixed(total == 0 ? 0 : Double(part) / Double(total) * 100, 2))% \(part) out of \(total)"
        }
        let rate = NumberText.short(result.seconds > 0 ? Double(total) / result.seconds : 0, 6)
        var lines = [
            "    checks_total.......: \(total) \(rate)/s", "    checks_succeeded...: \(share(passes))",
            "    checks_failed......: \(share(total - passes))", "",
        ]
        appendChecks(result.checks, indent: 4, &lines)
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

    private func sections() -> [(title: String, rows: [Row])] {
        let built = result.builtIn
        let memcached: Set = [
            built.requestDuration, built.requestService, built.requests, built.requestFailed, built.hits,
            built.connecting, built.connectFailed, built.sheds, built.wrongValues,
        ]
        let execution: Set = [
            built.iterationDuration, built.iterations, built.droppedIterations, built.vus, built.vusMax,
            built.groupDuration,
        ]
        let network: Set = [built.dataSent, built.dataReceived]
        var tables: [(title: String, places: [Int])] = [
            ("CUSTOM", []), ("MEMCACHED", []), ("EXECUTION", []), ("NETWORK", []),
        ]
        for place in result.sinks.indices where place != built.checks {
            guard case .metric = result.registry.places[place], !result.sinks[place].isEmpty else { continue }
            let table =
                memcached.contains(place) ? 1 : execution.contains(place) ? 2 : network.contains(place) ? 3 : 0
            tables[table].places.append(place)
        }
        return tables.map { table in
            let sorted = table.places.sorted { result.registry.name($0) < result.registry.name($1) }
            return (table.title, sorted.flatMap { rows($0) })
        }
    }

    private func rows(_ place: Int) -> [Row] {
        var rows = [Row(name: result.registry.name(place), columns: columns(place))]
        rows[0].isTrend = result.sinks[place].kind == .trend
        for part in result.registry.parts(of: place) where !result.sinks[part].isEmpty {
            let name = result.registry.name(part)
            let tags = name.drop { $0 != "{" }.dropFirst().dropLast()
            rows.append(Row(name: "{ \(tags) }", indent: 2, columns: columns(part), isTrend: rows[0].isTrend))
        }
        return rows
    }

    private func columns(_ place: Int) -> [String] {
        let sink = result.sinks[place]
        let content = result.registry.definition(place).content
        switch sink.kind {
        case .counter:
            let rate = result.seconds > 0 ? sink.value / result.seconds : 0
            if content == .data { return [value(sink.value, content), "\(value(rate, content))/s"] }
            return [value(sink.value, content), "\(NumberText.short(rate, 6))/s"]
        case .gauge:
            return [
                value(sink.value, content), "min=\(value(sink.minimum, content))",
                "max=\(value(sink.maximum, content))",
            ]
        case .rate: return [NumberText.fixed(sink.rate * 100, 2) + "%", "\(sink.passes) out of \(sink.samples)"]
        case .trend:
            return trendStats.map { name in
                let figure = sink.figure(name, seconds: 0) ?? 0
                return "\(name)=\(name == "count" ? NumberText.short(figure, 0) : value(figure, content))"
            }
        }
    }

    private func value(_ number: Double, _ content: MetricContent) -> String {
        switch content {
        case .time: NumberText.duration(milliseconds: number, unit: timeUnit)
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
