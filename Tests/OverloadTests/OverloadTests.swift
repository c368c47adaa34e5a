// Martlet
// SPDX-License-Identifier: Apache-2.0

import Overload
import Testing

/// The controller against queues in virtual time. Service takes 50 µs, so the most that can be served is 20,000 a
/// second; C, the most that is served with p99 within 5 ms, is a little less.
struct OverloadTests {
    static let capacity = 19_000.0

    private static var seed: UInt64 { UInt64.random(in: 1...(.max)) }

    private func run(
        _ sources: [QueueSimulation.Source], seconds: Double, seed: UInt64, target: UInt64 = 1_000_000,
        _ change: (inout QueueSimulation) -> Void = { _ in }
    ) -> QueueSimulation {
        var configuration = OverloadConfiguration()
        configuration.targetNanoseconds = target
        var simulation = QueueSimulation(sources, seed: seed)
        change(&simulation)
        simulation.run(seconds: seconds, configuration)
        return simulation
    }

    private func steady(_ rate: Double) -> @Sendable (Double) -> Double { { _ in rate } }

    @Test(arguments: [(2.0, 0.95), (5.0, 0.9), (10.0, 0.8)])
    func goodputHoldsBeyondCapacity(factor: Double, least: Double) {
        let seed = Self.seed
        let result = run([.init(rate: steady(factor * Self.capacity))], seconds: 4, seed: seed)
        let outcome = result.outcomes[0]
        let goodput = Double(outcome.inTime) / 4
        print("x\(factor): goodput \(goodput), p99 \(outcome.quantile(0.99)), entries \(result.entries)")
        #expect(goodput >= least * Self.capacity, "seed \(seed)")
        #expect(outcome.quantile(0.99) <= 5e-3 || outcome.quantile(0.95) <= 5e-3, "seed \(seed)")
    }

    @Test func tagsAreNamesOrTheirFirstLetter() {
        func named(_ tag: String) -> RequestClass? { RequestClass(tag: Array(tag.utf8).span) }
        for one in [RequestClass.critical, .standard, .sheddable, .background] {
            #expect(named(one.label) == one && named(String(one.label.prefix(1))) == one)
            #expect(named(one.label + "x") == nil && named(String(one.label.dropLast())) == nil)
        }
        #expect(named("") == nil && named("invalidation") == nil && named("Critical") == nil)
    }

    /// Who need not be asked about is refused whenever it is.
    @Test func whomNobodyAsksAboutIsRefused() {
        let seed = Self.seed
        var controller = OverloadController(OverloadConfiguration(), seed: seed)
        var (now, refusedUnasked, served) = (UInt64(1_000_000_000), 0, 0)
        // Requests of 50 µs wait for 1.5 ms when a turn begins, and eight times as many as can be served are there.
        for turn in 0..<4000 {
            let arrival = now
            now += 1_500_000
            _ = controller.turnBegan(arrival: arrival, now: now, ran: now)
            guard controller.isOverloaded else { continue }
            for request in 0..<80 {
                let tenant = UInt64(request % 64) << 8 | UInt64(request % 64)
                let requestClass: RequestClass = request % 7 == 0 ? .background : .standard
                let isRefused = controller.refusesAll(requestClass, tenant: tenant)
                controller.visitBegan()
                switch controller.judge(requestClass, tenant: tenant, now: now) {
                case .serve:
                    served += 1
                    controller.served(requestClass, nanoseconds: 50_000)
                    #expect(!isRefused, "seed \(seed), turn \(turn)")
                case .refuse(let reason):
                    if isRefused { refusedUnasked += 1 }
                    #expect(!isRefused || reason == .ratio, "seed \(seed), turn \(turn)")
                }
            }
        }
        #expect(refusedUnasked > 1000 && served > 1000, "seed \(seed): \(refusedUnasked) refused, \(served) served")
    }

    /// Refused in one, requests weigh as much as one by one.
    @Test func manyRefusedAtOnceCountAsMany() {
        var configuration = OverloadConfiguration()
        configuration.refusesAll = true
        func ratios(_ refuse: (inout OverloadController, UInt64) -> Void) -> [Double] {
            var controller = OverloadController(configuration, seed: 1)
            var found: [Double] = []
            for turn in UInt64(1)...500 {
                let now = turn * 3_000_000
                _ = controller.turnBegan(arrival: now - 2_500_000, now: now, ran: now)
                controller.visitBegan()
                if controller.refusesAll(.standard, tenant: 7) { refuse(&controller, now) }
                found.append(controller.ratio)
            }
            return found
        }
        let oneByOne = ratios { controller, now in
            for _ in 0..<32 { _ = controller.judge(.standard, tenant: 7, now: now) }
        }
        let atOnce = ratios { controller, _ in controller.refused(.standard, tenant: 7, count: 32) }
        #expect(zip(oneByOne, atOnce).allSatisfy { abs($0 - $1) < 1e-9 })
        #expect(oneByOne.contains { $0 > 0 })
    }

    @Test func withoutItNothingIsServedInTime() {
        let seed = Self.seed
        let result = run([.init(rate: steady(2 * Self.capacity))], seconds: 2, seed: seed, target: 0)
        #expect(Double(result.outcomes[0].inTime) / 2 < 0.2 * Self.capacity, "seed \(seed)")
    }

    @Test func nothingIsShedBelowCapacity() {
        let seed = Self.seed
        let result = run([.init(rate: steady(0.8 * Self.capacity))], seconds: 30, seed: seed)
        #expect(result.shed == 0 && result.entries == 0, "seed \(seed)")
    }

    /// With requests of half a millisecond and connections that go on for eight of them, a turn soon takes longer than
    /// a step: the flood is noticed in its midst.
    @Test(arguments: [2.0, 5.0, 10.0])
    func aFloodIsNoticedWithinALongTurn(factor: Double) {
        let seed = Self.seed
        let capacity = 1600.0
        var simulation = QueueSimulation([.init(rate: steady(factor * capacity))], seed: seed)
        simulation.serviceTime = 500e-6
        simulation.quantum = 4e-3
        simulation.run(seconds: 2, OverloadConfiguration())
        let slowest = simulation.outcomes[0].quantile(1)
        #expect(slowest <= 0.1, "seed \(seed): \(slowest) s, \(simulation.entries) overloads")
        #expect(simulation.entries == 1, "seed \(seed)")
    }

    /// With requests of half a millisecond and one tenant: what is served waits no longer than the age rule says, about
    /// two targets.
    @Test(arguments: [2.0, 5.0, 10.0])
    func whatIsServedIsServedSoon(factor: Double) {
        let seed = Self.seed
        var simulation = QueueSimulation([.init(rate: steady(factor * 1600))], seed: seed)
        simulation.serviceTime = 500e-6
        simulation.run(seconds: 20, OverloadConfiguration())
        let outcome = simulation.outcomes[0]
        // The moment in which the overload began counts, too: it is more than a hundredth of what is served later on.
        let tail = outcome.quantile(0.98)
        print("x\(factor): p98 \(tail), p99 \(outcome.quantile(0.99))")
        #expect(tail <= 2.6e-3, "seed \(seed): \(tail) s")
        #expect(Double(outcome.inTime) / 20 >= 1500, "seed \(seed)")
    }

    /// The same at 0.8 C with bursts: one that takes long to drain is no overload.
    @Test func burstsOfLongRequestsAreNoOverload() {
        let seed = Self.seed
        let rate: @Sendable (Double) -> Double = { time in
            let phase = time * 2 - (time * 2).rounded(.down)
            return phase < 0.01 ? 3 * 1500 : 0.8 * 1500
        }
        var simulation = QueueSimulation([.init(rate: rate)], seed: seed)
        simulation.serviceTime = 500e-6
        simulation.run(seconds: 120, OverloadConfiguration())
        #expect(simulation.shed == 0, "seed \(seed): \(simulation.shed) shed in \(simulation.entries) overloads")
    }

    /// What waits less and less is a queue that drains; what stands, or grows, is not.
    @Test func aQueueThatDrainsIsNoOverload() {
        let configuration = OverloadConfiguration()
        var law = ShedLaw(configuration)
        for step in 0..<11 { law.step(delay: UInt64(8_000_000 - 600_000 * step), offered: 0, refused: 0, late: 0) }
        #expect(!law.isOverloaded)
        for _ in 0..<2 { law.step(delay: 500_000, offered: 0, refused: 0, late: 0) }
        for _ in 0..<configuration.entrySteps { law.step(delay: 2_000_000, offered: 0, refused: 0, late: 0) }
        #expect(law.isOverloaded)
    }

    @Test func shortBurstsAreNoOverload() {
        let seed = Self.seed
        let capacity = Self.capacity
        // Three times C for 5 ms in each 200 ms, 0.8 C otherwise.
        let rate: @Sendable (Double) -> Double = { time in
            let phase = time * 5 - (time * 5).rounded(.down)
            return phase < 0.025 ? 3 * capacity : 0.8 * capacity
        }
        let result = run([.init(rate: rate)], seconds: 30, seed: seed)
        #expect(result.shed == 0, "seed \(seed): \(result.shed) shed in \(result.entries) overloads")
    }

    @Test func aStepSettlesWithinAFifthOfASecond() {
        let seed = Self.seed
        let capacity = Self.capacity
        let rate: @Sendable (Double) -> Double = { $0 < 1 ? 0.8 * capacity : 1.4 * capacity }
        let result = run([.init(rate: rate)], seconds: 3, seed: seed)
        let after = result.goodputByTenth[12..<29].min() ?? 0
        print("step: \(result.goodputByTenth)")
        #expect(Double(after) >= 0.09 * capacity, "seed \(seed): \(result.goodputByTenth)")
    }

    /// Requests of 500 µs, of which a step to 1.4 C asks for nearly as many as can be served: the queue grows slowly.
    @Test(arguments: [(OverloadConfiguration().farSteps, 0...28), (OverloadConfiguration().entrySteps, 32...120)])
    func aStepToWhatCanJustBeServedSettlesSoon(farSteps: Int, tenths: ClosedRange<Int>) {
        var configuration = OverloadConfiguration()
        configuration.farSteps = farSteps
        let rate: @Sendable (Double) -> Double = { $0 < 2 ? 0.8 * 1400 : 1.4 * 1400 }
        let settled = (UInt64(1)...40).map { seed in
            var simulation = QueueSimulation([.init(rate: rate)], seed: seed)
            simulation.serviceTime = 510e-6
            simulation.run(seconds: 6, configuration)
            let after = simulation.goodputByTenth[20..<60].map(Double.init)
            let level = 0.9 * after[20...].reduce(0, +) / 20
            return after.indices.dropLast(2).first { after[$0...($0 + 2)].reduce(0, +) / 3 >= level } ?? after.count
        }
        // In tenths of a second, of 40 steps.
        #expect(tenths.contains(settled.reduce(0, +)), "\(settled)")
    }

    @Test func itEndsSoonAfterTheLoad() {
        let seed = Self.seed
        let capacity = Self.capacity
        let rate: @Sendable (Double) -> Double = { $0 < 2 ? 3 * capacity : 0.7 * capacity }
        let result = run([.init(rate: rate)], seconds: 5, seed: seed)
        print("end: last shed \(result.lastShed), entries \(result.entries)")
        #expect(result.lastShed < 3, "seed \(seed)")
        #expect(Double(result.goodputByTenth[40]) > 0.6 * capacity / 10, "seed \(seed)")
    }

    /// Clients that send again at once what is refused, three times: nothing of it lasts when they ask for less.
    @Test func aStormOfRetriesEnds() {
        let seed = Self.seed
        let rate: @Sendable (Double) -> Double = { $0 < 2 ? 3 * 1500 : 0.7 * 1500 }
        var simulation = QueueSimulation([.init(retries: 3, rate: rate)], seed: seed)
        simulation.serviceTime = 500e-6
        simulation.run(seconds: 5, OverloadConfiguration())
        print("storm: last shed \(simulation.lastShed), entries \(simulation.entries)")
        #expect(simulation.lastShed > 1.9 && simulation.lastShed < 2.8, "seed \(seed)")
    }

    /// How much more than possible was asked is not remembered for long: a step is 10 ms.
    @Test func aLargeOverloadEndsAsSoonAsASmallOne() {
        for factor in [1.5, 15.0] {
            var law = ShedLaw(OverloadConfiguration())
            for _ in 0..<50 {
                law.step(delay: 3_000_000, offered: factor * 10e6, refused: (factor - 1) * 10e6, late: 1e6)
            }
            #expect(law.isOverloaded)
            var steps = 0
            while law.isOverloaded, steps < 100 {
                law.step(delay: 300_000, offered: 5.6e6, refused: 0.3e6, late: 0.3e6)
                steps += 1
            }
            #expect(steps <= 30, "\(factor): \(steps)")
        }
    }

    @Test func criticalRequestsAreServedInAFlood() {
        let seed = Self.seed
        let result = run(
            [
                .init(requestClass: .critical, tenant: 1 << 8, rate: steady(0.3 * Self.capacity)),
                .init(requestClass: .background, tenant: 2 << 8, rate: steady(5 * Self.capacity)),
            ], seconds: 4, seed: seed)
        let critical = result.outcomes[0]
        let part = Double(critical.inTime) / Double(critical.offered)
        print("critical in time \(part), p99 \(critical.quantile(0.99)), background \(result.outcomes[1].served)")
        #expect(part >= 0.97, "seed \(seed)")
        #expect(critical.served(from: 0.3, of: 4) >= 0.999, "seed \(seed)")
        #expect(critical.served(from: 0, of: 4) >= 0.99, "seed \(seed)")
        #expect(result.outcomes[1].served > 0)
    }

    /// A tenant's critical requests may be more than half of what can be served, with its background work beside.
    @Test func muchThatIsCriticalIsServedInAFlood() {
        let seed = Self.seed
        var simulation = QueueSimulation(
            [
                .init(requestClass: .critical, tenant: 1 << 8, connections: 10, rate: steady(0.7 * 1600)),
                .init(requestClass: .background, tenant: 1 << 8, connections: 10, rate: steady(5 * 1600)),
            ], seed: seed)
        simulation.serviceTime = 500e-6
        simulation.run(seconds: 20, OverloadConfiguration())
        let critical = simulation.outcomes[0]
        #expect(critical.served(from: 0.3, of: 20) >= 0.998, "seed \(seed): \(critical.served(from: 0.3, of: 20))")
        #expect(critical.quantile(0.98) <= 5e-3, "seed \(seed)")
    }

    @Test func aGreedyTenantPaysForItself() {
        let seed = Self.seed
        var sources = (0..<9).map { index in
            QueueSimulation.Source(
                tenant: UInt64(index) | UInt64(index * 13) << 8, connections: 5, rate: steady(0.08 * Self.capacity))
        }
        sources.append(.init(tenant: 77 | 99 << 8, connections: 20, rate: steady(1.0 * Self.capacity)))
        let result = run(sources, seconds: 6, seed: seed)
        let parts = result.outcomes.map { $0.served(from: 0.3, of: 6) }
        print("tenants: \(parts), rates \(result.outcomes.map { $0.served / 6 })")
        for outcome in result.outcomes.dropLast() {
            #expect(outcome.served(from: 0.3, of: 6) >= 0.995, "seed \(seed)")
            #expect(outcome.served(from: 0, of: 6) >= 0.96, "seed \(seed)")
        }
        // What is left for the tenth is what the nine do not want.
        let greedy = result.outcomes[9].served(from: 0.3, of: 6)
        #expect(greedy > 0.2 && greedy < 0.35, "seed \(seed): \(greedy)")
    }

    /// Requests of half a millisecond: in a turn of a few of them those of the greedy one do not delay the others'.
    @Test func tenantsOfLongRequestsAreServedBesideAGreedyOne() {
        let seed = Self.seed
        let capacity = 1600.0
        var sources = (0..<9).map { index in
            QueueSimulation.Source(
                tenant: UInt64(index) | UInt64(index * 13) << 8, connections: 2, rate: steady(0.08 * capacity))
        }
        sources.append(.init(tenant: 77 | 99 << 8, connections: 2, rate: steady(1.0 * capacity)))
        var simulation = QueueSimulation(sources, seed: seed)
        simulation.serviceTime = 500e-6
        simulation.run(seconds: 20, OverloadConfiguration())
        for outcome in simulation.outcomes.dropLast() {
            let part = outcome.served(from: 0.3, of: 20)
            #expect(part >= 0.996, "seed \(seed): \(part)")
            #expect(outcome.quantile(0.98) <= 5e-3, "seed \(seed): \(outcome.quantile(0.98)) s")
        }
    }

    /// A client that asks one thing at a time, on a machine whose processors others have: each request waits for 24 ms,
    /// and none of them is refused. Where the reactor itself needs the time, or what it is given of it, they are.
    @Test(arguments: [(20_000, false), (100_000, false), (2_000_000, true), (24_000_000, true)])
    func whoWaitsForAProcessorRefusesNothing(_ ran: UInt64, _ isOurs: Bool) {
        var controller = OverloadController(OverloadConfiguration(), seed: 1)
        var now: UInt64 = 1_000_000_000
        var total: UInt64 = 0
        for _ in 0..<1000 {
            let arrival = now
            now += 24_000_000
            total += ran
            _ = controller.turnBegan(arrival: arrival, now: now, ran: total)
            // Held up within a turn, too.
            controller.turnGoesOn(now: now + 24_000_000, ran: total + ran)
        }
        #expect(controller.isOverloaded == isOurs)
        #expect((controller.entries > 0) == isOurs)
    }

    /// Where a request takes longer than invalidations' share of a step, there is still one in a step.
    @Test func anInvalidationIsServedHoweverLongRequestsTake() {
        var controller = OverloadController(OverloadConfiguration(), seed: 1)
        var now: UInt64 = 1_000_000_000
        for _ in 0..<20 {
            _ = controller.turnBegan(arrival: now - 40_000_000, now: now, ran: now)
            controller.visitBegan()
            if controller.isOverloaded { controller.served(.standard, nanoseconds: 20_000_000) }
            now += 40_000_000
        }
        _ = controller.turnBegan(arrival: now - 40_000_000, now: now, ran: now)
        let first = controller.judge(.invalidation, tenant: 1, now: now)
        controller.served(.invalidation, nanoseconds: 20_000_000)
        let second = controller.judge(.invalidation, tenant: 1, now: now)
        #expect(first == .serve)
        #expect(second != .serve)
    }

    @Test func invalidationsHaveTheirShare() {
        let seed = Self.seed
        let result = run(
            [
                .init(requestClass: .invalidation, rate: steady(0.1 * Self.capacity)),
                .init(rate: steady(8 * Self.capacity)),
            ], seconds: 3, seed: seed)
        let outcome = result.outcomes[0]
        #expect(Double(outcome.served) >= 0.998 * Double(outcome.offered), "seed \(seed)")
    }
}
