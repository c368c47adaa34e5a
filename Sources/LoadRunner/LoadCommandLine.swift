// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Settings

/// The command line of `martlet-load`, taken apart, with the environment's settings.
struct LoadCommandLine {
    /// Every option: its short letter, its name, what its value is called, and what the help says.
    static let table: [(letter: Character?, name: String, value: String?, help: String)] = [
        ("u", "vus", "N", "virtual users"),
        ("d", "duration", "TIME", "how long the test runs, such as 30s"),
        ("i", "iterations", "N", "iterations, shared by the virtual users"),
        ("s", "stage", "TIME:TARGET", "a stage of a ramp; several: -s 10s:50,20s:0"),
        ("e", "env", "NAME=VALUE", "a variable of the script's __ENV; several times"),
        ("c", "config", "FILE", "options below those of the script, in YAML or JSON"),
        ("o", "out", "NAME[=URL]", "where metrics go meanwhile: json, csv, experimental-prometheus-rw"),
        ("q", "quiet", nil, "no progress"),
        ("v", "verbose", nil, "what scripts log for debugging, too"),
        (nil, "server", "HOST:PORT", "the server; several times, or with commas (default: 127.0.0.1:11211)"),
        (nil, "tls", nil, "TLS to the servers"),
        (nil, "tls-ca", "FILE", "authorities of the servers' certificates (default: the system's)"),
        (nil, "tls-cert", "FILE", "our certificate"),
        (nil, "tls-key", "FILE", "its key"),
        (nil, "tls-server-name", "NAME", "the name that certificates must have"),
        (nil, "insecure-skip-tls-verify", nil, "certificates are not looked at"),
        (nil, "threads", "N", "threads that make the load (default: one less than the processors)"),
        (nil, "seed", "N", "the random numbers' seed (default: another one each time)"),
        (nil, "tag", "NAME=VALUE", "a tag of all samples; several times"),
        (nil, "report", "FILE", "a page of the result, in HTML"),
        (nil, "probe", "RATE", "a connection of its own measures so many times a second beside the load"),
        (nil, "search", "OBJECTIVE", "find the highest rate that keeps it, such as 'p99<2ms'"),
        (nil, "search-time", "TIME", "for each trial of a search (default: 5s)"),
        (nil, "json", nil, "a search's result as JSON"),
        (nil, "agents", "LIST", "make the load on these agents: HOST:PORT, several with commas"),
        (nil, "listen", "HOST:PORT", "where an agent waits for tests (default: 127.0.0.1:6570)"),
        (nil, "token-file", "FILE", "the token of a test's agents (or MARTLET_LOAD_TOKEN)"),
        (nil, "execution-segment", "FROM:TO", "the part of the test that is run here, such as 1/4:1/2"),
        (nil, "execution-segment-sequence", "LIST", "the limits of all parts, such as 0,1/4,1/2,3/4,1"),
        (nil, "summary-mode", "MODE", "compact, full (each scenario and group too) or disabled"),
        (nil, "summary-export", "FILE", "the result as JSON"),
        (nil, "summary-trend-stats", "LIST", "columns of trends (default: avg,min,med,max,p(90),p(95))"),
        (nil, "summary-time-unit", "UNIT", "s, ms or us instead of what fits"),
        (nil, "no-setup", nil, "without the script's setup"),
        (nil, "no-teardown", nil, "without the script's teardown"),
        (nil, "no-thresholds", nil, "thresholds are not looked at"),
        (nil, "no-summary", nil, "as --summary-mode disabled: neither summary nor export, nor handleSummary"),
        (nil, "no-color", nil, "no colours (or NO_COLOR)"),
        (nil, "system-tags", "LIST", "the tags of k6's own that samples have: scenario, group, status, check"),
        (nil, "include-system-env-vars", nil, "scripts see the environment in __ENV (default; =false: only -e)"),
        ("w", "throw", nil, "a metric throws at a value that is no number"),
        ("l", "linger", nil, "stay until Ctrl-C when the test is over"),
        (nil, "log-format", "FORMAT", "text, raw or json"),
        (nil, "log-output", "WHERE", "stderr, stdout, none or file=PATH"),
        (nil, "console-output", "FILE", "what scripts log goes there"),
        (nil, "no-usage-report", nil, "taken as k6 takes it: nothing is reported anyway"),
        (nil, "rps", "N", "requests a second that a script makes at most (default: any number)"),
        (nil, "min-iteration-duration", "TIME", "an iteration takes at least so long"),
        (nil, "setup-timeout", "TIME", "for the script's setup (default: 60s)"),
        (nil, "teardown-timeout", "TIME", "for the script's teardown (default: 60s)"),
        (nil, "version", nil, "the version"),
        ("h", "help", nil, "this text"),
    ]

    /// Flags of k6 that are taken with a warning: why they have no effect here. Those with a value say so.
    static let foreign: [(letter: Character?, name: String, hasValue: Bool, reason: String)] = [
        ("a", "address", true, "there is no REST API"),
        ("p", "paused", false, ""),
        (nil, "batch", true, http), (nil, "batch-per-host", true, http),
        (nil, "blacklist-ip", true, "connections go where servers say"),
        (nil, "block-hostnames", true, "connections go where servers say"),
        (nil, "compatibility-mode", true, "scripts are ECMAScript as JavaScriptCore has it"),
        (nil, "discard-response-bodies", false, http),
        (nil, "dns", true, "names are looked up once, before the start"),
        (nil, "features", true, "there are none of k6's"),
        (nil, "http-debug", false, http),
        (nil, "local-ips", true, "the system chooses the address"),
        (nil, "max-redirects", true, http),
        (nil, "new-machine-readable-summary", false, "handleSummary is given the data of before"),
        (nil, "no-connection-reuse", false, "clients keep their connections"),
        (nil, "no-vu-connection-reuse", false, "clients keep their connections"),
        (nil, "no-cookies-reset", false, http),
        (nil, "profiling-enabled", false, "there is no REST API"),
        (nil, "secret-source", true, "there is no module k6/secrets"),
        (nil, "traces-output", true, "there are no traces"),
        (nil, "type", true, "a file's name says what it is"),
        (nil, "user-agent", true, http),
    ]
    private static let http = "it is of HTTP"
    /// Flags whose meaning k6 lets a value change: `--http-debug=full`.
    private static let worded: Set<String> = ["http-debug"]

    private(set) var values: [String: [String]] = [:]
    let operands: [String]

    init(program: String, arguments: [String]) throws(OptionProblem) {
        // As k6's, a flag without a value may be said to be false: --quiet=false.
        let known =
            Self.table.map { ($0.letter, $0.name, $0.value != nil) }
            + Self.foreign.map { ($0.letter, $0.name, $0.hasValue) }
        let longs = known.map { OptionScanner.Long($0.1, $0.2 ? .required : .optional) }
        let letters = known.compactMap { row in row.0.map { "\($0)\(row.2 ? ":" : "")" } }
        var scanner = OptionScanner(program: program, shorts: letters.joined(), longs: longs, arguments: arguments)
        while let step = scanner.next() {
            switch step {
            case .short(let letter, let value):
                guard let row = known.first(where: { $0.0 == letter }) else { continue }
                values[row.1, default: []].append(value ?? "")
            case .long(let name, let value):
                let isBare = known.contains { $0.1 == name && !$0.2 }
                if let value, isBare, Self.truth(value) == nil, !Self.worded.contains(name) {
                    throw OptionProblem("--\(name)=\(value): expected true or false\nTry: \(program) --help")
                }
                values[name, default: []].append(value ?? "")
            case .problem(let message, let unknown):
                let near = unknown.flatMap { suggestion(for: $0, among: Self.table.map(\.name)) }
                throw OptionProblem(
                    message + (near.map { "; did you mean --\($0)?" } ?? "") + "\nTry: \(program) --help")
            }
        }
        operands = scanner.operands
    }

    /// A flag's value as Go reads it; nil when it is none.
    static func truth(_ text: String) -> Bool? {
        switch text {
        case "", "1", "t", "T", "true", "TRUE", "True": true
        case "0", "f", "F", "false", "FALSE", "False": false
        default: nil
        }
    }

    /// Whether an option is there; one without a value, whether it is not said to be false.
    func has(_ name: String) -> Bool {
        guard let given = values[name]?.last else { return false }
        let isBare = Self.table.contains { $0.name == name && $0.value == nil }
        return !isBare || Self.truth(given) != false
    }

    /// Whether a flag, or its variable (`K6_QUIET` or `MARTLET_LOAD_QUIET`), is on.
    func isOn(_ name: String, _ environment: [String: String], otherwise: Bool = false) -> Bool {
        if values[name] != nil { return has(name) }
        return setting(name, environment).flatMap { Self.truth($0) } ?? otherwise
    }

    /// The value of a flag, or of its variable.
    func setting(_ name: String, _ environment: [String: String]) -> String? {
        if let given = values[name]?.last { return given }
        let upper = name.uppercased().split(separator: "-").joined(separator: "_")
        return environment["MARTLET_LOAD_" + upper] ?? environment["K6_" + upper]
    }

    /// Whether nothing is coloured: NO_COLOR's value does not matter, as https://no-color.org has it.
    func hasNoColor(_ environment: [String: String]) -> Bool {
        isOn("no-color", environment) || !(environment["NO_COLOR"] ?? "").isEmpty
    }

    /// What k6's flags and variables ask for that has no effect here, in words. Throws what cannot be.
    func notices(_ environment: [String: String]) throws(OptionProblem) -> [String] {
        var notices: [String] = []
        for row in Self.foreign {
            guard let given = setting(row.name, environment) else { continue }
            let shown = values[row.name] == nil ? "the environment's \(row.name)" : "--\(row.name)"
            switch row.name {
            case "paused":
                if Self.truth(given) != false { throw OptionProblem("\(shown): \(OptionsReader.pausedReason)") }
            default:
                if !row.hasValue, Self.truth(given) == false { continue }
                notices.append("\(shown) has no effect here: \(row.reason)")
            }
        }
        return notices
    }

    func last(_ name: String) -> String? { values[name]?.last }

    /// What says how a test runs, as arguments: what is of this machine only is left out.
    var shipped: [String] {
        let own: Set<String> = [
            "agents", "listen", "token-file", "out", "quiet", "report", "probe", "json", "summary-export", "no-color",
            "no-summary", "summary-mode", "linger", "log-format", "log-output", "console-output",
            "include-system-env-vars",
        ]
        return values.filter { name, _ in Self.table.contains { $0.name == name } }.sorted { $0.key < $1.key }.filter {
            !own.contains($0.key)
        }.flatMap { name, given in
            let isBare = Self.table.first { $0.name == name }?.value == nil
            return given.map { isBare && $0.isEmpty ? "--\(name)" : "--\(name)=\($0)" }
        }
    }

    /// The variables of `environment` that options are taken from.
    static func variables(of environment: [String: String]) -> [String: String] {
        let flags = table.map(\.name).filter { !["out", "token-file"].contains($0) }
        let names = ["stages", "tags", "thresholds"] + flags
        let uppers = names.map { $0.uppercased().split(separator: "-").joined(separator: "_") }
        let known = Set(uppers.flatMap { ["K6_" + $0, "MARTLET_LOAD_" + $0] })
        return environment.filter { known.contains($0.key) }
    }

    /// Values of an option that may come several times, each perhaps several with commas between.
    func list(_ name: String) -> [String] {
        (values[name] ?? []).flatMap { $0.split(separator: ",").map(String.init) }
    }

    /// `NAME=VALUE` of an option that may come several times.
    func pairs(_ name: String) throws(OptionProblem) -> [String: String] {
        var result: [String: String] = [:]
        for text in values[name] ?? [] {
            guard let sign = text.firstIndex(of: "="), sign != text.startIndex else {
                throw OptionProblem("--\(name) \(text): expected NAME=VALUE")
            }
            result[String(text[..<sign])] = String(text[text.index(after: sign)...])
        }
        return result
    }

    /// The options that flags give.
    func options() throws(OptionProblem) -> LoadOptions {
        try Self.options(flag: { last($0) }, list: { list($0) }, tags: try pairs("tag"), prefix: "--")
    }

    /// The options that environment variables give: `K6_VUS` or `MARTLET_LOAD_VUS`, ours before k6's.
    static func options(environment: [String: String]) throws(OptionProblem) -> LoadOptions {
        func variable(_ name: String) -> String? {
            var upper = name.uppercased().split(separator: "-").joined(separator: "_")
            if upper == "STAGE" { upper = "STAGES" }
            return environment["MARTLET_LOAD_" + upper] ?? environment["K6_" + upper]
        }
        var tags: [String: String] = [:]
        for pair in variable("tags")?.split(separator: ",") ?? [] {
            guard let sign = pair.firstIndex(where: { $0 == ":" || $0 == "=" }), sign != pair.startIndex else {
                throw OptionProblem("the environment's tags '\(pair)': expected NAME:VALUE, several with commas")
            }
            tags[String(pair[..<sign])] = String(pair[pair.index(after: sign)...])
        }
        var result = try options(
            flag: variable, list: { name in variable(name)?.split(separator: ",").map(String.init) ?? [] }, tags: tags,
            prefix: "the environment's ")
        if let text = variable("thresholds") { result.thresholds = try thresholds(text) }
        return result
    }

    /// Thresholds as JSON: `{"checks": ["rate>0.9"]}`.
    private static func thresholds(_ text: String) throws(OptionProblem) -> [MetricThresholds]? {
        do throws(SettingsError) {
            let name = "the environment's thresholds"
            let node = try SettingsNode.parse(Array("{\"thresholds\": \(text)}".utf8), file: name)
            return try OptionsReader.read(node, file: name).thresholds
        } catch {
            throw OptionProblem(error.description)
        }
    }

    private static func options(
        flag: (String) -> String?, list: (String) -> [String], tags: [String: String], prefix: String
    ) throws(OptionProblem) -> LoadOptions {
        func number(_ name: String, _ range: ClosedRange<Int>) throws(OptionProblem) -> Int? {
            guard let text = flag(name) else { return nil }
            guard let number = Int(text), range.contains(number) else {
                let upper = range.upperBound == .max ? "" : " to \(range.upperBound)"
                throw OptionProblem(
                    "\(prefix)\(name) \(text): expected a whole number from \(range.lowerBound)\(upper)")
            }
            return number
        }
        func time(_ name: String) throws(OptionProblem) -> UInt64? {
            guard let text = flag(name) else { return nil }
            guard let time = GoDuration.parse(text) else {
                throw OptionProblem("\(prefix)\(name) \(text): expected a duration, such as 30s")
            }
            return time
        }
        func truth(_ name: String) -> Bool? { flag(name).map { Self.truth($0) ?? false } }
        var result = LoadOptions()
        result.vus = try number("vus", 1...LoadOptions.userLimit)
        result.duration = try time("duration")
        result.iterations = try number("iterations", 1...Int.max).map { UInt64($0) }
        result.threads = try number("threads", 1...LoadOptions.threadLimit)
        result.seed = try number("seed", 0...Int.max).map { UInt64($0) }
        result.requestsPerSecond = try number("rps", 0...Int.max)
        result.minIterationDuration = try time("min-iteration-duration")
        result.setupTimeout = try time("setup-timeout")
        result.teardownTimeout = try time("teardown-timeout")
        result.noSetup = truth("no-setup")
        result.noTeardown = truth("no-teardown")
        result.noThresholds = truth("no-thresholds")
        if truth("no-summary") == true { result.summaryMode = .disabled }
        if let text = flag("summary-mode") {
            guard let mode = SummaryMode(rawValue: text) else {
                throw OptionProblem("\(prefix)summary-mode \(text): expected compact, full, legacy or disabled")
            }
            result.summaryMode = mode
        }
        result.throwsErrors = truth("throw")
        result.lingers = truth("linger")
        result.skipsTLSVerification = truth("insecure-skip-tls-verify")
        result.systemTags = try systemTags(list("system-tags"), flag("system-tags") != nil, prefix)
        if flag("execution-segment") != nil || flag("execution-segment-sequence") != nil {
            result.segment = try ExecutionSegment.parse(
                flag("execution-segment"), sequence: flag("execution-segment-sequence"))
        }
        if !tags.isEmpty { result.tags = tags }
        let servers = list("server")
        if !servers.isEmpty { result.servers = servers }
        result.tls = try tls(flag, truth, prefix)
        let stages = list("stage")
        if !stages.isEmpty { result.stages = try stages.map { text throws(OptionProblem) in try stage(text, prefix) } }
        let stats = list("summary-trend-stats")
        for name in stats where MetricSink(.trend).figure(name, seconds: 1) == nil {
            throw OptionProblem("\(prefix)summary-trend-stats: '\(name)' is none of avg, min, med, max, count and p(N)")
        }
        if !stats.isEmpty { result.summaryTrendStats = stats }
        if let unit = flag("summary-time-unit") {
            guard ["s", "ms", "us"].contains(unit) else {
                throw OptionProblem("\(prefix)summary-time-unit \(unit): expected s, ms or us")
            }
            result.summaryTimeUnit = unit
        }
        return result
    }

    private static func systemTags(
        _ names: [String], _ isGiven: Bool, _ prefix: String
    ) throws(OptionProblem) -> SystemTags? {
        guard isGiven else { return nil }
        for name in names where !SystemTags.known.contains(name) {
            throw OptionProblem(
                "\(prefix)system-tags: '\(name)' is none of \(SystemTags.known.joined(separator: ", "))")
        }
        return SystemTags(Set(names))
    }

    /// TLS as far as flags say something of it; any of them switches it on.
    private static func tls(
        _ flag: (String) -> String?, _ truth: (String) -> Bool?, _ prefix: String
    ) throws(OptionProblem) -> LoadTLS? {
        var result = LoadTLS()
        result.authorityPath = flag("tls-ca")
        (result.chainPath, result.keyPath) = (flag("tls-cert"), flag("tls-key"))
        result.serverName = flag("tls-server-name")
        result.isInsecure = truth("insecure-skip-tls-verify") ?? false
        guard result.keyPath == nil || result.chainPath != nil else {
            throw OptionProblem("\(prefix)tls-key: a key needs its certificate, \(prefix)tls-cert")
        }
        return result == LoadTLS() && truth("tls") != true ? nil : result
    }

    private static func stage(_ text: String, _ prefix: String) throws(OptionProblem) -> Stage {
        let parts = text.split(separator: ":")
        guard parts.count == 2, let length = GoDuration.parse(String(parts[0])), let target = Double(parts[1]),
            target >= 0, target <= 1e9
        else { throw OptionProblem("\(prefix)stage \(text): expected DURATION:TARGET, such as 30s:50") }
        return Stage(duration: length, target: target)
    }
}
