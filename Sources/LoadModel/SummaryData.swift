// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Settings

/// What a summary shows: of a test's result, or of what a script's handleSummary made of it.
package struct SummaryData: Sendable {
    /// A condition on a metric.
    package struct Condition: Sendable, Equatable {
        /// As it was written.
        package let source: String
        /// The name of its figure; empty when nothing is known of it.
        package let figure: String
        /// The figure; nil when nothing was gathered, or it is not known.
        package let value: Double?
        /// Whether it holds.
        package let isPassed: Bool
    }

    /// A metric, or the part of one that tags name.
    package struct Metric: Sendable {
        /// `name`, or `name{key:value}`.
        package let name: String
        /// What it makes of its samples.
        package let kind: MetricKind
        /// What its numbers are.
        package let content: MetricContent
        /// Its figures by the names of k6's summaries.
        package let values: [String: Double]
        /// The conditions on it.
        package let conditions: [Condition]

        /// The metric's name without tags.
        var base: String { String(name.prefix { $0 != "{" }) }
        /// What stands between the braces; nil of a whole metric.
        var tags: String? {
            base.count == name.count ? nil : String(name.dropFirst(base.count + 1).dropLast())
        }
    }

    /// A scenario or a group of one, for the summary that has them all.
    package struct Section: Sendable {
        /// Its name.
        package let title: String
        /// What it came to.
        package var data: SummaryData
    }

    /// The metrics and parts that are shown.
    package var metrics: [Metric] = []
    /// The script's checks.
    package var checks = CheckGroup()
    /// How long the scenarios ran.
    package var seconds = 0.0
    /// The columns of trends.
    package var trendStats = TestResult.trendStats
    /// `s`, `ms` or `us`; nil for what fits.
    package var timeUnit: String?
    /// Scenarios, and in each of them its groups.
    package var sections: [Section] = []

    /// Nothing.
    package init() {}

    /// What `result` came to, trends with these figures.
    package init(_ result: TestResult, trendStats: [String], timeUnit: String? = nil) {
        (self.trendStats, self.timeUnit) = (trendStats, timeUnit)
        (checks, seconds) = (result.checks, result.seconds)
        // Those under thresholds first, in the order of these.
        var order: [Int] = []
        for verdict in result.verdicts where !order.contains(verdict.place) { order.append(verdict.place) }
        order += result.sinks.indices.filter { !result.sinks[$0].isEmpty && !order.contains($0) }
        metrics = order.map { place in
            let definition = result.registry.definition(place)
            let conditions = result.verdicts.filter { $0.place == place }.map { verdict in
                Condition(
                    source: verdict.threshold.source, figure: verdict.threshold.figure, value: verdict.figure,
                    isPassed: verdict.isPassed)
            }
            return Metric(
                name: result.registry.name(place), kind: definition.kind, content: definition.content,
                values: result.sinks[place].summary(trendStats, seconds: result.seconds), conditions: conditions)
        }
        sections = Self.sections(result, trendStats, timeUnit)
    }

    /// What a script passes to textSummary: what handleSummary is given, changed as it likes. Figures of thresholds
    /// that are not among the values are those of `original`. Throws what is missing.
    package init(_ node: JSONNode, original: SummaryData) throws(OptionProblem) {
        guard let root = node.object, let all = root["metrics"]?.object else {
            throw OptionProblem("textSummary: expected the data that handleSummary is given, with its 'metrics'")
        }
        let options = root["options"]?.object
        let stats = options?["summaryTrendStats"]?.array?.compactMap(\.text).filter {
            MetricSink(.trend).figure($0, seconds: 1) != nil
        }
        trendStats = stats ?? original.trendStats
        let unit = options?["summaryTimeUnit"]?.text ?? ""
        timeUnit = ["s", "ms", "us"].contains(unit) ? unit : nil
        seconds = root["state"]?.object?["testRunDurationMs"]?.number.map { $0 / 1000 } ?? original.seconds
        for entry in all.entries {
            guard let metric = entry.value.object, let type = metric["type"]?.text,
                let kind = MetricKind(rawValue: type), let values = metric["values"]?.object
            else {
                throw OptionProblem(
                    "textSummary: metrics['\(entry.key)']: expected a type (counter, gauge, rate or trend) and values")
            }
            var figures: [String: Double] = [:]
            for value in values.entries { figures[value.key] = value.value.number }
            let known = original.metrics.first { $0.name == entry.key }
            let conditions = metric["thresholds"]?.object?.entries.map { one in
                let figure = (try? Threshold.parse(one.key).get())?.figure ?? ""
                let before = known?.conditions.first { $0.source == one.key }
                return Condition(
                    source: one.key, figure: figure, value: figures[figure] ?? before?.value,
                    isPassed: one.value.object?["ok"]?.boolean ?? true)
            }
            metrics.append(
                Metric(
                    name: entry.key, kind: kind,
                    content: metric["contains"]?.text.flatMap { MetricContent(rawValue: $0) } ?? .plain,
                    values: figures, conditions: conditions ?? []))
        }
        if let group = root["root_group"]?.object { Self.add(group, in: [], to: &checks) }
        // Thresholds stand in the order of the options, not in that of the data.
        let order = original.metrics.map(\.name)
        func rank(_ metric: Metric) -> Int { order.firstIndex(of: metric.name) ?? order.count }
        metrics = metrics.enumerated().sorted { (rank($0.element), $0.offset) < (rank($1.element), $1.offset) }
            .map(\.element)
    }

    private static func add(_ group: JSONObject, in names: [String], to checks: inout CheckGroup) {
        // k6 had objects by names here before it had lists.
        func list(_ name: String) -> [JSONObject] {
            let node = group[name]
            return (node?.array ?? node?.object?.entries.map(\.value) ?? []).compactMap(\.object)
        }
        func count(_ object: JSONObject, _ name: String) -> UInt64 {
            UInt64(min(max(0, object[name]?.number ?? 0), 1e18))
        }
        for check in list("checks") {
            guard let name = check["name"]?.text else { continue }
            checks.count(name, in: names[...], passes: count(check, "passes"), fails: count(check, "fails"))
        }
        for one in list("groups") {
            guard let name = one["name"]?.text else { continue }
            checks.note((names + [name])[...])
            add(one, in: names + [name], to: &checks)
        }
    }

    // MARK: Scenarios and groups

    /// The scenarios that samples were kept apart of, each with its groups behind it.
    private static func sections(_ result: TestResult, _ stats: [String], _ unit: String?) -> [Section] {
        var scenarios: [String: SeriesTable] = [:]
        for (key, sink) in result.series.all {
            if let name = key.tags["scenario"] { scenarios[name, default: SeriesTable()].merge(key, sink) }
        }
        return scenarios.sorted { $0.key < $1.key }.map { name, table in
            var section = Section(title: name, data: data(of: table, result, stats, unit, group: nil))
            let groups = Set(table.all.compactMap { $0.key.tags["group"] }).filter { !$0.isEmpty }
            section.data.sections = groups.sorted().map { path in
                Section(title: groupTitle(path), data: data(of: table, result, stats, unit, group: path))
            }
            return section
        }
    }

    /// `::outer::inner` as it is shown: `outer › inner`.
    private static func groupTitle(_ path: String) -> String {
        var names: [String] = []
        var rest = Substring(path)
        while rest.hasPrefix("::") {
            rest = rest.dropFirst(2)
            var end = rest.startIndex
            while end < rest.endIndex, !rest[end...].hasPrefix("::") { end = rest.index(after: end) }
            names.append(String(rest[..<end]))
            rest = rest[end...]
        }
        return names.joined(separator: " › ")
    }

    private static func data(
        of table: SeriesTable, _ result: TestResult, _ stats: [String], _ unit: String?, group: String?
    ) -> SummaryData {
        var data = SummaryData()
        (data.trendStats, data.timeUnit, data.seconds) = (stats, unit, result.seconds)
        var sinks: [Int: MetricSink] = [:]
        for (key, sink) in table.all where group == nil || key.tags["group"] == group {
            sinks[key.metric, default: MetricSink(sink.kind)].add(sink)
            if key.metric == result.builtIn.checks, let name = key.tags["check"] {
                data.checks.count(name, in: [], passes: sink.passes, fails: sink.samples - sink.passes)
            }
        }
        data.metrics = sinks.keys.sorted().compactMap { place in
            guard let sink = sinks[place] else { return nil }
            let definition = result.registry.definition(place)
            return Metric(
                name: definition.name, kind: definition.kind, content: definition.content,
                values: sink.summary(stats, seconds: result.seconds), conditions: [])
        }
        return data
    }
}

extension MetricSink {
    /// Its figures by the names of k6's summaries, trends with those of `trendStats`.
    package func summary(_ trendStats: [String], seconds: Double) -> [String: Double] {
        switch kind {
        case .counter: return ["count": value, "rate": figure("rate", seconds: seconds) ?? 0]
        case .gauge: return ["value": value, "min": minimum, "max": maximum]
        case .rate: return ["rate": rate, "passes": Double(passes), "fails": Double(samples - passes)]
        case .trend:
            var all: [String: Double] = [:]
            for name in trendStats { all[name] = figure(name, seconds: 0) }
            return all
        }
    }
}
