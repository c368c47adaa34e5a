// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Telemetry

/// The text of a page that `fill` writes.
private func page(_ format: Exposition.Format, _ fill: (inout Exposition) -> Void) -> String {
    var exposition = Exposition(format: format)
    fill(&exposition)
    exposition.finish()
    return String(decoding: exposition.bytes, as: UTF8.self)
}

/// Every kind of family, with what is awkward about each.
private func everything(_ exposition: inout Exposition) {
    exposition.family("memcached_commands_total", .counter, help: "Requests by command and result.")
    exposition.sample(3 as UInt64, ("command", "get"), ("status", "hit"))
    exposition.sample(UInt64.max, ("command", "get"), ("status", "miss"))
    exposition.family("memcached_uptime_seconds", .counter, help: "A counter without the suffix.")
    exposition.sample(12 as UInt64)
    exposition.family("memcached_current_bytes", .gauge, help: "Says \"hello\" with a \\ and a\nnew line.")
    exposition.sample(1.5)
    exposition.family("martlet_prefix_hits", .gauge, help: "Awkward labels.")
    exposition.sample(1 as UInt64, ("prefix", "a\"b\\c\nd"))
    exposition.sample(2 as UInt64, labels: [("prefix", "ü")])
    exposition.family("martlet_request_duration_seconds", .histogram, help: "How long requests took.")
    let histogram = LatencyHistogram()
    histogram.record(nanoseconds: 60_000, count: 2)
    histogram.record(nanoseconds: 2_000_000_000)
    exposition.sample(histogram.snapshot(), ("command", "get"))
    exposition.sample(HistogramSnapshot(), ("command", "set"))
    exposition.family("martlet_nothing", .gauge, help: "A family may have no samples.")
}

@Suite struct ExpositionTests {
    @Test(arguments: [Exposition.Format.prometheus, .openMetrics])
    func whatItWritesKeepsTheRulesOfItsFormat(_ format: Exposition.Format) {
        let text = page(format, everything)
        #expect(violations(text, format) == [])
    }

    @Test func writesThePrometheusTextFormat() {
        let text = page(.prometheus) { exposition in
            exposition.family("x_total", .counter, help: "A \"quoted\" help.")
            exposition.sample(3 as UInt64, ("a", "b\"c"))
        }
        let expected = """
            # HELP x_total A "quoted" help.
            # TYPE x_total counter
            x_total{a="b\\"c"} 3

            """
        #expect(text == expected)
    }

    @Test func writesOpenMetrics() {
        let text = page(.openMetrics) { exposition in
            exposition.family("x_total", .counter, help: "A \"quoted\" help.")
            exposition.sample(3 as UInt64)
            exposition.family("y_seconds", .counter, help: "No suffix.")
            exposition.sample(0.5)
        }
        let expected = """
            # HELP x A \\"quoted\\" help.
            # TYPE x counter
            x_total 3
            # HELP y_seconds No suffix.
            # TYPE y_seconds unknown
            y_seconds 0.5
            # EOF

            """
        #expect(text == expected)
    }

    @Test func histogramBucketsAreCumulativeAndEndWithInfinity() {
        let text = page(.prometheus, everything)
        #expect(text.contains("martlet_request_duration_seconds_bucket{command=\"get\",le=\"5e-05\"} 0\n"))
        #expect(text.contains("martlet_request_duration_seconds_bucket{command=\"get\",le=\"0.0001\"} 2\n"))
        #expect(text.contains("martlet_request_duration_seconds_bucket{command=\"get\",le=\"1.6384\"} 2\n"))
        #expect(text.contains("martlet_request_duration_seconds_bucket{command=\"get\",le=\"+Inf\"} 3\n"))
        #expect(text.contains("martlet_request_duration_seconds_count{command=\"get\"} 3\n"))
        #expect(text.contains("martlet_request_duration_seconds_sum{command=\"get\"} 2.00012\n"))
    }

    @Test func spellsSpecialNumbers() {
        #expect(expositionNumber(.nan) == "NaN")
        #expect(expositionNumber(.infinity) == "+Inf")
        #expect(expositionNumber(-.infinity) == "-Inf")
        #expect(expositionNumber(0.0001) == "0.0001")
    }

    @Test func tellsNamesFromOthers() {
        #expect(isMetricName("a:b_9"))
        #expect(!isMetricName("9a"))
        #expect(!isMetricName(""))
        #expect(!isMetricName("a-b"))
        #expect(isLabelName("_a9"))
        #expect(!isLabelName("a:b"))
        #expect(!isLabelName("ä"))
    }

    @Test func theRulesNoticeWhatIsWrong() {
        let good = page(.prometheus, everything)
        #expect(violations(good + "loose 1\n", .prometheus) != [])
        #expect(violations(good.replacing("# TYPE memcached_current_bytes gauge\n", with: ""), .prometheus) != [])
        #expect(violations(String(good.dropLast()), .prometheus) != [])
        #expect(violations(good.replacing("le=\"+Inf\"", with: "le=\"9\""), .prometheus) != [])
        #expect(violations(good.replacing("\\n", with: "\n"), .prometheus) != [])
        let open = page(.openMetrics, everything)
        #expect(violations(open.replacing("# EOF\n", with: ""), .openMetrics) != [])
        let renamed = open.replacing("# TYPE memcached_commands counter", with: "# TYPE q counter")
        #expect(violations(renamed, .openMetrics) != [])
    }
}

// MARK: The rules of the formats, after promtool and the OpenMetrics specification, written apart from the writer

private struct Sample {
    var name = ""
    var labels: [(name: String, value: String)] = []
    var value = ""
}

/// Every rule that `text` breaks.
private func violations(_ text: String, _ format: Exposition.Format) -> [String] {
    var found: [String] = []
    var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    if lines.popLast() != "" { found.append("the last line does not end") }
    if format == .openMetrics, lines.popLast() != "# EOF" { found.append("no # EOF at the end") }
    var family = ""
    var type = ""
    var finished: Set<String> = []
    var seen: Set<String> = []
    var group: [Sample] = []
    for line in lines {
        if line.hasPrefix("# ") {
            let words = line.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false).map(String.init)
            guard words.count == 4, ["HELP", "TYPE"].contains(words[1]) else {
                found.append("not a comment of the format: \(line)")
                continue
            }
            if words[1] == "HELP" {
                found += histogramViolations(group, family, type)
                group = []
                if !finished.insert(words[2]).inserted { found.append("the family \(words[2]) twice") }
                (family, type) = (words[2], "")
            } else {
                if words[2] != family || !type.isEmpty { found.append("a TYPE that does not follow its HELP: \(line)") }
                type = words[3]
                let types = ["counter", "gauge", "histogram"] + (format == .openMetrics ? ["unknown"] : [])
                if !types.contains(type) { found.append("no such type: \(line)") }
            }
            continue
        }
        guard let sample = parseSample(line) else {
            found.append("not a sample: \(line)")
            continue
        }
        if !seen.insert("\(sample.name)\(sample.labels)").inserted { found.append("the same sample twice: \(line)") }
        let suffixes: [String] =
            switch (type, format) {
            case ("counter", .openMetrics): ["_total"]
            case ("histogram", _): ["_bucket", "_sum", "_count"]
            case ("", _): []
            default: [""]
            }
        if !suffixes.contains(where: { sample.name == family + $0 }) { found.append("outside of its family: \(line)") }
        if Set(sample.labels.map(\.name)).count != sample.labels.count { found.append("a label twice: \(line)") }
        group.append(sample)
    }
    return found + histogramViolations(group, family, type)
}

/// The rules of a histogram family.
private func histogramViolations(_ samples: [Sample], _ family: String, _ type: String) -> [String] {
    guard type == "histogram" else { return [] }
    var found: [String] = []
    var last: (labels: String, bound: Double, count: Double)?
    var infinite: [String: Double] = [:]
    for sample in samples {
        let rest = sample.labels.filter { $0.name != "le" }.map { "\($0.name)=\($0.value)" }.joined(separator: ",")
        guard let value = Double(sample.value) else { return ["not a number in \(family)"] }
        if sample.name == family + "_bucket" {
            let text = sample.labels.last { $0.name == "le" }?.value ?? ""
            guard let bound = text == "+Inf" ? .infinity : Double(text) else { return ["a bucket without a bound"] }
            if let last, last.labels == rest, last.bound >= bound || last.count > value {
                found.append("buckets that do not rise in \(family){\(rest)}")
            }
            last = (rest, bound, value)
            if bound == .infinity { infinite[rest] = value }
        } else if sample.name == family + "_count", infinite[rest] != value {
            found.append("the count of \(family){\(rest)} is not its last bucket")
        }
    }
    return found
}

/// A line as a sample, by the grammar; nil when it is none.
private func parseSample(_ line: String) -> Sample? {
    var sample = Sample()
    var rest = Substring(line)
    sample.name = String(rest.prefix { $0 != "{" && $0 != " " })
    rest.removeFirst(sample.name.count)
    guard isMetricName(sample.name) else { return nil }
    if rest.first == "{" {
        repeat {
            rest.removeFirst()
            let name = String(rest.prefix { $0 != "=" })
            rest = rest.dropFirst(name.count + 1)
            guard isLabelName(name), rest.popFirst() == "\"" else { return nil }
            var value = ""
            while let character = rest.popFirst(), character != "\"" {
                if character == "\\" {
                    switch rest.popFirst() {
                    case "n": value += "\n"
                    case "\\": value += "\\"
                    case "\"": value += "\""
                    default: return nil
                    }
                } else {
                    value.append(character)
                }
            }
            sample.labels.append((name, value))
        } while rest.first == ","
        guard rest.popFirst() == "}" else { return nil }
    }
    guard rest.popFirst() == " ", !rest.isEmpty, !rest.contains(" ") else { return nil }
    sample.value = String(rest)
    return Double(sample.value) != nil || ["+Inf", "-Inf", "NaN"].contains(sample.value) ? sample : nil
}
