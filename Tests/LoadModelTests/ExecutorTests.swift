// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import LoadModel

private let second: UInt64 = 1_000_000_000
private let millisecond: UInt64 = 1_000_000

@Suite struct ExecutorTests {
    private func arrivals(_ plan: ExecutorPlan, seed: UInt64 = 1) -> [UInt64] {
        var schedule = ArrivalSchedule(plan, seed: seed)
        var times: [UInt64] = []
        while let next = schedule.next {
            times.append(next)
            schedule.advance()
        }
        return times
    }

    @Test func constantArrivalsAreEven() {
        let plan = ExecutorPlan.constantArrivals(
            rate: 250, duration: 2 * second, users: ArrivalUsers(preallocated: 1, maximum: 1))
        let times = arrivals(plan)
        #expect(times.count == 500)
        #expect(times[0] == 0 && times[1] == 4 * millisecond && times[499] == 1996 * millisecond)
    }

    @Test func poissonArrivalsAreAsManyAndIndependent() {
        var users = ArrivalUsers(preallocated: 1, maximum: 1)
        users.spacing = .poisson
        let times = arrivals(.constantArrivals(rate: 10_000, duration: 20 * second, users: users))
        #expect((Double(times.count) / 200_000 - 1).magnitude < 0.01)
        // The gaps of a Poisson process: deviation as mean.
        let gaps = zip(times.dropFirst(), times).map { Double($0 - $1) }
        let mean = gaps.reduce(0, +) / Double(gaps.count)
        let variance = gaps.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(gaps.count)
        #expect((variance.squareRoot() / mean - 1).magnitude < 0.02)
    }

    @Test func rampingArrivalsFollowTheArea() {
        let plan = ExecutorPlan.rampingArrivals(
            start: 0,
            stages: [
                Stage(duration: 10 * second, target: 100), Stage(duration: 5 * second, target: 100),
                Stage(duration: 0, target: 20), Stage(duration: 10 * second, target: 0),
            ], users: ArrivalUsers(preallocated: 1, maximum: 1))
        let times = arrivals(plan)
        // 500 on the way up, 500 on the plateau, 100 on the way down.
        #expect((1098...1100).contains(times.count))
        // The area under the ramp reaches n at sqrt(n / 5) seconds.
        #expect(times[19] == 2 * second)
        #expect(times[499] == 10 * second)
        #expect(times[500] == 10 * second + 10 * millisecond)
        #expect(zip(times, times.dropFirst()).allSatisfy { $0 <= $1 })
    }

    @Test func rampsOfUsersAreStairs() {
        let ramp = UserRamp(
            start: 0,
            stages: [
                Stage(duration: 10 * second, target: 10), Stage(duration: 5 * second, target: 10),
                Stage(duration: 5 * second, target: 0),
            ])
        #expect(ramp.users(at: 0) == 0)
        #expect(ramp.users(at: second) == 1)
        #expect(ramp.users(at: 9_999 * millisecond) == 9)
        #expect(ramp.users(at: 12 * second) == 10)
        #expect(ramp.users(at: 17_500 * millisecond) == 5)
        #expect(ramp.users(at: 20 * second) == 0)
        #expect(ramp.state(of: 3, at: 0) == (false, 4 * second))
        #expect(ramp.state(of: 3, at: 5 * second) == (true, 18_500 * millisecond))
        #expect(ramp.state(of: 3, at: 19 * second) == (false, nil))
    }

    private func share(_ plan: ExecutorPlan, users: Int, grace: UInt64 = 30 * second) -> ExecutorShare {
        var scenario = Scenario(name: "s", plan: plan)
        scenario.gracefulStop = grace
        return ExecutorShare(scenario, ScenarioProgress(plan, seed: 1), users: Array(0..<users))
    }

    @Test func sharedIterationsGoToWhoAsksFirst() {
        var share = share(.sharedIterations(users: 2, iterations: 5, maxDuration: 10 * second), users: 2)
        for number in 0..<4 { #expect(share.claim(0, now: 7) == .start(intended: 7, number: UInt64(number))) }
        #expect(share.claim(1, now: 8) == .start(intended: 8, number: 4))
        #expect(share.claim(0, now: 9) == .finished)
        #expect(share.claim(1, now: 9) == .finished)
    }

    @Test func eachUserHasItsOwnIterations() {
        var share = share(.perUserIterations(users: 2, iterations: 2, maxDuration: 10 * second), users: 2)
        #expect(share.claim(0, now: 0) == .start(intended: 0, number: 0))
        #expect(share.claim(0, now: 1) == .start(intended: 1, number: 1))
        #expect(share.claim(0, now: 2) == .finished)
        #expect(share.claim(1, now: 2) == .start(intended: 2, number: 0))
        #expect(share.claim(1, now: 10 * second) == .finished)
    }

    @Test func loopingUsersEndWithTheDuration() {
        var share = share(.constantUsers(users: 1, duration: second), users: 1, grace: 2 * second)
        #expect(share.claim(0, now: second - 1) == .start(intended: second - 1, number: 0))
        #expect(share.claim(0, now: second) == .finished)
        #expect(share.deadline(0) == 3 * second && share.latestEnd == 3 * second)
    }

    @Test func rampedUsersWaitRunAndAreCutOff() {
        let stages = [Stage(duration: 10 * second, target: 10), Stage(duration: 10 * second, target: 0)]
        var share = share(.rampingUsers(start: 0, stages: stages, gracefulRampDown: second), users: 10)
        #expect(share.claim(4, now: 0) == .wait(until: 5 * second))
        #expect(share.claim(4, now: 5 * second) == .start(intended: 5 * second, number: 0))
        // User 4 goes when there are four left, sixteen seconds after the start.
        #expect(share.deadline(4) == 17 * second)
        #expect(share.claim(4, now: 16 * second) == .finished)
        #expect(share.deadline(4) == 17 * second)
    }

    @Test func arrivalsAreTakenOnceEach() {
        let users = ArrivalUsers(preallocated: 2, maximum: 2)
        var share = share(.constantArrivals(rate: 1000, duration: second, users: users), users: 2)
        #expect(share.claimArrival(now: 0) == .start(intended: 0, number: 0))
        #expect(share.claimArrival(now: 0) == .wait(until: millisecond))
        #expect(share.claimArrival(now: 2 * millisecond) == .start(intended: millisecond, number: 1))
        #expect(share.isDropped(intended: millisecond, freeSince: 2 * millisecond))
        #expect(!share.isDropped(intended: 2 * millisecond, freeSince: 2 * millisecond))
        #expect(share.claimArrival(now: 2 * second) == .start(intended: 2 * millisecond, number: 2))
        for _ in 3..<1000 { _ = share.claimArrival(now: 2 * second) }
        #expect(share.claimArrival(now: 2 * second) == .finished)
    }

    @Test func arrivalsThatMayWaitAreNotDropped() {
        var users = ArrivalUsers(preallocated: 1, maximum: 1)
        users.busy = .wait
        let share = share(.constantArrivals(rate: 1, duration: second, users: users), users: 1)
        #expect(!share.isDropped(intended: 0, freeSince: second))
    }

    @Test func whatNobodyServedIsDropped() {
        let users = ArrivalUsers(preallocated: 1, maximum: 1)
        let plan = ExecutorPlan.constantArrivals(rate: 100, duration: 2 * second, users: users)
        var arrivals = share(plan, users: 1)
        #expect(arrivals.claimArrival(now: 0) == .start(intended: 0, number: 0))
        // Those that are a second late, and no others.
        #expect(arrivals.dropLateArrivals(now: 1500 * millisecond) == 49)
        #expect(arrivals.dropLateArrivals(now: 1500 * millisecond) == 0)
        #expect(arrivals.claimArrival(now: second) == .start(intended: 500 * millisecond, number: 50))
        #expect(arrivals.unstarted(now: 1800 * millisecond, isLast: false, isStopped: false) == 0)
        #expect(arrivals.unstarted(now: 1800 * millisecond, isLast: true, isStopped: true) == 129)
        #expect(arrivals.unstarted(now: 9 * second, isLast: true, isStopped: false) == 20)
        #expect(arrivals.claimArrival(now: 9 * second) == .finished)
    }

    @Test func arrivalsThatWaitAreDroppedAtTheEndOnly() {
        var users = ArrivalUsers(preallocated: 1, maximum: 1)
        users.busy = .wait
        let arrivals = share(.constantArrivals(rate: 100, duration: 2 * second, users: users), users: 1)
        #expect(arrivals.dropLateArrivals(now: 9 * second) == 0)
        #expect(arrivals.unstarted(now: 9 * second, isLast: true, isStopped: false) == 200)
    }

    @Test func iterationsThatTimeDidNotSufficeForAreDropped() {
        var shared = share(.sharedIterations(users: 2, iterations: 10, maxDuration: second), users: 2)
        for _ in 0..<4 { _ = shared.claim(0, now: 0) }
        #expect(shared.unstarted(now: second, isLast: false, isStopped: false) == 0)
        #expect(shared.unstarted(now: second, isLast: true, isStopped: true) == 0)
        #expect(shared.unstarted(now: second, isLast: true, isStopped: false) == 6)
        var own = share(.perUserIterations(users: 2, iterations: 10, maxDuration: second), users: 2)
        for _ in 0..<4 { _ = own.claim(0, now: 0) }
        #expect(own.unstarted(now: second, isLast: false, isStopped: false) == 16)
        let many = share(.perUserIterations(users: 9, iterations: 1 << 62, maxDuration: second), users: 9)
        #expect(many.unstarted(now: second, isLast: true, isStopped: false) == .max)
    }

    @Test func oneUserIsMadeForALateArrivalHoweverManyAsk() {
        let users = ArrivalUsers(preallocated: 1, maximum: 9)
        let progress = ScenarioProgress(
            .constantArrivals(rate: 100, duration: second, users: users), seed: 1)
        #expect(!progress.makeUserForLateArrival(now: 0, limit: 9))
        #expect(progress.makeUserForLateArrival(now: 2 * millisecond, limit: 9))
        #expect(!progress.makeUserForLateArrival(now: 2 * millisecond, limit: 9))
        _ = progress.takeArrival(by: 0)
        #expect(!progress.makeUserForLateArrival(now: 10 * millisecond, limit: 9))
        #expect(progress.makeUserForLateArrival(now: 12 * millisecond, limit: 9))
        #expect(progress.users == 2)
    }

    @Test func theLastThreadKnowsThatItIs() {
        let progress = ScenarioProgress(.constantUsers(users: 2, duration: second), seed: 1)
        progress.beginThread()
        progress.beginThread()
        #expect(!progress.endThread())
        #expect(progress.endThread())
    }

    @Test func slowTracesEnd() {
        #expect(ArrivalSchedule.nanoseconds(longestDuration, speed: 1e-6) == longestDuration)
        #expect(ArrivalSchedule.nanoseconds(second, speed: 2) == second / 2)
    }

    /// A queue with one server, exponential service and Poisson arrivals, in virtual time: its sojourn times are
    /// exponential with the difference of the rates.
    @Test func openLoopLatencyIsThatOfTheory() {
        var users = ArrivalUsers(preallocated: 1, maximum: 1)
        (users.spacing, users.busy) = (.poisson, .wait)
        let plan = ExecutorPlan.constantArrivals(rate: 1000, duration: 2000 * second, users: users)
        var schedule = ArrivalSchedule(plan, seed: 5)
        var random = RandomSource(seed: 11)
        var (free, histogram) = (0.0, ValueHistogram())
        while let next = schedule.next {
            let arrival = Double(next) / 1e6
            free = max(free, arrival) + random.exponential() * 0.5
            histogram.record(free - arrival)
            schedule.advance()
        }
        for (fraction, depth) in [(0.5, 0.6931), (0.9, 2.3026), (0.99, 4.6052), (0.999, 6.9078)] {
            #expect((histogram.quantile(fraction) / depth - 1).magnitude < 0.03, "\(fraction)")
        }
    }
}
