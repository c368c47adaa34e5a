// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Settings

extension OptionsReader {
    /// The fields of a scenario, as far as they are given.
    private struct Fields {
        var executor: String?
        var vus: Int?
        var iterations: UInt64?
        var duration: UInt64?
        var maxDuration: UInt64?
        var startVUs: Int?
        var stages: [Stage]?
        var gracefulRampDown: UInt64?
        var rate: Double?
        var startRate: Double?
        var timeUnit: UInt64?
        var preAllocatedVUs: Int?
        var maxVUs: Int?
        var speed: Double?
        var spacing = ArrivalSpacing.even
        var busy = BusyPolicy.drop
    }

    private static let executors: [String: [String]] = [
        "shared-iterations": ["vus", "iterations", "maxDuration"],
        "per-vu-iterations": ["vus", "iterations", "maxDuration"],
        "constant-vus": ["vus", "duration"],
        "ramping-vus": ["startVUs", "stages", "gracefulRampDown"],
        "constant-arrival-rate": [
            "rate", "timeUnit", "duration", "preAllocatedVUs", "maxVUs", "arrival", "busy",
        ],
        "ramping-arrival-rate": [
            "startRate", "timeUnit", "stages", "preAllocatedVUs", "maxVUs", "arrival", "busy",
        ],
        "trace-replay": ["speed", "duration", "preAllocatedVUs", "maxVUs", "busy"],
    ]

    private static let common = [
        "executor", "startTime", "gracefulStop", "env", "exec", "tags", "workload", "options",
    ]

    /// The scenarios of a test.
    mutating func scenarios(_ node: SettingsNode) -> [Scenario] {
        let all = entries(node, "scenarios")
        if all.isEmpty { problem(node, "scenarios: expected at least one") }
        return all.compactMap { scenario($0) }
    }

    private mutating func scenario(_ entry: SettingsNode.Entry) -> Scenario? {
        let path = "scenarios.\(entry.key)"
        var result = Scenario(name: entry.key, plan: .constantUsers(users: 1, duration: 1))
        let isName = entry.key.unicodeScalars.allSatisfy {
            $0 == "_" || $0 == "-" || ("0"..."9").contains($0) || ("a"..."z").contains($0) || ("A"..."Z").contains($0)
        }
        if !isName || entry.key.isEmpty {
            problem(entry.value, "\(path): a scenario's name has letters, digits, _ and - only")
        }
        var fields = Fields()
        let all = entries(entry.value, path).filter { !$0.value.isNull }
        if let executor = all.first(where: { $0.key == "executor" }) {
            fields.executor = word(executor.value, "\(path).executor", Self.executors.keys.sorted())
        } else {
            problem(entry.value, "\(path): executor is missing")
        }
        guard let executor = fields.executor, let own = Self.executors[executor] else { return nil }
        for field in all {
            let name = "\(path).\(field.key)"
            switch field.key {
            case "executor", "options": break
            case "startTime": result.startTime = duration(field.value, name) ?? 0
            case "gracefulStop": result.gracefulStop = duration(field.value, name) ?? 0
            case "env": result.environment = texts(field.value, name)
            case "exec": result.function = text(field.value, name) ?? "default"
            case "tags": result.tags = texts(field.value, name)
            case "workload": result.workload = workload(field.value)
            default:
                if own.contains(field.key) {
                    read(field, name, &fields)
                } else if Self.executors.values.contains(where: { $0.contains(field.key) }) {
                    problem(field.value, "\(name): \(executor) has no such option")
                } else {
                    unknown(field, "option of a scenario", own + Self.common)
                }
            }
        }
        guard let plan = plan(entry, path, fields) else { return nil }
        result.plan = plan
        return result
    }

    private mutating func read(_ field: SettingsNode.Entry, _ name: String, _ fields: inout Fields) {
        let value = field.value
        switch field.key {
        case "vus": fields.vus = whole(value, name, 1...LoadOptions.userLimit)
        case "iterations": fields.iterations = whole(value, name, 1...Int.max).map { UInt64($0) }
        case "duration": fields.duration = duration(value, name)
        case "maxDuration": fields.maxDuration = duration(value, name)
        case "startVUs": fields.startVUs = whole(value, name, 0...LoadOptions.userLimit)
        case "stages": fields.stages = stages(value, name)
        case "gracefulRampDown": fields.gracefulRampDown = duration(value, name)
        case "rate": fields.rate = number(value, name, 1e-6...1e9)
        case "startRate": fields.startRate = number(value, name, 0...1e9)
        case "timeUnit":
            fields.timeUnit = duration(value, name)
            if fields.timeUnit == 0 { problem(value, "\(name): expected more than 0") }
        case "preAllocatedVUs": fields.preAllocatedVUs = whole(value, name, 0...LoadOptions.userLimit)
        case "maxVUs": fields.maxVUs = whole(value, name, 1...LoadOptions.userLimit)
        case "speed": fields.speed = number(value, name, 1e-6...1e9)
        case "arrival":
            let words = ArrivalSpacing.allCases.map(\.rawValue)
            fields.spacing = word(value, name, words).flatMap { ArrivalSpacing(rawValue: $0) } ?? .even
        case "busy":
            let words = BusyPolicy.allCases.map(\.rawValue)
            fields.busy = word(value, name, words).flatMap { BusyPolicy(rawValue: $0) } ?? .drop
        default: break
        }
    }

    private mutating func plan(_ entry: SettingsNode.Entry, _ path: String, _ fields: Fields) -> ExecutorPlan? {
        func missing(_ name: String) -> ExecutorPlan? {
            problem(entry.value, "\(path): \(fields.executor ?? "") needs \(name)")
            return nil
        }
        let perSecond = 1e9 / Double(max(fields.timeUnit ?? 1_000_000_000, 1))
        switch fields.executor {
        case "shared-iterations":
            let (users, iterations) = (fields.vus ?? 1, fields.iterations ?? UInt64(fields.vus ?? 1))
            guard iterations >= UInt64(users) else {
                problem(
                    entry.value, "\(path): \(iterations) iterations are fewer than the \(users) VUs that share them")
                return nil
            }
            return .sharedIterations(
                users: users, iterations: iterations, maxDuration: fields.maxDuration ?? tenMinutes)
        case "per-vu-iterations":
            return .perUserIterations(
                users: fields.vus ?? 1, iterations: fields.iterations ?? 1,
                maxDuration: fields.maxDuration ?? tenMinutes)
        case "constant-vus":
            guard let duration = fields.duration, duration > 0 else { return missing("a duration of more than 0") }
            return .constantUsers(users: fields.vus ?? 1, duration: duration)
        case "ramping-vus":
            guard let stages = fields.stages else { return missing("stages") }
            return .rampingUsers(
                start: fields.startVUs ?? 1, stages: stages,
                gracefulRampDown: fields.gracefulRampDown ?? thirtySeconds)
        case "constant-arrival-rate":
            guard let rate = fields.rate else { return missing("a rate") }
            guard let duration = fields.duration, duration > 0 else { return missing("a duration of more than 0") }
            guard let users = arrivalUsers(entry, path, fields) else { return missing("preAllocatedVUs") }
            return .constantArrivals(rate: rate * perSecond, duration: duration, users: users)
        case "ramping-arrival-rate":
            guard let stages = fields.stages else { return missing("stages") }
            guard let users = arrivalUsers(entry, path, fields) else { return missing("preAllocatedVUs") }
            let scaled = stages.map { Stage(duration: $0.duration, target: $0.target * perSecond) }
            return .rampingArrivals(start: (fields.startRate ?? 0) * perSecond, stages: scaled, users: users)
        default:
            guard let users = arrivalUsers(entry, path, fields) else { return missing("preAllocatedVUs") }
            // A year: until the trace ends.
            return .trace(
                speed: fields.speed ?? 1, duration: fields.duration ?? 31_536_000_000_000_000, users: users)
        }
    }

    private mutating func arrivalUsers(
        _ entry: SettingsNode.Entry, _ path: String, _ fields: Fields
    ) -> ArrivalUsers? {
        guard let first = fields.preAllocatedVUs else { return nil }
        let most = fields.maxVUs ?? max(first, 1)
        if most < first {
            problem(entry.value, "\(path): maxVUs (\(most)) is less than preAllocatedVUs (\(first))")
        }
        var users = ArrivalUsers(preallocated: first, maximum: max(first, most))
        users.spacing = fields.spacing
        users.busy = fields.busy
        return users
    }
}
