// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Routing

/// Which destinations are used, in virtual time.
struct HealthTests {
    static let millisecond: UInt64 = 1_000_000

    /// A pool of `count` servers.
    static func plan(_ count: Int, limits: PoolHealthLimits? = nil) -> RoutePlan {
        var bench = RouteBench()
        var pool = RoutePool("p", servers: (0..<count).map { PoolServer(Server(host: "s\($0)", port: 1)) })
        pool.health = limits
        bench.root(bench.handle(.pool(bench.index(pool))))
        return bench.plan()
    }

    @Test func threeRequestsWithoutAnswerTakeItOut() {
        let table = HealthSubject(plan: Self.plan(2), seed: 1)
        #expect(table.record(0, .timeout, nowNanoseconds: 0) == .none)
        #expect(table.record(0, .timeout, nowNanoseconds: 0) == .none)
        #expect(table.state(0) == .suspect)
        #expect(table.allows(0))
        #expect(table.record(0, .timeout, nowNanoseconds: 0) == .ejectedSoft)
        #expect(!table.allows(0))
        #expect(table.allows(1))
        #expect(table.record(0, .timeout, nowNanoseconds: 0) == .none)
    }

    @Test func anAnswerBetweenForgetsWhatWasNotAnswered() {
        let table = HealthSubject(plan: Self.plan(1), seed: 1)
        for _ in 0..<10 {
            _ = table.record(0, .timeout, nowNanoseconds: 0)
            _ = table.record(0, .timeout, nowNanoseconds: 0)
            // An error is an answer, but no success.
            _ = table.record(0, .busy, nowNanoseconds: 0)
            #expect(table.failures(0) == 2)
            _ = table.record(0, .notFound, nowNanoseconds: 0)
            #expect(table.state(0) == .healthy)
        }
    }

    @Test(arguments: [RouteResult.connectError, .connectTimeout, .shutdown])
    func oneThatCannotBeReachedIsTakenOutAtOnce(_ result: RouteResult) {
        let table = HealthSubject(plan: Self.plan(1), seed: 1)
        #expect(table.record(0, result, nowNanoseconds: 0) == .ejectedHard)
        #expect(table.state(0) == .hardEjected)
    }

    @Test func probesComeLaterAndLater() {
        var configuration = HealthConfiguration()
        configuration.probeJitter = 0
        configuration.firstProbeMilliseconds = 100
        configuration.longestProbeMilliseconds = 400
        let table = HealthSubject(plan: Self.plan(1), configuration: configuration, seed: 1)
        _ = table.record(0, .connectError, nowNanoseconds: 0)
        var now: UInt64 = 0
        for delay in [100, 150, 225, 337, 400, 400] as [UInt64] {
            #expect(table.nextProbeNanoseconds == now + delay * Self.millisecond)
            now += delay * Self.millisecond
            #expect(table.probeDue(nowNanoseconds: now - 1) == nil)
            #expect(table.probeDue(nowNanoseconds: now) == 0)
            // Until it ended there is no second one.
            #expect(table.probeDue(nowNanoseconds: now) == nil)
            #expect(table.nextProbeNanoseconds == nil)
            #expect(table.probeDone(0, succeeded: false, nowNanoseconds: now) == .none)
        }
    }

    @Test func anAnsweredProbeBringsItBackALittleLater() {
        let table = HealthSubject(plan: Self.plan(1), seed: 3)
        _ = table.record(0, .connectError, nowNanoseconds: 0)
        let due = table.nextProbeNanoseconds ?? 0
        #expect(table.probeDue(nowNanoseconds: due) == 0)
        #expect(table.probeDone(0, succeeded: true, nowNanoseconds: due) == .revived)
        #expect(table.state(0) == .reviving)
        #expect(!table.allows(0))
        let back = table.nextProbeNanoseconds ?? 0
        #expect(back >= due && back <= due + 500 * Self.millisecond)
        #expect(table.probeDue(nowNanoseconds: back) == nil)
        #expect(table.allows(0))
        #expect(table.nextProbeNanoseconds == nil)
    }

    @Test func notAllRoutersComeBackAtOnce() {
        var times: Set<UInt64> = []
        for seed in 0..<50 as Range<UInt64> {
            let table = HealthSubject(plan: Self.plan(1), seed: seed)
            _ = table.record(0, .connectError, nowNanoseconds: 0)
            times.insert(table.nextProbeNanoseconds ?? 0)
        }
        #expect(times.count > 45)
        #expect((times.max() ?? 0) - (times.min() ?? 0) > 60 * Self.millisecond)
    }

    @Test func aLateAnswerDoesNotBringItBack() {
        let table = HealthSubject(plan: Self.plan(1), seed: 1)
        _ = table.record(0, .connectError, nowNanoseconds: 0)
        #expect(table.record(0, .found, nowNanoseconds: 0) == .none)
        #expect(!table.allows(0))
    }

    @Test func aPoolKeepsSomeOfItsDestinations() throws {
        let limits = try #require(PoolHealthLimits(enter: 3, exit: 1))
        var configuration = HealthConfiguration()
        configuration.revivalMilliseconds = 0
        let table = HealthSubject(plan: Self.plan(10, limits: limits), configuration: configuration, seed: 1)
        for index in 0..<3 { #expect(table.record(index, .connectError, nowNanoseconds: 0) == .ejectedHard) }
        #expect(table.record(3, .connectError, nowNanoseconds: 0) == .heldByPool)
        #expect(table.allows(3))
        // One back: still too many.
        #expect(table.probeDone(0, succeeded: true, nowNanoseconds: 1) == .revived)
        #expect(table.record(3, .connectError, nowNanoseconds: 1) == .heldByPool)
        #expect(table.probeDone(1, succeeded: true, nowNanoseconds: 1) == .revived)
        #expect(table.record(3, .connectError, nowNanoseconds: 1) == .ejectedHard)
    }

    @Test func readsMayBeWithheld() {
        let table = HealthSubject(plan: Self.plan(1), seed: 1)
        table.withholdReads(0, true)
        #expect(table.allows(0))
        #expect(!table.allowsReads(0))
        table.withholdReads(0, false)
        #expect(table.allowsReads(0))
    }

    @Test func whatIsKnownSurvivesAReload() {
        let (old, new) = (Self.plan(3), Self.plan(5))
        let before = HealthSubject(plan: old, seed: 1)
        _ = before.record(1, .connectError, nowNanoseconds: 0)
        _ = before.record(2, .timeout, nowNanoseconds: 0)
        before.withholdReads(0, true)
        let table = HealthSubject(plan: new, seed: 2)
        table.adopt(before, old, plan: new, nowNanoseconds: 5)
        #expect(!table.allows(1))
        #expect(table.state(2) == .suspect)
        #expect(!table.allowsReads(0))
        #expect(table.allowsReads(3))
    }

    /// Whatever happens: what is taken out is probed, and what answers comes back.
    @Test(arguments: 0..<40 as Range<UInt64>)
    func nothingStaysOutThatAnswers(_ seed: UInt64) throws {
        var random = RouteRandom(seed: seed)
        let limits = try #require(PoolHealthLimits(enter: 4, exit: 2))
        let plan = Self.plan(8, limits: seed % 2 == 0 ? limits : nil)
        let table = HealthSubject(plan: plan, seed: seed)
        var now: UInt64 = 0
        var isUp = Array(repeating: true, count: 8)
        for _ in 0..<5_000 {
            now += random.next() % (20 * Self.millisecond)
            let index = Int(random.next() % 8)
            if random.next() % 50 == 0 { isUp[index].toggle() }
            if table.allows(index) {
                let failure: RouteResult = random.next() % 2 == 0 ? .timeout : .connectError
                _ = table.record(index, isUp[index] ? .found : failure, nowNanoseconds: now)
            }
            while let probed = table.probeDue(nowNanoseconds: now) {
                #expect(!table.allows(probed))
                _ = table.probeDone(probed, succeeded: isUp[probed], nowNanoseconds: now)
            }
            if seed % 2 == 0 { #expect(table.ejectedCount <= 4) }
            #expect(table.ejectedCount == (0..<8).filter { !table.allows($0) }.count)
        }
        // All up: soon all are used.
        let end = now + 20_000 * Self.millisecond
        while now < end {
            now += 50 * Self.millisecond
            while let probed = table.probeDue(nowNanoseconds: now) {
                _ = table.probeDone(probed, succeeded: true, nowNanoseconds: now)
            }
        }
        #expect(table.ejectedCount == 0, "seed \(seed)")
    }
}

/// Destinations that answer some requests and others not, in virtual time.
struct ErrorShareTests {
    static let millisecond: UInt64 = 1_000_000

    /// A destination that does not answer `failing` of ten requests; how many it took until it was taken out, if so.
    private static func run(
        _ table: HealthSubject, failing: Int, requests: Int, every: UInt64 = millisecond, from start: UInt64 = 0,
        answered: inout UInt64
    ) -> Int? {
        for number in 0..<requests {
            let now = start + UInt64(number) * every
            // Spread: not two in a row unless more than half fail.
            if number * failing % 10 < failing {
                if table.record(0, .timeout, answered: answered, nowNanoseconds: now) == .ejectedShare { return number }
            } else {
                answered += 1
                _ = table.record(0, .found, nowNanoseconds: now)
            }
        }
        return nil
    }

    private static func table(_ change: (inout HealthConfiguration) -> Void = { _ in }) -> HealthSubject {
        var configuration = HealthConfiguration()
        configuration.probeJitter = 0
        change(&configuration)
        return HealthSubject(plan: HealthTests.plan(1), configuration: configuration, seed: 1)
    }

    @Test func halfOfItsRequestsWithoutAnswerTakeADestinationOut() {
        let table = Self.table()
        var answered: UInt64 = 0
        let taken = Self.run(table, failing: 5, requests: 1_000, answered: &answered)
        #expect(18...60 ~= taken ?? 0, "\(taken ?? -1)")
        #expect(table.state(0) == .softEjected)
    }

    @Test func whatWasAnsweredInDaysWithoutAFailureIsNotOfLate() {
        let table = Self.table()
        var answered: UInt64 = 1_000_000_000
        let taken = Self.run(table, failing: 5, requests: 1_000, answered: &answered)
        #expect(18...60 ~= taken ?? 0, "\(taken ?? -1)")
    }

    @Test func aThirdDoesNot() {
        let table = Self.table()
        var answered: UInt64 = 0
        #expect(Self.run(table, failing: 3, requests: 20_000, answered: &answered) == nil)
        #expect(table.allows(0))
    }

    @Test func fewRequestsDoNot() {
        let table = Self.table()
        var answered: UInt64 = 0
        #expect(Self.run(table, failing: 5, requests: 18, answered: &answered) == nil)
        // Later ones do not add up with those.
        #expect(Self.run(table, failing: 5, requests: 18, from: 60_000 * Self.millisecond, answered: &answered) == nil)
    }

    @Test func aGoodPastDelaysItByAWindowAtMost() {
        let table = Self.table()
        var answered: UInt64 = 0
        #expect(Self.run(table, failing: 1, requests: 30_000, answered: &answered) == nil)
        let taken = Self.run(
            table, failing: 7, requests: 30_000, from: 30_000 * Self.millisecond, answered: &answered)
        // `timeouts` in a row are another rule: seven of ten are never three in a row here but at the end of tens.
        #expect(taken.map { $0 < 7_000 } ?? !table.allows(0))
    }

    @Test(arguments: [RouteResult.busy, .overloaded, .tryAgain, .clientError, .localError, .badCommand])
    func errorsThatAreAnswersNeverCount(_ result: RouteResult) {
        let table = Self.table()
        for number in 0..<1_000 {
            _ = table.record(0, result, answered: 0, nowNanoseconds: UInt64(number) * Self.millisecond)
        }
        #expect(table.state(0) == .healthy && table.failures(0) == 0)
    }

    @Test func brokenConnectionsCountOnlyByTheirPart() {
        let table = Self.table()
        for number in 0..<19 {
            #expect(table.record(0, .remoteError, answered: 1, nowNanoseconds: UInt64(number)) == .none)
        }
        #expect(table.state(0) == .healthy)
        #expect(table.record(0, .remoteError, answered: 1, nowNanoseconds: 20) == .ejectedShare)
    }

    /// Takes it out, and has it answer a probe.
    private static func tried() -> (HealthSubject, UInt64) {
        let table = table()
        var answered: UInt64 = 0
        #expect(run(table, failing: 5, requests: 1_000, answered: &answered) != nil)
        var now = table.nextProbeNanoseconds ?? 0
        #expect(table.probeDue(nowNanoseconds: now) == 0)
        #expect(table.probeDone(0, succeeded: true, nowNanoseconds: now) == .revived)
        now = table.nextProbeNanoseconds ?? 0
        #expect(table.probeDue(nowNanoseconds: now) == nil)
        #expect(table.state(0) == .trial && !table.allows(0))
        return (table, now)
    }

    @Test func itGetsAFewRequestsThenAllWhenItAnswersThem() {
        let (table, now) = Self.tried()
        for _ in 0..<10 { #expect(table.admitsTrial(0)) }
        #expect(!table.admitsTrial(0))
        for _ in 0..<9 { #expect(table.record(0, .found, nowNanoseconds: now) == .none) }
        #expect(!table.allows(0))
        #expect(table.record(0, .notFound, nowNanoseconds: now) == .revived)
        #expect(table.state(0) == .healthy && table.ejectedCount == 0 && !table.admitsTrial(0))
    }

    @Test func oneThatFailsTakesItOutForLonger() {
        let (table, now) = Self.tried()
        #expect(table.admitsTrial(0))
        #expect(table.record(0, .timeout, answered: 5, nowNanoseconds: now) == .ejectedShare)
        #expect(table.state(0) == .softEjected && !table.admitsTrial(0))
        #expect(table.nextProbeNanoseconds == now + 375 * Self.millisecond)
    }

    @Test func requestsThatNobodyAnsweredAreTriedAgainLater() {
        let (table, now) = Self.tried()
        for _ in 0..<10 { #expect(table.admitsTrial(0)) }
        for _ in 0..<4 { _ = table.record(0, .found, nowNanoseconds: now) }
        #expect(table.nextProbeNanoseconds == now + 1_000 * Self.millisecond)
        #expect(table.probeDue(nowNanoseconds: now + 1_000 * Self.millisecond) == nil)
        for _ in 0..<6 { #expect(table.admitsTrial(0)) }
        #expect(!table.admitsTrial(0))
    }

    @Test func oneThatCannotBeReachedInItsTrialIsTakenOut() {
        let (table, now) = Self.tried()
        #expect(table.record(0, .connectError, nowNanoseconds: now) == .ejectedHard)
        #expect(!table.allows(0))
    }
}

/// A table that expectations can look at.
final class HealthSubject {
    private var table: HealthTable

    init(plan: RoutePlan, configuration: HealthConfiguration = HealthConfiguration(), seed: UInt64) {
        table = HealthTable(plan: plan, configuration: configuration, seed: seed)
    }

    func allows(_ destination: Int) -> Bool { table.allows(destination) }
    func allowsReads(_ destination: Int) -> Bool { table.allowsReads(destination) }
    func state(_ destination: Int) -> HealthState { table.state(destination) }
    func failures(_ destination: Int) -> Int { table.failures(destination) }
    var ejectedCount: Int { table.ejectedCount }
    var nextProbeNanoseconds: UInt64? { table.nextProbeNanoseconds }
    func withholdReads(_ destination: Int, _ isWithheld: Bool) { table.withholdReads(destination, isWithheld) }
    func probeDue(nowNanoseconds now: UInt64) -> Int? { table.probeDue(nowNanoseconds: now) }

    func record(
        _ destination: Int, _ result: RouteResult, answered: UInt64? = nil, nowNanoseconds now: UInt64
    ) -> HealthChange {
        table.record(destination, result, answered: answered, nowNanoseconds: now)
    }

    func admitsTrial(_ destination: Int) -> Bool { table.admitsTrial(destination) }

    func probeDone(_ destination: Int, succeeded: Bool, nowNanoseconds now: UInt64) -> HealthChange {
        table.probeDone(destination, succeeded: succeeded, nowNanoseconds: now)
    }

    func adopt(_ old: HealthSubject, _ oldPlan: RoutePlan, plan: RoutePlan, nowNanoseconds now: UInt64) {
        table.adopt(old.table, oldPlan, plan: plan, nowNanoseconds: now)
    }
}
