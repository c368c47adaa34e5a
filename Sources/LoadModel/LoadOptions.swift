// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A test's options as one place gives them: what is nil is left to the places below it.
package struct LoadOptions: Sendable {
    /// Virtual users.
    package var vus: Int?
    /// Nanoseconds.
    package var duration: UInt64?
    /// Iterations that all virtual users share.
    package var iterations: UInt64?
    /// A ramp of virtual users.
    package var stages: [Stage]?
    /// Scenarios by their names.
    package var scenarios: [Scenario]?
    /// Conditions on metrics.
    package var thresholds: [MetricThresholds]?
    /// Tags of all samples.
    package var tags: [String: String]?
    /// Nanoseconds that setup may take.
    package var setupTimeout: UInt64?
    /// Nanoseconds that teardown may take.
    package var teardownTimeout: UInt64?
    /// Nanoseconds that handleSummary may take.
    package var handleSummaryTimeout: UInt64?
    /// Nanoseconds that an iteration of a script takes at least.
    package var minIterationDuration: UInt64?
    /// The columns of trends.
    package var summaryTrendStats: [String]?
    /// `s`, `ms` or `us`.
    package var summaryTimeUnit: String?
    /// Whether setup is left out.
    package var noSetup: Bool?
    /// Whether teardown is left out.
    package var noTeardown: Bool?
    /// Whether thresholds are left out.
    package var noThresholds: Bool?
    /// How much of a summary there is.
    package var summaryMode: SummaryMode?
    /// The servers of scenarios without script, and of a script's client that names none: `host:port` or a path.
    package var servers: [String]?
    /// How TLS is spoken to those servers; nil for not at all.
    package var tls: LoadTLS?
    /// The workload of scenarios that name none.
    package var workload: Workload?
    /// Threads that make the load.
    package var threads: Int?
    /// The seed of all random numbers.
    package var seed: UInt64?
    /// The part of the test that is run here; all of it when nil.
    package var segment: ExecutionSegment?
    /// The tags of k6's own that samples have: all when nil.
    package var systemTags: SystemTags?
    /// Whether certificates of servers are not looked at, wherever TLS is spoken.
    package var skipsTLSVerification: Bool?
    /// Whether nothing older than TLS 1.3 is spoken, wherever TLS is.
    package var requiresTLS13: Bool?
    /// Whether a metric throws at a value that is no number, instead of a warning.
    package var throwsErrors: Bool?
    /// Whether the program stays until Ctrl-C when the test is over.
    package var lingers: Bool?
    /// Requests a second that a script may make at most; 0 for any number.
    package var requestsPerSecond: Int?
    /// What was asked for and has no effect here, in words.
    package var notices: [String] = []
    /// Whether a number of virtual users from a higher place stands in the place of a lower one's scenarios, which k6
    /// warns of.
    package var isOverridden = false

    /// Nothing.
    package init() {}

    /// These options with `higher` on top. Whatever says how the test runs replaces all that a lower place says of it.
    package func overridden(by higher: LoadOptions) -> LoadOptions {
        var result = self
        func take<T>(_ path: WritableKeyPath<LoadOptions, T?>) {
            if let value = higher[keyPath: path] { result[keyPath: path] = value }
        }
        if higher.duration != nil || higher.iterations != nil || higher.stages != nil || higher.scenarios != nil {
            result.duration = higher.duration
            result.iterations = higher.iterations
            result.stages = higher.stages
            result.scenarios = higher.scenarios
            result.isOverridden = higher.isOverridden
        } else if higher.vus != nil, scenarios != nil {
            result.isOverridden = true
        }
        take(\.vus)
        take(\.thresholds)
        take(\.setupTimeout)
        take(\.teardownTimeout)
        take(\.handleSummaryTimeout)
        take(\.minIterationDuration)
        take(\.summaryTrendStats)
        take(\.summaryTimeUnit)
        take(\.noSetup)
        take(\.noTeardown)
        take(\.noThresholds)
        take(\.summaryMode)
        take(\.servers)
        take(\.tls)
        take(\.workload)
        take(\.threads)
        take(\.seed)
        take(\.segment)
        take(\.systemTags)
        take(\.skipsTLSVerification)
        take(\.requiresTLS13)
        take(\.throwsErrors)
        take(\.lingers)
        take(\.requestsPerSecond)
        // As in k6, tags replace those of a lower place.
        take(\.tags)
        result.notices += higher.notices.filter { !result.notices.contains($0) }
        return result
    }

    /// What the test says of TLS wherever it is spoken.
    package var tlsRules: LoadTLSRules {
        var rules = LoadTLSRules()
        rules.skipsVerification = skipsTLSVerification ?? false
        rules.requiresTLS13 = requiresTLS13 ?? false
        return rules
    }

    /// The scenarios that these options come to: those that are named, or the one that the shortcuts describe. Throws
    /// what says twice how the test runs. Source: k6's DeriveScenariosFromShortcuts.
    package func resolvedScenarios() throws(OptionProblem) -> [Scenario] {
        let shortcuts = [("iterations", iterations != nil), ("duration", duration != nil), ("stages", stages != nil)]
        let given = shortcuts.filter(\.1).map(\.0) + (scenarios == nil ? [] : ["scenarios"])
        if given.count > 1, given != ["iterations", "duration"] {
            throw OptionProblem("\(given.joined(separator: " and ")): only one of them can say how the test runs")
        }
        var result = isOverridden ? nil : scenarios
        if result == nil { result = [Scenario(name: "default", plan: try shortcutPlan())] }
        return try (result ?? []).map { one throws(OptionProblem) in try completed(one) }
    }

    private func shortcutPlan() throws(OptionProblem) -> ExecutorPlan {
        if let iterations {
            let users = vus ?? 1
            guard users >= 1, iterations >= UInt64(users) else {
                throw OptionProblem("iterations: \(iterations) are fewer than the \(users) VUs that share them")
            }
            return .sharedIterations(users: users, iterations: iterations, maxDuration: duration ?? tenMinutes)
        }
        if let duration {
            guard duration > 0 else { throw OptionProblem("duration: expected more than 0") }
            return .constantUsers(users: vus ?? 1, duration: duration)
        }
        if let stages { return .rampingUsers(start: vus ?? 1, stages: stages, gracefulRampDown: thirtySeconds) }
        if let vus, vus > 1 || isOverridden {
            return .sharedIterations(users: vus, iterations: UInt64(vus), maxDuration: tenMinutes)
        }
        return .perUserIterations(users: 1, iterations: 1, maxDuration: tenMinutes)
    }

    private func completed(_ scenario: Scenario) throws(OptionProblem) -> Scenario {
        var one = scenario
        if one.workload == nil { one.workload = workload }
        one.tags.merge(tags ?? [:]) { own, _ in own }
        let names = systemTags ?? .all
        if names.has("scenario"), one.tags["scenario"] == nil { one.tags["scenario"] = one.name }
        let length = one.plan.stages.reduce(0) { $0 + Double($1.duration) }
        guard length <= Double(longestDuration) else {
            throw OptionProblem("scenario \(one.name): its stages take more than a century")
        }
        let users = one.plan.maximumUsers
        guard users >= 1, users <= Self.userLimit else {
            throw OptionProblem("scenario \(one.name): expected 1 to \(Self.userLimit) VUs, not \(users)")
        }
        if one.workload?.preloads == true, one.plan.initialUsers == 0 {
            throw OptionProblem("scenario \(one.name): preload needs a VU that is made before the start")
        }
        return one
    }

    /// Virtual users of a scenario at most.
    package static let userLimit = 100_000
    /// Threads at most.
    package static let threadLimit = 256
}

/// How much of a summary there is at the end. Source: k6's option `--summary-mode`.
package enum SummaryMode: String, Sendable, CaseIterable {
    /// Thresholds, checks and metrics.
    case compact
    /// These, and each scenario and group for itself.
    case full
    /// What k6 had before 1.0: the same as compact here.
    case legacy
    /// Nothing: neither handleSummary is called nor an export written.
    case disabled
}

/// Which of k6's system tags samples have. Those of ours, `op`, they always have.
package struct SystemTags: Sendable, Equatable {
    private let names: Set<String>

    /// Every one.
    package static let all = SystemTags(Set(known))
    /// Those that k6 knows.
    package static let known = [
        "proto", "subproto", "status", "method", "url", "name", "group", "check", "error", "error_code", "tls_version",
        "scenario", "service", "expected_response", "iter", "vu", "ocsp_status", "ip",
    ]

    /// These of ``known``.
    package init(_ names: Set<String>) { self.names = names }

    /// Whether samples have the tag.
    package func has(_ name: String) -> Bool { names.contains(name) }
}

let tenMinutes: UInt64 = 600_000_000_000
let thirtySeconds: UInt64 = 30_000_000_000
