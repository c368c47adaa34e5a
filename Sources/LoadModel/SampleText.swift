// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Samples as lines of k6's outputs `json` and `csv`. Sources: k6's internal/output/json/wrapper.go and
/// internal/output/csv/output.go.
package struct SampleText: Sendable {
    /// How a CSV file has its times, as k6 calls them.
    package enum TimeFormat: String, Sendable, CaseIterable {
        case unix, unixMilli = "unix_milli", unixMicro = "unix_micro", unixNano = "unix_nano", rfc3339
        case rfc3339Nano = "rfc3339_nano"
    }

    /// Which of the two.
    package enum Form: Sendable, Equatable {
        case json
        case csv(TimeFormat)
    }

    /// The tags that are columns: k6's system tags that are on unless a script says otherwise.
    private static let columns = [
        "check", "error", "error_code", "expected_response", "group", "method", "name", "proto", "scenario", "service",
        "status", "subproto", "tls_version", "url",
    ]
    /// Tags that are system tags and off: no column, and not among the extra ones.
    private static let ignored: Set<String> = ["ip", "ocsp_status"]

    private let form: Form
    private let registry: MetricRegistry
    private let thresholds: [MetricThresholds]
    /// The metrics that were described.
    private var known: Set<Int> = []

    /// Lines of the metrics in `registry`.
    package init(_ form: Form, _ registry: MetricRegistry, thresholds: [MetricThresholds]) {
        self.form = form
        self.registry = registry
        self.thresholds = thresholds
    }

    /// What a file begins with.
    package var head: String {
        guard case .csv = form else { return "" }
        return "metric_name,timestamp,metric_value,\(Self.columns.joined(separator: ",")),extra_tags,metadata\n"
    }

    /// What the names of metadata, which are no tags, begin with among tags.
    package static let metadataMark = "\u{3}"

    /// The end of a line of samples with these tags, its line feed included.
    package func end(_ all: [String: String]) -> String {
        let tags = all.filter { !$0.key.hasPrefix(Self.metadataMark) }
        var metadata: [String: String] = [:]
        for (key, value) in all where key.hasPrefix(Self.metadataMark) { metadata[String(key.dropFirst())] = value }
        switch form {
        case .json:
            let more = metadata.isEmpty ? "" : ",\"metadata\":\(JSONText.object(metadata))"
            return ",\"tags\":\(JSONText.object(tags))\(more)}}\n"
        case .csv:
            let values = Self.columns.map { Self.field(tags[$0] ?? "") }
            let extra = tags.filter { !Self.columns.contains($0.key) && !Self.ignored.contains($0.key) }
            return ",\(values.joined(separator: ",")),\(Self.field(Self.list(extra))),"
                + "\(Self.field(Self.list(metadata)))\n"
        }
    }

    private static func list(_ fields: [String: String]) -> String {
        fields.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: "&")
    }

    /// A field of a CSV file: with quotes where it must have them. Source: RFC 4180.
    private static func field(_ text: String) -> String {
        guard text.hasPrefix(" ") || text.utf8.contains(where: { [10, 13, 34, 44].contains($0) }) else { return text }
        return "\"" + text.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
    }

    /// Appends a sample of the metric at `place`, taken at `time` (nanoseconds of the Unix epoch), with what
    /// ``end(_:)`` gives for its tags. A metric's first sample comes with its description, in JSON.
    package mutating func append(_ place: Int, _ time: UInt64, _ value: Double, _ end: String, to lines: inout [UInt8])
    {
        let name = registry.name(place)
        switch form {
        case .json:
            if known.insert(place).inserted { lines += description(place).utf8 }
            lines += "{\"metric\":\"\(name)\",\"type\":\"Point\",\"data\":{\"time\":\"".utf8
            lines += Self.date(time, decimals: true).utf8
            lines += "\",\"value\":\(NumberText.json(value))".utf8
        case .csv(let format):
            lines += "\(name),\(Self.time(time, format)),\(NumberText.fixed(value, 6))".utf8
        }
        lines += end.utf8
    }

    private func description(_ place: Int) -> String {
        let definition = registry.definition(place)
        let conditions = thresholds.first { $0.metric == definition.name }?.thresholds ?? []
        let parts = registry.parts(of: place).compactMap { index -> String? in
            guard case .part(let part) = registry.places[index] else { return nil }
            let suffix = part.name.dropFirst(definition.name.count + 1).dropLast()
            return "{\"name\":\(JSONString.quoted(part.name)),\"suffix\":\(JSONString.quoted(String(suffix))),"
                + "\"tags\":\(JSONText.object(part.tags))}"
        }
        let list = conditions.map { JSONString.quoted($0.source) }.joined(separator: ",")
        return
            "{\"type\":\"Metric\",\"data\":{\"name\":\"\(definition.name)\",\"type\":\"\(definition.kind.rawValue)\","
            + "\"contains\":\"\(definition.content.rawValue)\",\"thresholds\":[\(list)],"
            + "\"submetrics\":\(parts.isEmpty ? "null" : "[\(parts.joined(separator: ","))]")},"
            + "\"metric\":\"\(definition.name)\"}\n"
    }

    private static func time(_ time: UInt64, _ format: TimeFormat) -> String {
        switch format {
        case .unix: "\(time / 1_000_000_000)"
        case .unixMilli: "\(time / 1_000_000)"
        case .unixMicro: "\(time / 1000)"
        case .unixNano: "\(time)"
        case .rfc3339: date(time, decimals: false)
        case .rfc3339Nano: date(time, decimals: true)
        }
    }

    /// A time as RFC 3339 has it, in UTC; decimals without zeros at the end. Source of the days' arithmetic: Howard
    /// Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    package static func date(_ time: UInt64, decimals: Bool) -> String {
        let (seconds, nanoseconds) = (time / 1_000_000_000, time % 1_000_000_000)
        let days = seconds / 86_400 + 719_468
        let (era, dayOfEra) = (days / 146_097, days % 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * shifted + 2) / 5 + 1
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        func two(_ number: UInt64) -> String { NumberText.padded(number, 2) }
        let rest = seconds % 86_400
        var text = "\(NumberText.padded(year, 4))-\(two(month))-\(two(day))T"
        text += "\(two(rest / 3600)):\(two(rest / 60 % 60)):\(two(rest % 60))"
        if decimals, nanoseconds > 0 {
            var digits = NumberText.padded(nanoseconds, 9)
            while digits.hasSuffix("0") { digits.removeLast() }
            text += "." + digits
        }
        return text + "Z"
    }
}
