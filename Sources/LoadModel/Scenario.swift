// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A part of a ramp: from where the one before ended to `target`, in a straight line.
package struct Stage: Sendable, Equatable {
    /// How long it takes, in nanoseconds; 0 is a jump.
    package let duration: UInt64
    /// Virtual users, or iterations a time unit.
    package let target: Double

    /// A stage.
    package init(duration: UInt64, target: Double) {
        self.duration = duration
        self.target = target
    }
}

/// Nanoseconds that a duration, or the stages of a ramp together, may have: a century.
package let longestDuration: UInt64 = 3_200_000_000_000_000_000

/// How arrivals are spaced.
package enum ArrivalSpacing: String, Sendable, CaseIterable {
    /// Evenly, as k6 does.
    case even
    /// At random, each independent of the others: a Poisson process.
    case poisson
}

/// What becomes of an arrival that finds every virtual user busy.
package enum BusyPolicy: String, Sendable, CaseIterable {
    /// It is dropped and counted (`dropped_iterations`), as k6 does.
    case drop
    /// It waits for the next free one, and its clock runs.
    case wait
}

/// Virtual users for arrivals.
package struct ArrivalUsers: Sendable, Equatable {
    /// Made before the start.
    package var preallocated: Int
    /// Made at most.
    package var maximum: Int
    /// How arrivals are spaced.
    package var spacing = ArrivalSpacing.even
    /// What becomes of an arrival when all are busy.
    package var busy = BusyPolicy.drop

    /// `preallocated` of at most `maximum`.
    package init(preallocated: Int, maximum: Int) {
        self.preallocated = preallocated
        self.maximum = maximum
    }
}

/// How a scenario's iterations are started: k6's six executors, and one for traces. Times in nanoseconds; rates in
/// iterations a second.
package enum ExecutorPlan: Sendable, Equatable {
    case sharedIterations(users: Int, iterations: UInt64, maxDuration: UInt64)
    case perUserIterations(users: Int, iterations: UInt64, maxDuration: UInt64)
    case constantUsers(users: Int, duration: UInt64)
    case rampingUsers(start: Int, stages: [Stage], gracefulRampDown: UInt64)
    case constantArrivals(rate: Double, duration: UInt64, users: ArrivalUsers)
    case rampingArrivals(start: Double, stages: [Stage], users: ArrivalUsers)
    /// Arrivals at the times of a trace's rows, `speed` times as fast.
    case trace(speed: Double, duration: UInt64, users: ArrivalUsers)

    /// As k6 names it.
    package var name: String {
        switch self {
        case .sharedIterations: "shared-iterations"
        case .perUserIterations: "per-vu-iterations"
        case .constantUsers: "constant-vus"
        case .rampingUsers: "ramping-vus"
        case .constantArrivals: "constant-arrival-rate"
        case .rampingArrivals: "ramping-arrival-rate"
        case .trace: "trace-replay"
        }
    }

    /// How long new iterations are started at most.
    package var regularDuration: UInt64 {
        switch self {
        case .sharedIterations(_, _, let limit), .perUserIterations(_, _, let limit): limit
        case .constantUsers(_, let duration): duration
        case .rampingUsers(_, let stages, _), .rampingArrivals(_, let stages, _):
            stages.reduce(0) { $0 + $1.duration }
        case .constantArrivals(_, let duration, _), .trace(_, let duration, _): duration
        }
    }

    /// The stages of a ramp; none of other executors.
    package var stages: [Stage] {
        switch self {
        case .rampingUsers(_, let stages, _), .rampingArrivals(_, let stages, _): stages
        default: []
        }
    }

    /// The most virtual users at once.
    package var maximumUsers: Int {
        switch self {
        case .sharedIterations(let users, _, _), .perUserIterations(let users, _, _), .constantUsers(let users, _):
            users
        case .rampingUsers(let start, let stages, _): max(start, Int(stages.map(\.target).max() ?? 0))
        case .constantArrivals(_, _, let users), .rampingArrivals(_, _, let users), .trace(_, _, let users):
            users.maximum
        }
    }

    /// The virtual users to have before the start.
    package var initialUsers: Int { arrivalUsers?.preallocated ?? maximumUsers }

    /// How arrivals are served; nil when virtual users loop on their own.
    package var arrivalUsers: ArrivalUsers? {
        switch self {
        case .constantArrivals(_, _, let users), .rampingArrivals(_, _, let users), .trace(_, _, let users): users
        default: nil
        }
    }
}

/// A scenario: what is run, by whom, when.
package struct Scenario: Sendable {
    /// Letters, digits, `_` and `-`.
    package var name: String
    /// How its iterations are started.
    package var plan: ExecutorPlan
    /// When it starts, counted from the test's start, in nanoseconds.
    package var startTime: UInt64 = 0
    /// How long iterations may go on after the regular end, in nanoseconds.
    package var gracefulStop: UInt64 = 30_000_000_000
    /// The script's function.
    package var function = "default"
    /// Variables of its script, above those of the test.
    package var environment: [String: String] = [:]
    /// Tags of its samples.
    package var tags: [String: String] = [:]
    /// What a scenario without script does.
    package var workload: Workload?

    /// A scenario with k6's defaults.
    package init(name: String, plan: ExecutorPlan) {
        self.name = name
        self.plan = plan
    }

    /// From the test's start to when the last iteration is over at the latest, in nanoseconds.
    package var latestEnd: UInt64 {
        var grace = gracefulStop
        if case .rampingUsers(_, _, let rampDown) = plan { grace = max(grace, rampDown) }
        return startTime + plan.regularDuration + grace
    }

    /// The scenario in k6's words, without its name: `10 looping VUs for 10s (gracefulStop: 30s)`.
    package var summary: String {
        var details: [String] = []
        if case .rampingUsers(_, _, let rampDown) = plan {
            details.append("gracefulRampDown: \(NumberText.span(rampDown))")
        }
        if let users = plan.arrivalUsers {
            let range = users.preallocated == users.maximum ? "" : "-\(users.maximum)"
            details.append("maxVUs: \(users.preallocated)\(range)")
            if users.spacing == .poisson { details.append("arrival: poisson") }
        }
        if function != "default" { details.append("exec: \(function)") }
        if startTime > 0 { details.append("startTime: \(NumberText.span(startTime))") }
        if gracefulStop > 0 { details.append("gracefulStop: \(NumberText.span(gracefulStop))") }
        return headline + (details.isEmpty ? "" : " (\(details.joined(separator: ", ")))")
    }

    private var headline: String {
        switch plan {
        case .sharedIterations(let users, let iterations, let limit):
            "\(iterations) iterations shared among \(users) VUs (maxDuration: \(NumberText.span(limit)))"
        case .perUserIterations(let users, let iterations, let limit):
            "\(iterations) iterations for each of \(users) VUs (maxDuration: \(NumberText.span(limit)))"
        case .constantUsers(let users, let duration): "\(users) looping VUs for \(NumberText.span(duration))"
        case .rampingUsers(_, let stages, _):
            "Up to \(plan.maximumUsers) looping VUs for \(NumberText.span(plan.regularDuration)) "
                + "over \(stages.count) stages"
        case .constantArrivals(let rate, let duration, _):
            "\(NumberText.fixed(rate, 2)) iterations/s for \(NumberText.span(duration))"
        case .rampingArrivals(let start, let stages, _):
            "Up to \(NumberText.fixed(max(start, stages.map(\.target).max() ?? 0), 2)) iterations/s for "
                + "\(NumberText.span(plan.regularDuration)) over \(stages.count) stages"
        case .trace(let speed, let duration, _):
            "a trace at \(NumberText.short(speed, 3)) times its speed for \(NumberText.span(duration))"
        }
    }
}
