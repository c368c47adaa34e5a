// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Settings

extension OptionsReader {
    private static let workloadFields = [
        "preset", "operations", "keys", "keyDistribution", "keyPrefix", "keySize", "valueSize", "valueLimit", "ttl",
        "churn", "pipeline", "keysPerGet", "protocol", "onMiss", "preload", "verify", "trace",
    ]

    /// A workload: a preset's name, or a mapping that may begin with one and changes it.
    mutating func workload(_ node: SettingsNode) -> Workload? {
        if case .scalar(let name, _) = node.content { return preset(node, name) }
        let fields = entries(node, "workload")
        var result = Workload()
        if let preset = fields.first(where: { $0.key == "preset" }) {
            result = text(preset.value, "workload.preset").flatMap { self.preset(preset.value, $0) } ?? result
        }
        for field in fields where field.key != "preset" && !field.value.isNull {
            read(field, "workload.\(field.key)", &result)
        }
        check(node, &result)
        return result
    }

    private mutating func preset(_ node: SettingsNode, _ name: String) -> Workload? {
        if let found = WorkloadPreset.named(name) { return found }
        let near = suggestion(for: name, among: WorkloadPreset.names).map { "; did you mean \($0)?" } ?? ""
        problem(node, "workload: there is no preset '\(name)'\(near) All: martlet-load presets")
        return nil
    }

    private mutating func read(_ field: SettingsNode.Entry, _ name: String, _ result: inout Workload) {
        let value = field.value
        switch field.key {
        case "operations": operations(value, name, &result)
        case "keys": result.keys = whole(value, name, 1...Int(Workload.keyLimit)).map { UInt64($0) } ?? 1
        case "keyDistribution": result.keyDistribution = parsed(value, name, KeyDistribution.parse) ?? .uniform
        case "keyPrefix": result.keyPrefix = prefix(value, name) ?? ""
        case "keySize": result.keySize = parsed(value, name, SizeDistribution.parse)
        case "valueSize": result.valueSize = parsed(value, name, SizeDistribution.parse) ?? .fixed(100)
        case "valueLimit": result.valueLimit = whole(value, name, 0...(128 << 20)) ?? 1
        case "ttl": expiries(value, name, &result)
        case "churn": result.churn = number(value, name, 0...1) ?? 0
        case "pipeline": result.pipeline = whole(value, name, 1...Workload.pipelineLimit) ?? 1
        case "keysPerGet": result.keysPerGet = whole(value, name, 1...1000) ?? 1
        case "protocol":
            let words = WireProtocol.allCases.map(\.rawValue)
            result.wire = word(value, name, words).flatMap { WireProtocol(rawValue: $0) } ?? .classic
        case "onMiss": result.fillsMisses = word(value, name, ["set", "nothing"]) == "set"
        case "preload": result.preloads = boolean(value, name) ?? false
        case "verify": result.verifies = boolean(value, name) ?? false
        case "trace": result.trace = text(value, name)
        default: unknown(field, "field of a workload", Self.workloadFields)
        }
    }

    private mutating func parsed<T>(
        _ node: SettingsNode, _ name: String, _ parse: (String) -> Result<T, OptionProblem>
    ) -> T? {
        guard let text = text(node, name) else { return nil }
        switch parse(text) {
        case .success(let value): return value
        case .failure(let error):
            problem(node, "\(name): \(error.description)")
            return nil
        }
    }

    private mutating func prefix(_ node: SettingsNode, _ name: String) -> String? {
        guard let text = text(node, name) else { return nil }
        if text.utf8.count <= 200, text.utf8.allSatisfy({ $0 > 32 && $0 != 127 }) { return text }
        problem(node, "\(name): expected at most 200 bytes without spaces and control characters")
        return nil
    }

    private mutating func operations(_ node: SettingsNode, _ name: String, _ result: inout Workload) {
        var all: [(operation: Operation, share: Double)] = []
        for entry in entries(node, name) {
            guard let operation = Operation.ofWorkloads.first(where: { $0.name == entry.key }) else {
                unknown(entry, "operation", Operation.ofWorkloads.map(\.name))
                continue
            }
            guard let share = number(entry.value, "\(name).\(entry.key)", 0...1e9) else { continue }
            if share > 0 { all.append((operation, share)) }
        }
        let sum = all.reduce(0) { $0 + $1.share }
        guard sum > 0 else {
            problem(node, "\(name): expected at least one share of more than 0, such as {get: 0.9, set: 0.1}")
            return
        }
        result.operations = all.map { ($0.operation, $0.share / sum) }
    }

    /// `ttl: 60s`, or several with their shares: `{60s: 0.4, 1h: 0.6}`. A bare number is seconds, as in scripts.
    private mutating func expiries(_ node: SettingsNode, _ name: String, _ result: inout Workload) {
        guard case .mapping(let entries) = node.content else {
            result.expiries = [(text(node, name).flatMap { seconds($0, node, name) } ?? 0, 1)]
            return
        }
        var all: [(seconds: Int64, share: Double)] = []
        for entry in entries {
            guard let length = seconds(entry.key, entry.value, name) else { continue }
            if let share = number(entry.value, "\(name).\(entry.key)", 0...1e9), share > 0 {
                all.append((length, share))
            }
        }
        let sum = all.reduce(0) { $0 + $1.share }
        guard sum > 0 else {
            problem(node, "\(name): expected at least one share of more than 0, such as {60s: 0.4, 1h: 0.6}")
            return
        }
        result.expiries = all.map { ($0.seconds, $0.share / sum) }
    }

    private mutating func seconds(_ text: String, _ node: SettingsNode, _ name: String) -> Int64? {
        if let seconds = Int64(text), (0...Int64(longestDuration / 1_000_000_000)).contains(seconds) { return seconds }
        if let length = GoDuration.parse(text), Double(text) == nil, length % 1_000_000_000 == 0 {
            return Int64(length / 1_000_000_000)
        }
        problem(node, "\(name): '\(text)' is no number of whole seconds, such as 60s or 1h")
        return nil
    }

    private mutating func check(_ node: SettingsNode, _ result: inout Workload) {
        for one in result.operations {
            if let reason = result.refusal(of: one.operation) { problem(node, "workload.\(reason)") }
        }
    }
}
