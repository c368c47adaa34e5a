// Martlet
// SPDX-License-Identifier: Apache-2.0

/// One thread's part of a scenario's executor: says when which of its virtual users starts an iteration. Pure: times
/// are given, in nanoseconds from the scenario's start.
package struct ExecutorShare: Sendable {
    /// What a virtual user does next.
    package enum Claim: Equatable, Sendable {
        /// Starts an iteration, which was to start at `intended`; `number` counts the scenario's iterations where they
        /// are shared, and this user's where they are not.
        case start(intended: UInt64, number: UInt64)
        /// Asks again at this time.
        case wait(until: UInt64)
        /// Never starts one again.
        case finished
    }

    /// What becomes of the next arrival.
    package enum ArrivalClaim: Equatable, Sendable {
        case start(intended: UInt64, number: UInt64)
        case wait(until: UInt64)
        case finished
    }

    private struct User {
        /// The number of the user in its scenario.
        var number: Int
        var iterations: UInt64 = 0
        var isActive = true
        /// When `isActive` must be looked at again.
        var until: UInt64 = 0
        /// When its iterations are interrupted.
        var deadline: UInt64
    }

    /// The scenario's plan.
    package let plan: ExecutorPlan
    /// How long iterations may go on after the regular end, in nanoseconds.
    package let gracefulStop: UInt64
    private let progress: ScenarioProgress
    private let ramp: UserRamp?
    private let end: UInt64
    private var users: [User] = []

    /// The part of `scenario` that the thread with these users' numbers runs.
    package init(_ scenario: Scenario, _ progress: ScenarioProgress, users numbers: [Int]) {
        plan = scenario.plan
        gracefulStop = scenario.gracefulStop
        self.progress = progress
        end = plan.regularDuration
        if case .rampingUsers(let start, let stages, _) = plan {
            ramp = UserRamp(start: start, stages: stages)
        } else {
            ramp = nil
        }
        users = []
        for number in numbers { addUser(number) }
    }

    /// How many users this thread has.
    package var userCount: Int { users.count }

    /// Adds a user of that number.
    package mutating func addUser(_ number: Int) {
        users.append(User(number: number, deadline: end + gracefulStop))
    }

    /// The number in the scenario of this thread's user `index`.
    package func number(of index: Int) -> Int { users[index].number }

    /// What the looping user `index` does at `now`. A `start` counts as started.
    package mutating func claim(_ index: Int, now: UInt64) -> Claim {
        guard now < end else { return .finished }
        switch plan {
        case .constantUsers: break
        case .sharedIterations(_, let iterations, _):
            guard let number = progress.takeIteration(limit: iterations) else { return .finished }
            users[index].iterations &+= 1
            return .start(intended: now, number: number)
        case .perUserIterations(_, let iterations, _):
            guard users[index].iterations < iterations else { return .finished }
        case .rampingUsers:
            if now >= users[index].until { lookAgain(index, now) }
            guard users[index].isActive else {
                return users[index].until == .max ? .finished : .wait(until: users[index].until)
            }
        case .constantArrivals, .rampingArrivals, .trace: return .finished
        }
        users[index].iterations &+= 1
        return .start(intended: now, number: users[index].iterations &- 1)
    }

    private mutating func lookAgain(_ index: Int, _ now: UInt64) {
        guard let state = ramp?.state(of: users[index].number, at: now) else { return }
        users[index].isActive = state.isActive
        users[index].until = state.until ?? .max
        guard state.isActive, case .rampingUsers(_, _, let rampDown) = plan else { return }
        users[index].deadline = users[index].until < end ? users[index].until + rampDown : end + gracefulStop
    }

    /// Takes the next arrival when it is due at `now`.
    package mutating func claimArrival(now: UInt64) -> ArrivalClaim {
        switch progress.takeArrival(by: now) {
        case .due(let intended, let number): .start(intended: intended, number: number)
        case .later(let time): .wait(until: time)
        case .over: .finished
        }
    }

    /// Whether an arrival that was due at `intended` is dropped when the user that could take it became free at
    /// `freeSince`: nobody was free in time.
    package func isDropped(intended: UInt64, freeSince: UInt64) -> Bool {
        plan.arrivalUsers?.busy == .drop && intended < freeSince
    }

    /// How late an arrival is that nobody on any thread was free for: where arrivals are dropped, it is.
    package static let latenessNanoseconds: UInt64 = 1_000_000_000

    /// Takes the arrivals that are too late at `now` for anybody to serve them, where they do not wait. How many there
    /// were: they are dropped.
    package func dropLateArrivals(now: UInt64) -> UInt64 {
        guard plan.arrivalUsers?.busy == .drop, now > Self.latenessNanoseconds else { return 0 }
        return progress.dropArrivals(before: now - Self.latenessNanoseconds)
    }

    /// What was to start and did not, when this thread has no more to do with the scenario at `now`: it counts as
    /// dropped. Arrivals and shared iterations are the last thread's to count. When the test was `stopped` before its
    /// time, iterations without arrivals are nobody's.
    package func unstarted(now: UInt64, isLast: Bool, isStopped: Bool) -> UInt64 {
        switch plan {
        case .constantArrivals, .rampingArrivals, .trace:
            return isLast ? progress.dropArrivals(before: min(now, end)) : 0
        case .sharedIterations(_, let iterations, _):
            return isLast && !isStopped ? progress.untakenIterations(limit: iterations) : 0
        case .perUserIterations(_, let iterations, _):
            guard !isStopped else { return 0 }
            return users.reduce(0) { sum, user in
                let (more, isOver) = sum.addingReportingOverflow(iterations - min(iterations, user.iterations))
                return isOver ? .max : more
            }
        case .constantUsers, .rampingUsers: return 0
        }
    }

    /// When the iteration that user `index` started last is interrupted if it is not over.
    package func deadline(_ index: Int) -> UInt64 { users[index].deadline }

    /// When nothing of the scenario may run any more.
    package var latestEnd: UInt64 {
        if case .rampingUsers(_, _, let rampDown) = plan { return end + max(gracefulStop, rampDown) }
        return end + gracefulStop
    }
}
