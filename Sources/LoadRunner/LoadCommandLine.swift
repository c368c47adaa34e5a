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
        ("v", "verbose", nil, "taken as k6 takes it, without effect"),
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
        (nil, "summary-export", "FILE", "the result as JSON"),
        (nil, "summary-trend-stats", "LIST", "columns of trends (default: avg,min,med,max,p(90),p(95))"),
        (nil, "summary-time-unit", "UNIT", "s, ms or us instead of what fits"),
        (nil, "no-setup", nil, "without the script's setup"),
        (nil, "no-teardown", nil, "without the script's teardown"),
        (nil, "no-thresholds", nil, "thresholds are not looked at"),
        (nil, "no-summary", nil, "no summary at the end"),
        (nil, "no-color", nil, "no colours"),
        (nil, "min-iteration-duration", "TIME", "an iteration takes at least so long"),
        (nil, "setup-timeout", "TIME", "for the script's setup (default: 60s)"),
        (nil, "teardown-timeout", "TIME", "for the script's teardown (default: 60s)"),
        (nil, "version", nil, "the version"),
        ("h", "help", nil, "this text"),
    ]

    private(set) var values: [String: [String]] = [:]
    let operands: [String]

    init(program: String, arguments: [String]) throws(OptionProblem) {
        let longs = Self.table.map { OptionScanner.Long($0.name, $0.value == nil ? .none : .required) }
        let letters = Self.table.compactMap { row in row.letter.map { "\($0)\(row.value == nil ? "" : ":")" } }
        var scanner = OptionScanner(program: program, shorts: letters.joined(), longs: longs, arguments: arguments)
        while let step = scanner.next() {
            switch step {
            case .short(let letter, let value):
                guard let row = Self.table.first(where: { $0.letter == letter }) else { continue }
                values[row.name, default: []].append(value ?? "")
            case .long(let name, let value): values[name, default: []].append(value ?? "")
            case .problem(let message, let unknown):
                let near = unknown.flatMap { suggestion(for: $0, among: Self.table.map(\.name)) }
                throw OptionProblem(
                    message + (near.map { "; did you mean --\($0)?" } ?? "") + "\nTry: \(program) --help")
            }
        }
        operands = scanner.operands
    }

    func has(_ name: String) -> Bool { values[name] != nil }

    func last(_ name: String) -> String? { values[name]?.last }

    /// What says how a test runs, as arguments: what is of this machine only is left out.
    var shipped: [String] {
        let own: Set<String> = [
            "agents", "listen", "token-file", "out", "quiet", "report", "probe", "json", "summary-export", "no-color",
            "no-summary",
        ]
        return values.sorted { $0.key < $1.key }.filter { !own.contains($0.key) }.flatMap { name, given in
            let isBare = Self.table.first { $0.name == name }?.value == nil
            return given.map { isBare ? "--\(name)" : "--\(name)=\($0)" }
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
        func truth(_ name: String) -> Bool? { flag(name).map { $0.isEmpty || $0 == "true" || $0 == "1" } }
        var result = LoadOptions()
        result.vus = try number("vus", 1...LoadOptions.userLimit)
        result.duration = try time("duration")
        result.iterations = try number("iterations", 1...Int.max).map { UInt64($0) }
        result.threads = try number("threads", 1...LoadOptions.threadLimit)
        result.seed = try number("seed", 0...Int.max).map { UInt64($0) }
        result.minIterationDuration = try time("min-iteration-duration")
        result.setupTimeout = try time("setup-timeout")
        result.teardownTimeout = try time("teardown-timeout")
        result.noSetup = truth("no-setup")
        result.noTeardown = truth("no-teardown")
        result.noThresholds = truth("no-thresholds")
        result.noSummary = truth("no-summary")
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
