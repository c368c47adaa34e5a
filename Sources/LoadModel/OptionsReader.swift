// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Settings

/// Reads options in k6's shape from a file's nodes, and collects everything that is wrong with them.
package struct OptionsReader {
    let file: String
    private(set) var problems: [String] = []

    private init(file: String) { self.file = file }

    /// The options in `root`, of the file of that name. Errors name the line, the option, and what is allowed.
    package static func read(_ root: SettingsNode?, file: String) throws(SettingsError) -> LoadOptions {
        var reader = OptionsReader(file: file)
        let options = root.map { reader.options($0) } ?? LoadOptions()
        guard reader.problems.isEmpty else { throw SettingsError(reader.problems) }
        return options
    }

    /// Options of k6 that have no meaning without HTTP or without k6's cloud, and are passed over.
    static let passedOver: Set<String> = [
        "batch", "batchPerHost", "cloud", "discardResponseBodies", "ext", "features", "httpDebug", "maxRedirects",
        "noCookiesReset", "noUsageReport", "userAgent",
    ]

    /// Options of k6 that would change connections, and do not here: each is told by its name.
    static let withoutEffect = [
        "blacklistIPs": "connections go where servers say", "blockHostnames": "connections go where servers say",
        "dns": "names are looked up once, before the start", "hosts": "connections go where servers say",
        "localIPs": "the system chooses the address", "noConnectionReuse": "clients keep their connections",
        "noVUConnectionReuse": "clients keep their connections",
        "tlsAuth": "give the paths of PEM files: tls: {cert, key}", "tlsCipherSuites": "the library's are offered",
    ]

    static let known = [
        "vus", "duration", "iterations", "stages", "scenarios", "thresholds", "tags", "setupTimeout", "teardownTimeout",
        "handleSummaryTimeout", "minIterationDuration", "summaryTrendStats", "summaryTimeUnit", "noSetup", "noTeardown",
        "noThresholds", "noSummary", "summaryMode", "servers", "tls", "workload", "threads", "seed",
        "executionSegment", "executionSegmentSequence", "systemTags", "insecureSkipTLSVerify", "tlsVersion", "throw",
        "linger", "rps", "paused",
    ]

    private mutating func options(_ root: SettingsNode) -> LoadOptions {
        var result = LoadOptions()
        for entry in entries(root, "options") where !entry.value.isNull && !Self.passedOver.contains(entry.key) {
            let value = entry.value
            switch entry.key {
            case "vus": result.vus = whole(value, "vus", 0...LoadOptions.userLimit)
            case "duration": result.duration = duration(value, "duration")
            case "iterations": result.iterations = whole(value, "iterations", 1...Int.max).map { UInt64($0) }
            case "stages": result.stages = stages(value, "stages")
            case "scenarios": result.scenarios = scenarios(value)
            case "thresholds": result.thresholds = thresholds(value)
            case "tags": result.tags = texts(value, "tags")
            case "setupTimeout": result.setupTimeout = duration(value, "setupTimeout")
            case "teardownTimeout": result.teardownTimeout = duration(value, "teardownTimeout")
            case "handleSummaryTimeout": result.handleSummaryTimeout = duration(value, "handleSummaryTimeout")
            case "minIterationDuration": result.minIterationDuration = duration(value, "minIterationDuration")
            case "summaryTrendStats": result.summaryTrendStats = trendStats(value)
            case "summaryTimeUnit": result.summaryTimeUnit = word(value, "summaryTimeUnit", ["s", "ms", "us"])
            case "noSetup": result.noSetup = boolean(value, "noSetup")
            case "noTeardown": result.noTeardown = boolean(value, "noTeardown")
            case "noThresholds": result.noThresholds = boolean(value, "noThresholds")
            case "noSummary":
                if boolean(value, "noSummary") == true { result.summaryMode = .disabled }
            case "summaryMode":
                let words = SummaryMode.allCases.map(\.rawValue)
                result.summaryMode = word(value, "summaryMode", words).flatMap { SummaryMode(rawValue: $0) }
            case "servers": result.servers = list(value, "servers")
            case "tls": result.tls = tls(value)
            case "workload": result.workload = workload(value)
            case "threads": result.threads = whole(value, "threads", 1...LoadOptions.threadLimit)
            case "seed": result.seed = whole(value, "seed", 0...Int.max).map { UInt64($0) }
            default: k6Option(entry, &result)
            }
        }
        segment(root, &result)
        return result
    }

    /// An option of k6 that few tests have.
    private mutating func k6Option(_ entry: SettingsNode.Entry, _ result: inout LoadOptions) {
        let (value, name) = (entry.value, entry.key)
        switch name {
        case "executionSegment", "executionSegmentSequence": break
        case "systemTags":
            let names = list(value, name) ?? []
            for one in names where !SystemTags.known.contains(one) {
                problem(value, "systemTags: '\(one)' is none of \(SystemTags.known.joined(separator: ", "))")
            }
            result.systemTags = SystemTags(Set(names))
        case "insecureSkipTLSVerify": result.skipsTLSVerification = boolean(value, name)
        case "tlsVersion": result.requiresTLS13 = tlsVersion(value, &result)
        case "throw": result.throwsErrors = boolean(value, name)
        case "linger": result.lingers = boolean(value, name)
        case "rps": result.requestsPerSecond = whole(value, name, 0...Int.max)
        case "paused": if boolean(value, name) == true { problem(value, "paused: \(Self.pausedReason)") }
        default:
            guard let reason = Self.withoutEffect[name] else { return unknown(entry, "option", Self.known) }
            // What says nothing, such as an empty list, is none.
            if case .sequence(let items) = value.content, items.isEmpty { return }
            if case .scalar("false", _) = value.content { return }
            result.notices.append("the option \(name) has no effect here: \(reason)")
        }
    }

    /// Why a test is never `paused`.
    package static let pausedReason = "there is no REST API that could let the test go on"

    /// Whether TLS must be 1.3. Ours is 1.2 and 1.3: what asks for another end is told.
    private mutating func tlsVersion(_ node: SettingsNode, _ result: inout LoadOptions) -> Bool? {
        let words = ["ssl3.0", "tls1.0", "tls1.1", "tls1.2", "tls1.3"]
        var (least, most) = ("", "")
        if case .mapping(let fields) = node.content {
            for field in fields where !field.value.isNull {
                switch field.key {
                case "min": least = word(field.value, "tlsVersion.min", words) ?? ""
                case "max": most = word(field.value, "tlsVersion.max", words) ?? ""
                default: unknown(field, "field of tlsVersion", ["min", "max"])
                }
            }
        } else {
            least = word(node, "tlsVersion", words) ?? ""
            most = least
        }
        if !most.isEmpty, most != "tls1.3" {
            result.notices.append(
                "the option tlsVersion has no effect here but for a minimum of tls1.3: TLS 1.2 and 1.3 are offered")
        }
        return least == "tls1.3"
    }

    private mutating func segment(_ root: SettingsNode, _ result: inout LoadOptions) {
        guard case .mapping(let entries) = root.content else { return }
        func find(_ name: String) -> SettingsNode.Entry? { entries.first { $0.key == name && !$0.value.isNull } }
        let (part, sequence) = (find("executionSegment"), find("executionSegmentSequence"))
        guard let place = part ?? sequence else { return }
        var (one, all): (String?, String?) = (nil, nil)
        if let part { one = text(part.value, "executionSegment") }
        if let sequence { all = text(sequence.value, "executionSegmentSequence") }
        do throws(OptionProblem) {
            result.segment = try ExecutionSegment.parse(one, sequence: all)
        } catch {
            problem(place.value, error.description)
        }
    }

    /// `tls: true`, or `{ca, cert, key, serverName, insecure}`; false is none.
    private mutating func tls(_ node: SettingsNode) -> LoadTLS? {
        if case .scalar = node.content { return boolean(node, "tls") == true ? LoadTLS() : nil }
        var result = LoadTLS()
        for field in entries(node, "tls") where !field.value.isNull {
            switch field.key {
            case "ca": result.authorityPath = text(field.value, "tls.ca")
            case "cert": result.chainPath = text(field.value, "tls.cert")
            case "key": result.keyPath = text(field.value, "tls.key")
            case "serverName": result.serverName = text(field.value, "tls.serverName")
            case "insecure": result.isInsecure = boolean(field.value, "tls.insecure") ?? false
            default: unknown(field, "field of tls", ["ca", "cert", "key", "serverName", "insecure"])
            }
        }
        if result.keyPath != nil, result.chainPath == nil { problem(node, "tls: a key needs its cert") }
        return result
    }

    /// The options of a client's TLS, as a script gives them. Throws what is wrong with them.
    package static func tls(_ node: SettingsNode) throws(OptionProblem) -> LoadTLS? {
        var reader = OptionsReader(file: "k6/x/memcached")
        let result = reader.tls(node)
        if let problem = reader.problems.first {
            // A line of the text that it was passed as says nothing.
            let words = problem.split(separator: ":", maxSplits: 2).last ?? ""
            throw OptionProblem(MetricRegistry.trimmed(words))
        }
        return result
    }

    private mutating func trendStats(_ value: SettingsNode) -> [String]? {
        guard let names = list(value, "summaryTrendStats") else { return nil }
        for name in names where MetricSink(.trend).figure(name, seconds: 1) == nil {
            problem(value, "summaryTrendStats: '\(name)' is none of avg, min, med, max, count and p(0 to 100)")
        }
        return names
    }

    private mutating func thresholds(_ node: SettingsNode) -> [MetricThresholds] {
        entries(node, "thresholds").map { entry in
            var items = [entry.value]
            if case .sequence(let several) = entry.value.content { items = several }
            return MetricThresholds(
                entry.key, items.compactMap { threshold($0) }, origin: place(entry.line))
        }
    }

    private mutating func threshold(_ node: SettingsNode) -> Threshold? {
        var (source, aborts, delay) = ("", false, UInt64(0))
        if case .mapping(let fields) = node.content {
            for field in fields where !field.value.isNull {
                switch field.key {
                case "threshold": source = text(field.value, "threshold") ?? ""
                case "abortOnFail": aborts = boolean(field.value, "abortOnFail") ?? false
                case "delayAbortEval": delay = duration(field.value, "delayAbortEval") ?? 0
                default: unknown(field, "field of a threshold", ["threshold", "abortOnFail", "delayAbortEval"])
                }
            }
        } else {
            source = text(node, "threshold") ?? ""
        }
        switch Threshold.parse(source, abortsOnFail: aborts, delayNanoseconds: delay) {
        case .success(let threshold): return threshold
        case .failure(let error):
            problem(node, error.description)
            return nil
        }
    }

    // MARK: Values

    /// A line for messages; 0 is one that is not known.
    private func place(_ line: Int) -> String { line > 0 ? "\(file):\(line)" : "options of \(file)" }

    mutating func problem(_ node: SettingsNode, _ text: String) { problems.append("\(place(node.line)): \(text)") }

    mutating func unknown(_ entry: SettingsNode.Entry, _ what: String, _ names: [String]) {
        let near = suggestion(for: entry.key, among: names).map { "; did you mean \($0)?" } ?? ""
        problems.append("\(place(entry.line)): \(entry.key): there is no such \(what)\(near)")
    }

    mutating func entries(_ node: SettingsNode, _ name: String) -> [SettingsNode.Entry] {
        if case .mapping(let entries) = node.content { return entries }
        problem(node, "\(name): expected a mapping")
        return []
    }

    mutating func text(_ node: SettingsNode, _ name: String) -> String? {
        if case .scalar(let text, _) = node.content { return text }
        problem(node, "\(name): expected a text")
        return nil
    }

    mutating func texts(_ node: SettingsNode, _ name: String) -> [String: String] {
        var result: [String: String] = [:]
        for entry in entries(node, name) { result[entry.key] = text(entry.value, "\(name).\(entry.key)") }
        return result
    }

    mutating func list(_ node: SettingsNode, _ name: String) -> [String]? {
        guard case .sequence(let items) = node.content else { return text(node, name).map { [$0] } }
        return items.compactMap { text($0, name) }
    }

    mutating func word(_ node: SettingsNode, _ name: String, _ words: [String]) -> String? {
        guard let text = text(node, name) else { return nil }
        if words.contains(text) { return text }
        problem(node, "\(name): '\(text)' is none of \(words.joined(separator: ", "))")
        return nil
    }

    mutating func boolean(_ node: SettingsNode, _ name: String) -> Bool? {
        word(node, name, ["true", "false"]).map { $0 == "true" }
    }

    mutating func number(_ node: SettingsNode, _ name: String, _ range: ClosedRange<Double>) -> Double? {
        guard let text = text(node, name) else { return nil }
        if let number = Double(text), range.contains(number) { return number }
        problem(
            node,
            "\(name): '\(text)' is no number from \(NumberText.short(range.lowerBound, 6)) to "
                + NumberText.short(range.upperBound, 6))
        return nil
    }

    mutating func whole(_ node: SettingsNode, _ name: String, _ range: ClosedRange<Int>) -> Int? {
        guard let text = text(node, name) else { return nil }
        // A script's number may come as 1e3.
        if let number = Int(text) ?? Double(text).flatMap({ Int(exactly: $0) }), range.contains(number) {
            return number
        }
        let upper = range.upperBound == .max ? "on" : "to \(range.upperBound)"
        problem(node, "\(name): '\(text)' is no whole number from \(range.lowerBound) \(upper)")
        return nil
    }

    mutating func duration(_ node: SettingsNode, _ name: String) -> UInt64? {
        guard let text = text(node, name) else { return nil }
        if let nanoseconds = GoDuration.parse(text) { return nanoseconds }
        problem(node, "\(name): '\(text)' is no duration, such as 30s, 1m30s or 500ms")
        return nil
    }

    mutating func stages(_ node: SettingsNode, _ name: String) -> [Stage]? {
        guard case .sequence(let items) = node.content, !items.isEmpty else {
            problem(node, "\(name): expected a list of {duration, target}")
            return nil
        }
        return items.compactMap { item in
            var (length, target): (UInt64?, Double?) = (nil, nil)
            for field in entries(item, name) {
                switch field.key {
                case "duration": length = duration(field.value, "\(name).duration")
                case "target": target = number(field.value, "\(name).target", 0...1e9)
                default: unknown(field, "field of a stage", ["duration", "target"])
                }
            }
            guard let length, let target else {
                problem(item, "\(name): a stage needs a duration and a target")
                return nil
            }
            return Stage(duration: length, target: target)
        }
    }
}
