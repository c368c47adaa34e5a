// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing

/// A test's result as JSON, in the two shapes that k6's tools read.
package struct SummaryExport {
    private let result: TestResult
    private let trendStats: [String]

    /// For `result`, trends with these figures.
    package init(_ result: TestResult, trendStats: [String]) {
        self.result = result
        self.trendStats = trendStats
    }

    /// What `--summary-export` writes. As in k6, a threshold is true there when it failed.
    package var file: String {
        var writer = JSONWriter()
        writer.object { root in
            root.object("metrics") { metrics in
                for place in shownPlaces {
                    metrics.object(result.registry.name(place)) { metric in
                        for (name, value) in flatFigures(place) { metric.number(name, value) }
                        let verdicts = result.verdicts.filter { $0.place == place }
                        guard !verdicts.isEmpty else { return }
                        metric.object("thresholds") { thresholds in
                            for verdict in verdicts {
                                thresholds.raw(verdict.threshold.source, verdict.isPassed ? "false" : "true")
                            }
                        }
                    }
                }
            }
            group(result.checks, "root_group", &root, isKeyed: true)
        }
        return writer.text + "\n"
    }

    /// What a script's handleSummary is given, `options` and `state` being JSON, and `setupData` what setup gave, nil
    /// when it gave nothing.
    package func scriptData(options: String, state: String, setupData: String? = nil) -> String {
        var writer = JSONWriter()
        writer.object { root in
            group(result.checks, "root_group", &root, isKeyed: false)
            root.raw("options", options)
            root.raw("state", state)
            root.object("metrics") { metrics in
                for place in shownPlaces {
                    let definition = result.registry.definition(place)
                    metrics.object(result.registry.name(place)) { metric in
                        metric.string("type", definition.kind.rawValue)
                        metric.string("contains", definition.content.rawValue)
                        metric.object("values") { values in
                            for (name, value) in figures(place) { values.number(name, value) }
                        }
                        let verdicts = result.verdicts.filter { $0.place == place }
                        guard !verdicts.isEmpty else { return }
                        metric.object("thresholds") { thresholds in
                            for verdict in verdicts {
                                thresholds.object(verdict.threshold.source) {
                                    $0.raw("ok", verdict.isPassed ? "true" : "false")
                                }
                            }
                        }
                    }
                }
            }
            if let setupData { root.raw("setup_data", setupData) }
        }
        return writer.text
    }

    /// What gathered something, or is under a threshold, by rising name.
    private var shownPlaces: [Int] {
        result.sinks.indices
            .filter { place in !result.sinks[place].isEmpty || result.verdicts.contains { $0.place == place } }
            .sorted { result.registry.name($0) < result.registry.name($1) }
    }

    private func figures(_ place: Int) -> [(String, Double)] {
        let sink = result.sinks[place]
        let fails = Double(sink.samples - sink.passes)
        switch sink.kind {
        case .counter:
            return [("count", sink.value), ("rate", sink.figure("rate", seconds: result.seconds) ?? 0)]
        case .gauge: return [("value", sink.value), ("min", sink.minimum), ("max", sink.maximum)]
        case .rate: return [("rate", sink.rate), ("passes", Double(sink.passes)), ("fails", fails)]
        case .trend: return trendStats.compactMap { name in sink.figure(name, seconds: 0).map { (name, $0) } }
        }
    }

    private func flatFigures(_ place: Int) -> [(String, Double)] {
        let all = figures(place)
        guard result.sinks[place].kind == .rate else { return all }
        return all.dropFirst() + [("value", all[0].1)]
    }

    private func group(_ group: CheckGroup, _ key: String?, _ writer: inout JSONWriter, isKeyed: Bool) {
        writer.object(key) { fields in
            fields.string("name", group.name)
            fields.string("path", group.path)
            fields.string("id", identifier(group.path))
            if isKeyed {
                fields.object("groups") { inner in
                    for one in group.groups { self.group(one, one.name, &inner, isKeyed: true) }
                }
                fields.object("checks") { inner in
                    for one in group.checks { check(one, one.name, group, &inner) }
                }
            } else {
                fields.array("groups") { inner in
                    for one in group.groups { self.group(one, nil, &inner, isKeyed: false) }
                }
                fields.array("checks") { inner in
                    for one in group.checks { check(one, nil, group, &inner) }
                }
            }
        }
    }

    private func check(_ check: CheckResult, _ key: String?, _ group: CheckGroup, _ writer: inout JSONWriter) {
        let path = "\(group.path)::\(check.name)"
        writer.object(key) { fields in
            fields.string("name", check.name)
            fields.string("path", path)
            fields.string("id", identifier(path))
            fields.number("passes", Double(check.passes))
            fields.number("fails", Double(check.fails))
        }
    }

    /// The MD5 of the path, as k6 identifies groups and checks.
    private func identifier(_ path: String) -> String {
        let words = MD5(Array(path.utf8).span).words
        return [words.0, words.1, words.2, words.3].map { word in
            let digits = String(word.byteSwapped, radix: 16)
            return String(repeating: "0", count: 8 - digits.count) + digits
        }.joined()
    }
}
