// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization

/// What the threads that run one scenario share: the iterations that are left, the arrivals to come, and counts for
/// people to see.
package final class ScenarioProgress: Sendable {
    private let taken = Atomic<UInt64>(0)
    private let arrivals: Guarded<ArrivalSchedule>?
    private let lookahead = Atomic<UInt64>(.max)
    private let active = Atomic<Int>(0)
    private let made = Atomic<Int>(0)
    private let done = Atomic<UInt64>(0)
    private let cut = Atomic<UInt64>(0)
    private let lost = Atomic<UInt64>(0)
    private let threads = Atomic<Int>(0)
    private let served = Atomic<UInt64>(.max)
    /// The part of the scenario that is run here.
    package let segment: ExecutionSegment

    /// For that part of a scenario of that plan. Limits and numbers are those of the whole scenario.
    package init(
        _ plan: ExecutorPlan, seed: UInt64, times: [UInt64]? = nil, segment: ExecutionSegment = .whole
    ) {
        self.segment = segment
        guard plan.arrivalUsers != nil else {
            arrivals = nil
            return
        }
        let schedule = ArrivalSchedule(plan, seed: seed, times: times, segment: segment)
        arrivals = Guarded(schedule)
        lookahead.store(schedule.next ?? .max, ordering: .relaxed)
    }

    /// Takes one of `limit` shared iterations: its number, or nil when none is left.
    package func takeIteration(limit: UInt64) -> UInt64? {
        let number = taken.add(1, ordering: .relaxed).oldValue
        return number < segment.share(of: limit) ? segment.number(of: number) : nil
    }

    /// Iterations of `limit` shared ones that nobody took.
    package func untakenIterations(limit: UInt64) -> UInt64 {
        let all = segment.share(of: limit)
        return all - min(all, takenIterations)
    }

    /// The next number of an iteration, of executors whose users count their own: 0 for the scenario's first.
    package func nextNumber() -> UInt64 { segment.number(of: taken.add(1, ordering: .relaxed).oldValue) }

    /// What ``takeArrival(by:)`` finds.
    package enum Arrival: Equatable, Sendable {
        /// The arrival that was due at this time is the caller's, with its number.
        case due(UInt64, number: UInt64)
        /// The next one is at this time.
        case later(UInt64)
        /// There are none any more.
        case over
    }

    /// Takes the next arrival if it is due at `now`. Times from the scenario's start.
    package func takeArrival(by now: UInt64) -> Arrival {
        let known = lookahead.load(ordering: .relaxed)
        if known > now { return known == .max ? .over : .later(known) }
        guard let arrivals else { return .over }
        return arrivals.withLock { schedule in
            guard let next = schedule.next else { return .over }
            guard next <= now else { return .later(next) }
            schedule.advance()
            lookahead.store(schedule.next ?? .max, ordering: .relaxed)
            return .due(next, number: segment.number(of: taken.add(1, ordering: .relaxed).oldValue))
        }
    }

    /// Takes all arrivals that were due before `time`, a limited number. How many there were.
    package func dropArrivals(before time: UInt64) -> UInt64 {
        guard nextArrival < time, let arrivals else { return 0 }
        return arrivals.withLock { schedule in
            var count: UInt64 = 0
            while count < Self.dropLimit, let next = schedule.next, next < time {
                schedule.advance()
                count += 1
            }
            taken.add(count, ordering: .relaxed)
            lookahead.store(schedule.next ?? .max, ordering: .relaxed)
            return count
        }
    }

    /// Arrivals that are dropped at once at most: a few seconds' work.
    private static let dropLimit: UInt64 = 100_000_000

    /// When the next arrival is due, from the scenario's start; the greatest number when there is none.
    package var nextArrival: UInt64 { lookahead.load(ordering: .relaxed) }

    /// Makes one more virtual user, if there are fewer than `limit`.
    package func makeUser(limit: Int) -> Bool {
        let before = made.add(1, ordering: .relaxed).oldValue
        if before < segment.share(of: limit) { return true }
        made.subtract(1, ordering: .relaxed)
        return false
    }

    /// Makes one more virtual user because the next arrival is late at `now`: one for each such arrival, however many
    /// ask. False when that is so, or there are `limit` of them.
    package func makeUserForLateArrival(now: UInt64, limit: Int) -> Bool {
        let due = nextArrival
        guard due < now, now - due >= Self.patienceNanoseconds else { return false }
        let last = served.load(ordering: .relaxed)
        guard last != due, served.compareExchange(expected: last, desired: due, ordering: .relaxed).exchanged else {
            return false
        }
        return makeUser(limit: limit)
    }

    /// So late, an arrival has found nobody free on any thread.
    private static let patienceNanoseconds: UInt64 = 1_000_000

    /// Counts what a thread did since it last said so.
    package func count(complete: UInt64 = 0, interrupted: UInt64 = 0, dropped: UInt64 = 0, active change: Int = 0) {
        if complete > 0 { done.add(complete, ordering: .relaxed) }
        if interrupted > 0 { cut.add(interrupted, ordering: .relaxed) }
        if dropped > 0 { lost.add(dropped, ordering: .relaxed) }
        if change != 0 { active.add(change, ordering: .relaxed) }
    }

    /// Says that one more thread takes part in this scenario; each does so before the start.
    package func beginThread() { threads.add(1, ordering: .acquiringAndReleasing) }

    /// Says that one of them has nothing left to do. Whether it was the last.
    package func endThread() -> Bool { threads.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 }

    /// Iterations that ran to their end, were interrupted, and were dropped.
    package var complete: UInt64 { done.load(ordering: .relaxed) }
    /// Iterations that were interrupted.
    package var interrupted: UInt64 { cut.load(ordering: .relaxed) }
    /// Arrivals that were dropped.
    package var dropped: UInt64 { lost.load(ordering: .relaxed) }
    /// Virtual users at work, and made.
    package var activeUsers: Int { active.load(ordering: .relaxed) }
    /// Whether the virtual user of that number in the scenario was made.
    package func isMade(_ number: Int) -> Bool { segment.own(number) < users }
    /// Virtual users that were made.
    package var users: Int { made.load(ordering: .relaxed) }
    /// Iterations taken so far, of shared ones.
    package var takenIterations: UInt64 { taken.load(ordering: .relaxed) }
}
