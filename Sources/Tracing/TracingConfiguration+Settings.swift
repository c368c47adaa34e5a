// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
package import Settings

extension TracingConfiguration {
    /// Settings of it, for the tables of programs.
    package static let settings: [Setting] = [
        Setting(
            "tracing.endpoint", .text,
            "Where spans are sent, by OTLP over HTTP: the collector's address, such as http://127.0.0.1:4318. What is "
                + "not set here is taken from OpenTelemetry's OTEL_ variables; without any address nothing is traced."),
        Setting(
            "tracing.headers", .list, secret: true, "Headers for the collector, as name=value: tokens, for example."),
        Setting("tracing.caFile", .text, "Certificates that the collector's is checked by; the system's otherwise."),
        Setting(
            "tracing.timeout", .duration(1_000_000...300_000_000_000), default: "10s",
            "Time for one request to the collector."),
        Setting(
            "tracing.sampler", .enumeration(TraceSampler.Rule.allCases.map(\.rawValue)),
            default: "parentbased_traceidratio", "Which traces are recorded."),
        Setting(
            "tracing.ratio", .text, default: "0.001", "The part of traces that samplers by ratio record, from 0 to 1."),
        Setting(
            "tracing.slow", .duration(0...3_600_000_000_000), default: "100ms",
            "From how long on requests are recorded though nobody samples them; 0 is never."),
        Setting(
            "tracing.failed", .boolean, default: "true",
            "Whether requests that fail are recorded though nobody samples them."),
        Setting(
            "tracing.limit", .integer(0...100_000), default: "100",
            "Slow and failed requests of one thread that are recorded in a second."),
        Setting(
            "tracing.showKeys", .boolean, default: "false", "Whether spans show keys, rather than their hashes alone."),
        Setting("tracing.serviceName", .text, "The process's service.name; the program's name otherwise."),
        Setting("tracing.attributes", .list, "Attributes of the process's resource, as name=value."),
        Setting(
            "tracing.queue", .integer(1...1_000_000), default: "2048",
            "Spans of one thread that wait to be sent; more are dropped and counted."),
        Setting("tracing.batch", .integer(1...100_000), default: "512", "Spans in one request to the collector."),
        Setting(
            "tracing.delay", .duration(1_000_000...3_600_000_000_000), default: "5s",
            "How long spans wait for more before they are sent."),
    ]

    /// Reads the settings, and of OpenTelemetry's variables what they do not say. What is wrong with settings is added
    /// to `problems`; of variables, which belong to others as well, what cannot be used is left aside and said in
    /// `notes`.
    package init(
        _ values: SettingsValues, environment: [String: String], program: String, problems: inout [String],
        notes: inout [String]
    ) {
        self.init()
        var standard = StandardVariables(environment)
        readCollector(values, &standard, &problems)
        readSampler(values, &standard, &problems)
        readQueue(values, &standard)
        slowNanoseconds = values.duration("tracing.slow")
        recordsFailed = values.boolean("tracing.failed")
        unsampledPerSecond = values.integer("tracing.limit")
        showsKeys = values.boolean("tracing.showKeys")
        serviceName = values.text("tracing.serviceName") ?? standard.text("OTEL_SERVICE_NAME") ?? program
        resource = standard.pairs("OTEL_RESOURCE_ATTRIBUTES")
        for attribute in Self.pairs("tracing.attributes", values, &problems) {
            resource.removeAll { $0.name == attribute.name }
            resource.append(attribute)
        }
        if values.text("tracing.serviceName") == nil, standard.text("OTEL_SERVICE_NAME") == nil,
            let named = resource.first(where: { $0.name == "service.name" })
        {
            serviceName = named.value
        }
        resource.removeAll { $0.name == "service.name" }
        if standard.boolean("OTEL_SDK_DISABLED") { url = nil }
        guard isOn else { return }
        standard.noteUnsupported()
        notes += standard.notes
    }

    private mutating func readCollector(
        _ values: SettingsValues, _ standard: inout StandardVariables, _ problems: inout [String]
    ) {
        if let endpoint = values.text("tracing.endpoint") {
            url = Self.url(below: endpoint)
            if url == nil {
                // Without what may be a password.
                let shown = endpoint.split(separator: "@", omittingEmptySubsequences: false).last ?? ""
                problems.append(
                    "tracing.endpoint: \"\(shown)\" is not valid; expected http://host:port or https://host:port")
            }
        } else {
            url = standard.endpoint
        }
        headers = Self.pairs("tracing.headers", values, &problems)
        if !values.isSet("tracing.headers") { headers = standard.headers }
        caFile = values.text("tracing.caFile") ?? standard.text("CERTIFICATE", of: "OTEL_EXPORTER_OTLP_")
        timeoutMilliseconds = Int(values.duration("tracing.timeout") / 1_000_000)
        if !values.isSet("tracing.timeout"), let time = standard.milliseconds("TIMEOUT", of: "OTEL_EXPORTER_OTLP_") {
            timeoutMilliseconds = time
        }
        if let time = standard.milliseconds("OTEL_BSP_EXPORT_TIMEOUT") { exportMilliseconds = time }
    }

    private mutating func readSampler(
        _ values: SettingsValues, _ standard: inout StandardVariables, _ problems: inout [String]
    ) {
        var rule = values.text("tracing.sampler").flatMap(TraceSampler.Rule.init(rawValue:)) ?? .parentOrRatio
        let text = values.text("tracing.ratio") ?? ""
        var ratio = Self.standardRatio
        if let number = Double(text), (0...1).contains(number) {
            ratio = number
        } else {
            problems.append("tracing.ratio: \"\(text)\" is not valid; expected a number from 0 to 1, such as 0.01")
        }
        if !values.isSet("tracing.sampler"), let named = standard.sampler {
            rule = named
            // What the specification says of these where no ratio is given.
            if !values.isSet("tracing.ratio") { ratio = standard.ratio ?? 1 }
        } else if !values.isSet("tracing.ratio"), let number = standard.ratio {
            ratio = number
        }
        sampler = TraceSampler(rule, ratio: ratio)
    }

    private mutating func readQueue(_ values: SettingsValues, _ standard: inout StandardVariables) {
        queueLimit = values.integer("tracing.queue")
        batchLimit = values.integer("tracing.batch")
        delayMilliseconds = Int(values.duration("tracing.delay") / 1_000_000)
        if !values.isSet("tracing.queue"), let count = standard.count("OTEL_BSP_MAX_QUEUE_SIZE") { queueLimit = count }
        if !values.isSet("tracing.batch"), let count = standard.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") {
            batchLimit = count
        }
        if !values.isSet("tracing.delay"), let time = standard.milliseconds("OTEL_BSP_SCHEDULE_DELAY") {
            delayMilliseconds = time
        }
        batchLimit = min(batchLimit, queueLimit)
    }

    /// A setting's list of `name=value`.
    private static func pairs(
        _ name: String, _ values: SettingsValues, _ problems: inout [String]
    ) -> [Attribute] {
        values.list(name).compactMap { text in
            if let pair = StandardVariables.pair(text) { return pair }
            // What stands there may be a secret.
            problems.append("\(name): an entry is not valid; expected name=value, without line ends")
            return nil
        }
    }

    /// Where traces go below a collector's address; nil when it is none.
    static func url(below endpoint: String) -> String? {
        guard let checked = StandardVariables.checked(url: endpoint) else { return nil }
        return checked + (checked.hasSuffix("/") ? "v1/traces" : "/v1/traces")
    }
}

/// OpenTelemetry's variables. Sources: OpenTelemetry's specification, General SDK Configuration and OTLP Exporter
/// Configuration.
struct StandardVariables {
    private let environment: [String: String]
    /// What could not be used.
    private(set) var notes: [String] = []

    init(_ environment: [String: String]) { self.environment = environment }

    /// A value; what is empty counts as not set.
    func text(_ name: String) -> String? {
        environment[name].map(Self.trimmed).flatMap { $0.isEmpty ? nil : $0 }
    }

    /// The value for traces, or else the one for all signals.
    func text(_ name: String, of prefix: String) -> String? { text("\(prefix)TRACES_\(name)") ?? text(prefix + name) }

    func boolean(_ name: String) -> Bool { text(name)?.lowercased() == "true" }

    /// Where traces are posted; nil where nobody says so.
    var endpoint: String? {
        mutating get {
            if text("OTEL_TRACES_EXPORTER") == "none" { return nil }
            if let whole = text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
                if let url = Self.checked(url: whole) { return url }
                notes.append(
                    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: ignored, because it is no http:// or https:// address")
            }
            if let base = text("OTEL_EXPORTER_OTLP_ENDPOINT") {
                if let url = TracingConfiguration.url(below: base) { return url }
                notes.append("OTEL_EXPORTER_OTLP_ENDPOINT: ignored, because it is no address of HTTP")
            }
            return text("OTEL_TRACES_EXPORTER") == "otlp" ? "http://localhost:4318/v1/traces" : nil
        }
    }

    var headers: [TracingConfiguration.Header] {
        mutating get {
            let name =
                text("OTEL_EXPORTER_OTLP_TRACES_HEADERS") == nil
                ? "OTEL_EXPORTER_OTLP_HEADERS" : "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
            return pairs(name)
        }
    }

    var sampler: TraceSampler.Rule? {
        mutating get {
            guard let name = text("OTEL_TRACES_SAMPLER") else { return nil }
            let rule = TraceSampler.Rule(rawValue: name)
            if rule == nil { notes.append("OTEL_TRACES_SAMPLER: ignored, because \"\(name)\" is no sampler here") }
            return rule
        }
    }

    var ratio: Double? {
        mutating get {
            guard let text = text("OTEL_TRACES_SAMPLER_ARG") else { return nil }
            guard let number = Double(text), (0...1).contains(number) else {
                notes.append("OTEL_TRACES_SAMPLER_ARG: ignored, because \"\(text)\" is no number from 0 to 1")
                return nil
            }
            return number
        }
    }

    /// A time in milliseconds, an hour at most.
    mutating func milliseconds(_ name: String) -> Int? { count(name).map { min($0, 3_600_000) } }

    mutating func milliseconds(_ name: String, of prefix: String) -> Int? {
        milliseconds(text("\(prefix)TRACES_\(name)") == nil ? prefix + name : "\(prefix)TRACES_\(name)")
    }

    /// A number from 1 on, a million at most, or an hour's milliseconds.
    mutating func count(_ name: String) -> Int? {
        guard let text = text(name) else { return nil }
        guard let number = Int(text), number > 0 else {
            notes.append("\(name): ignored, because \"\(text)\" is no number above 0")
            return nil
        }
        return min(number, 3_600_000)
    }

    /// A list of `name=value`, with values in percent encoding.
    mutating func pairs(_ name: String) -> [TracingConfiguration.Attribute] {
        guard let text = text(name) else { return [] }
        return text.split(separator: ",").compactMap { entry in
            if let pair = Self.pair(Self.trimmed(String(entry))) { return pair }
            // What stands there may be a secret.
            notes.append("\(name): an entry is ignored, because it is not name=value")
            return nil
        }
    }

    /// Says what of the exporter's variables is not done here.
    mutating func noteUnsupported() {
        if let name = text("PROTOCOL", of: "OTEL_EXPORTER_OTLP_"), name != "http/json" {
            notes.append("OTEL_EXPORTER_OTLP_PROTOCOL: \(name) is not spoken here: spans are sent as http/json")
        }
        if let name = text("COMPRESSION", of: "OTEL_EXPORTER_OTLP_"), name != "none" {
            notes.append("OTEL_EXPORTER_OTLP_COMPRESSION: \(name) is not done here: spans are sent as they are")
        }
    }

    /// `name=value`, the value in percent encoding; nil where it is anything else, or could break out of its line.
    static func pair(_ text: String) -> TracingConfiguration.Attribute? {
        guard let equals = text.firstIndex(of: "="), equals != text.startIndex else { return nil }
        let name = trimmed(String(text[..<equals]))
        let value = decoded(trimmed(String(text[text.index(after: equals)...])))
        guard !name.isEmpty, let value, (name + value).unicodeScalars.allSatisfy({ $0.value >= 32 && $0.value != 127 })
        else { return nil }
        return TracingConfiguration.Attribute(name, value)
    }

    /// An address of HTTP without blanks; nil when it is none.
    static func checked(url: String) -> String? {
        let lower = url.lowercased()
        guard let scheme = ["http://", "https://"].first(where: lower.hasPrefix), lower.utf8.count > scheme.utf8.count,
            url.unicodeScalars.allSatisfy({ $0.value > 32 && $0.value != 127 })
        else { return nil }
        return url
    }

    private static func decoded(_ text: String) -> String? {
        PercentEncoding.decoded(Array(text.utf8)).flatMap { String(validating: $0, as: UTF8.self) }
    }

    private static func trimmed(_ text: String) -> String {
        var rest = text[...]
        while let first = rest.first, first.isWhitespace { rest.removeFirst() }
        while let last = rest.last, last.isWhitespace { rest.removeLast() }
        return String(rest)
    }
}
