// Martlet
// SPDX-License-Identifier: Apache-2.0

/// When destinations are taken out, and when they are tried again. Milliseconds.
package struct HealthConfiguration: Sendable, Equatable {
    /// Requests without an answer, one after the other, until a destination is taken out: at least 1.
    package var softFailures = 3
    /// The part of a destination's requests that got no answer, from which on it is taken out: from 0 to 1.
    package var errorShare = 0.5
    /// Requests of which that part is, at least.
    package var errorSamples = 20
    /// About how long a request counts for that part.
    package var errorWindowMilliseconds = 5_000
    /// Requests that a destination taken out for its part of errors has to answer before it gets all again.
    package var trialRequests = 10
    /// After what time it is given as many to answer again, when it did not answer them all.
    package var trialMilliseconds = 1_000
    /// Before the first probe of one that was taken out.
    package var firstProbeMilliseconds = 250
    /// Between later probes at most; each time it is half as long again.
    package var longestProbeMilliseconds = 10_000
    /// The part of a delay by which it may be longer, by chance, so that not all routers probe at once: from 0 to 1.
    package var probeJitter = 0.5
    /// How long a destination that answered a probe waits at most, by chance, until it is used again.
    package var revivalMilliseconds = 500
    /// Whether destinations are taken out at all.
    package var isEnabled = true

    /// The ordinary ones.
    package init() {}
}

/// How a destination is.
package enum HealthState: UInt8, Sendable, Equatable {
    /// It answers.
    case healthy
    /// It did not answer lately, and is used still.
    case suspect
    /// Taken out: it does not answer.
    case softEjected
    /// Taken out: it cannot be reached.
    case hardEjected
    /// Taken out: it answered a probe and is used again soon.
    case reviving
    /// Taken out but for a few requests: it answered a probe, and is used again when it answers those.
    case trial
}

/// What a report changed.
package enum HealthChange: Sendable, Equatable {
    case none
    /// The destination is taken out because it does not answer.
    case ejectedSoft
    /// It is taken out because too large a part of its requests got no answer.
    case ejectedShare
    /// It is taken out because it cannot be reached.
    case ejectedHard
    /// It should be taken out, but too many of its pool are.
    case heldByPool
    /// It answered, and is used again soon or at once.
    case revived
}

/// Which destinations of a plan are used: a state machine without a clock. One for each thread that routes.
///
/// A destination is taken out after some requests without an answer one after the other, when too large a part of its
/// requests got none, or when it cannot be reached; and is used again when it answers a probe. One that was taken out
/// for its part of errors has to answer some requests first: it may answer probes as well as half of its requests. An
/// answer that says busy, or another error, is an answer. Where a pool has limits, no more of its destinations are
/// taken out than that.
package struct HealthTable: ~Copyable {
    private let configuration: HealthConfiguration
    private var entries: [Entry]
    private var pools: [Pool]
    /// Destinations that are taken out.
    private var ejected: [Int] = []
    private var random: RouteRandom

    private struct Entry {
        var state = HealthState.healthy
        var isWithheld = false
        var failures: UInt32 = 0
        /// When it is probed or used again. Nanoseconds.
        var due: UInt64 = 0
        var delayMilliseconds = 0
        var isProbing = false
        var errors = ErrorShare()
        /// Whether it was taken out for its part of errors; of the requests that it is tried with, how many were sent
        /// and answered.
        var isTried = false
        var trialsSent = 0
        var trialsAnswered = 0
    }

    private struct Pool {
        let limits: PoolHealthLimits
        let members: Set<Int>
        var ejected = 0
        var isFailingOpen = false
    }

    /// All destinations are healthy.
    package init(plan: RoutePlan, configuration: HealthConfiguration = HealthConfiguration(), seed: UInt64) {
        self.configuration = configuration
        entries = Array(repeating: Entry(), count: plan.destinations.count)
        pools = plan.pools.compactMap { pool in
            pool.health.map { Pool(limits: $0, members: Set(pool.destinations)) }
        }
        random = RouteRandom(seed: seed)
    }

    /// Whether requests are sent there. Does not allocate.
    package func allows(_ destination: Int) -> Bool {
        entries[destination].state.rawValue <= HealthState.suspect.rawValue
    }

    /// Whether reads are sent there: not while its missed writes are still to be repeated. Does not allocate.
    package func allowsReads(_ destination: Int) -> Bool {
        allows(destination) && !entries[destination].isWithheld
    }

    /// How a destination is.
    package func state(_ destination: Int) -> HealthState { entries[destination].state }

    /// Requests without an answer since the last one that had one.
    package func failures(_ destination: Int) -> Int { Int(entries[destination].failures) }

    /// How many destinations are taken out.
    package var ejectedCount: Int { ejected.count }

    /// Reads are not sent there, or are again.
    package mutating func withholdReads(_ destination: Int, _ isWithheld: Bool) {
        entries[destination].isWithheld = isWithheld
    }

    /// Whether one of the requests may be sent there that a destination is tried with, which is counted then. Does not
    /// allocate.
    package mutating func admitsTrial(_ destination: Int) -> Bool {
        guard entries[destination].state == .trial, entries[destination].trialsSent < configuration.trialRequests else {
            return false
        }
        entries[destination].trialsSent += 1
        return true
    }

    /// How a request there ended; not a probe's. `answered` is how many were answered by now in all, where it is known.
    package mutating func record(
        _ destination: Int, _ result: RouteResult, answered: UInt64? = nil, nowNanoseconds now: UInt64
    ) -> HealthChange {
        guard configuration.isEnabled, result != .tko else { return .none }
        if result.isHardFailure { return failHard(destination, now) }
        if result == .timeout || result == .remoteError {
            return failSoft(destination, answered, isInRow: result == .timeout, now)
        }
        if entries[destination].state == .trial, !result.isError {
            entries[destination].trialsAnswered += 1
            guard entries[destination].trialsAnswered >= configuration.trialRequests else { return .none }
            revive(destination)
            return .revived
        }
        // Other errors are answers too; but they are no reason to forget what was not answered.
        guard allows(destination), !result.isError, entries[destination].failures > 0 else { return .none }
        entries[destination].failures = 0
        entries[destination].state = .healthy
        return .none
    }

    private mutating func failHard(_ destination: Int, _ now: UInt64) -> HealthChange {
        entries[destination].failures &+= 1
        switch entries[destination].state {
        case .hardEjected: return .none
        case .softEjected:
            entries[destination].state = .hardEjected
            return .none
        case .reviving, .trial:
            entries[destination].state = .hardEjected
            schedule(destination, now, isFirst: true)
            return .ejectedHard
        case .healthy, .suspect: return eject(destination, .hardEjected, now)
        }
    }

    private mutating func failSoft(
        _ destination: Int, _ answered: UInt64?, isInRow: Bool, _ now: UInt64
    ) -> HealthChange {
        if entries[destination].state == .trial {
            entries[destination].state = .softEjected
            schedule(destination, now, isFirst: false)
            return .ejectedShare
        }
        guard allows(destination) else { return .none }
        if isInRow {
            entries[destination].failures &+= 1
            entries[destination].state = .suspect
            if entries[destination].failures >= configuration.softFailures {
                return eject(destination, .softEjected, now)
            }
        }
        guard let answered else { return .none }
        let window = UInt64(configuration.errorWindowMilliseconds) * 1_000_000
        let (share, samples) = entries[destination].errors.failed(
            answered: answered, windowNanoseconds: window, now: now)
        // What decays a little with each failure would never be quite the number.
        guard samples.rounded() >= Double(configuration.errorSamples), share >= configuration.errorShare else {
            return .none
        }
        let change = eject(destination, .softEjected, now)
        guard change == .ejectedSoft else { return change }
        entries[destination].isTried = true
        return .ejectedShare
    }

    private mutating func eject(_ destination: Int, _ state: HealthState, _ now: UInt64) -> HealthChange {
        for index in pools.indices where pools[index].members.contains(destination) {
            if pools[index].ejected >= pools[index].limits.enter { pools[index].isFailingOpen = true }
        }
        guard !pools.contains(where: { $0.isFailingOpen && $0.members.contains(destination) }) else {
            entries[destination].state = .suspect
            return .heldByPool
        }
        for index in pools.indices where pools[index].members.contains(destination) { pools[index].ejected += 1 }
        entries[destination].state = state
        ejected.append(destination)
        schedule(destination, now, isFirst: true)
        return state == .hardEjected ? .ejectedHard : .ejectedSoft
    }

    private mutating func schedule(_ destination: Int, _ now: UInt64, isFirst: Bool) {
        let before = entries[destination].delayMilliseconds
        let delay = isFirst ? configuration.firstProbeMilliseconds : before + max(before / 2, 1)
        entries[destination].delayMilliseconds = min(max(delay, 1), configuration.longestProbeMilliseconds)
        let jitter = 1 + random.fraction() * configuration.probeJitter
        entries[destination].isProbing = false
        entries[destination].due =
            now &+ UInt64(Double(entries[destination].delayMilliseconds) * jitter * 1_000_000)
    }

    /// A destination that a probe is to be sent to now; call it until there is none. Each is named once until its
    /// probe's end is reported.
    package mutating func probeDue(nowNanoseconds now: UInt64) -> Int? {
        var place = 0
        while place < ejected.count {
            let destination = ejected[place]
            guard entries[destination].due <= now, !entries[destination].isProbing else {
                place += 1
                continue
            }
            switch entries[destination].state {
            case .reviving where entries[destination].isTried, .trial:
                beginTrial(destination, now)
                place += 1
            case .reviving: revive(destination)
            default:
                entries[destination].isProbing = true
                return destination
            }
        }
        return nil
    }

    /// Lets some requests through, of which none may fail.
    private mutating func beginTrial(_ destination: Int, _ now: UInt64) {
        if entries[destination].state == .reviving { entries[destination].trialsAnswered = 0 }
        entries[destination].state = .trial
        // As long as there are failures, answers are told.
        entries[destination].failures = max(entries[destination].failures, 1)
        entries[destination].trialsSent = entries[destination].trialsAnswered
        entries[destination].due = now &+ UInt64(configuration.trialMilliseconds) * 1_000_000
    }

    /// How a probe ended.
    package mutating func probeDone(
        _ destination: Int, succeeded: Bool, nowNanoseconds now: UInt64
    ) -> HealthChange {
        let state = entries[destination].state
        guard state == .softEjected || state == .hardEjected else { return .none }
        guard succeeded else {
            schedule(destination, now, isFirst: false)
            return .none
        }
        entries[destination].isProbing = false
        guard configuration.revivalMilliseconds > 0 || entries[destination].isTried else {
            revive(destination)
            return .revived
        }
        entries[destination].state = .reviving
        entries[destination].due =
            now &+ UInt64(random.fraction() * Double(configuration.revivalMilliseconds) * 1_000_000)
        return .revived
    }

    private mutating func revive(_ destination: Int) {
        entries[destination].state = .healthy
        entries[destination].failures = 0
        entries[destination].delayMilliseconds = 0
        entries[destination].isTried = false
        entries[destination].errors.reset()
        ejected.removeAll { $0 == destination }
        for index in pools.indices where pools[index].members.contains(destination) {
            pools[index].ejected -= 1
            if pools[index].ejected <= pools[index].limits.exit { pools[index].isFailingOpen = false }
        }
    }

    /// When ``probeDue(nowNanoseconds:)`` has something to do next; nil while nothing is taken out.
    package var nextProbeNanoseconds: UInt64? {
        ejected.filter { !entries[$0].isProbing }.map { entries[$0].due }.min()
    }

    /// Takes over what is known of the same destinations from the table of an earlier plan.
    package mutating func adopt(
        _ old: borrowing HealthTable, _ oldPlan: RoutePlan, plan: RoutePlan, nowNanoseconds now: UInt64
    ) {
        var places: [Destination: Int] = [:]
        for (index, destination) in oldPlan.destinations.enumerated() { places[destination] = index }
        for (index, destination) in plan.destinations.enumerated() {
            guard let place = places[destination] else { continue }
            entries[index].isWithheld = old.entries[place].isWithheld
            entries[index].failures = old.entries[place].failures
            entries[index].errors = old.entries[place].errors
            entries[index].isTried = old.entries[place].isTried
            switch old.entries[place].state {
            case .healthy: break
            case .suspect: entries[index].state = .suspect
            case .softEjected, .reviving, .trial: _ = eject(index, .softEjected, now)
            case .hardEjected: _ = eject(index, .hardEjected, now)
            }
        }
    }
}
