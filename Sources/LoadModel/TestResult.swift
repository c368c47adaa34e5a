// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How a check of a script went.
package struct CheckResult: Sendable, Equatable {
    /// Its name.
    package let name: String
    /// How often it held.
    package var passes: UInt64 = 0
    /// How often it did not.
    package var fails: UInt64 = 0

    /// A check that was not made yet.
    package init(_ name: String) { self.name = name }
}

/// The checks of a script by its groups, in the order they were first met.
package struct CheckGroup: Sendable, Equatable {
    /// Empty for the whole script.
    package let name: String
    /// The names of the groups around it and its own, each behind `::`.
    package let path: String
    /// The groups in it.
    package private(set) var groups: [CheckGroup] = []
    /// The checks in it, those of its groups not counted.
    package private(set) var checks: [CheckResult] = []
    private var groupIndexes: [String: Int] = [:]
    private var checkIndexes: [String: Int] = [:]

    /// Checks of a group at most, and groups of one; what has more names than that is counted under ``others``.
    package static let limit = 1000
    /// The name of those over the limit.
    package static let others = "(others)"

    /// A group without checks; by default the whole script.
    package init(name: String = "", path: String = "") {
        self.name = name
        self.path = path
    }

    /// Counts a check in the group of these names.
    package mutating func count(_ check: String, in names: ArraySlice<String>, passes: UInt64, fails: UInt64) {
        if let first = names.first {
            groups[place(ofGroup: first)].count(check, in: names.dropFirst(), passes: passes, fails: fails)
            return
        }
        let index = place(ofCheck: check)
        checks[index].passes += passes
        checks[index].fails += fails
    }

    private mutating func place(ofGroup name: String) -> Int {
        if let known = groupIndexes[name] { return known }
        if groups.count >= Self.limit, name != Self.others { return place(ofGroup: Self.others) }
        groups.append(CheckGroup(name: name, path: "\(path)::\(name)"))
        groupIndexes[name] = groups.count - 1
        return groups.count - 1
    }

    private mutating func place(ofCheck name: String) -> Int {
        if let known = checkIndexes[name] { return known }
        if checks.count >= Self.limit, name != Self.others { return place(ofCheck: Self.others) }
        checks.append(CheckResult(name))
        checkIndexes[name] = checks.count - 1
        return checks.count - 1
    }

    /// Makes the group of these names known, though it has no checks.
    package mutating func note(_ names: ArraySlice<String>) {
        guard let first = names.first else { return }
        groups[place(ofGroup: first)].note(names.dropFirst())
    }

    /// Adds what another thread counted.
    package mutating func add(_ other: CheckGroup, in names: [String] = []) {
        for check in other.checks { count(check.name, in: names[...], passes: check.passes, fails: check.fails) }
        for group in other.groups {
            note((names + [group.name])[...])
            add(group, in: names + [group.name])
        }
    }

    /// Whether there is neither a check nor a group in it.
    package var isEmpty: Bool { checks.isEmpty && groups.isEmpty }

    /// All checks, of the groups in it too.
    package var totals: (passes: UInt64, fails: UInt64) {
        var sum = (passes: UInt64(0), fails: UInt64(0))
        for check in checks { sum = (sum.passes + check.passes, sum.fails + check.fails) }
        for group in groups {
            let inner = group.totals
            sum = (sum.passes + inner.passes, sum.fails + inner.fails)
        }
        return sum
    }
}

/// What a test came to.
package struct TestResult: Sendable {
    /// The metrics and their places.
    package var registry: MetricRegistry
    /// The places of those that every test has.
    package var builtIn: BuiltInMetrics
    /// One for each place of the registry.
    package var sinks: [MetricSink]
    /// How the thresholds stand.
    package var verdicts: [ThresholdSet.Verdict] = []
    /// The script's checks.
    package var checks = CheckGroup()
    /// What was gathered by all tags, where that was asked for.
    package var series = SeriesTable()
    /// How long the scenarios ran.
    package var nanoseconds: UInt64 = 0

    /// A result.
    package init(registry: MetricRegistry, builtIn: BuiltInMetrics, sinks: [MetricSink]) {
        self.registry = registry
        self.builtIn = builtIn
        self.sinks = sinks
    }

    /// How long the scenarios ran, in seconds.
    package var seconds: Double { Double(nanoseconds) / 1e9 }

    /// Whether a threshold failed.
    package var hasFailed: Bool { verdicts.contains { !$0.isPassed } }

    /// The default columns of trends.
    package static let trendStats = ["avg", "min", "med", "max", "p(90)", "p(95)"]
}

/// How the program ends. Source: k6's documentation of its exit codes.
package enum ExitCode: Int32, Sendable {
    case success = 0
    case thresholds = 99
    case setupTimeout = 100
    case teardownTimeout = 101
    case generic = 102
    case invalidOptions = 104
    case interrupted = 105
    case scriptException = 107
    case aborted = 108
    case markedFailed = 110
}
