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

    @Test func itEndsSoonAfterTheLoad() {
        let seed = Self.seed
        let capacity = Self.capacity
        let rate: @Sendable (Double) -> Double = { $0 < 2 ? 3 * capacity : 0.7 * capacity }
        let result = run([.init(rate: rate)], seconds: 5, seed: seed)
        print("end: last shed \(result.lastShed), entries \(result.entries)")
        #expect(result.lastShed < 3, "seed \(seed)")
        #expect(Double(result.goodputByTenth[40]) > 0.6 * capacity / 10, "seed \(seed)")
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
            #expect(outcome.served(from: 0.3, of: 6) >= 0.985, "seed \(seed)")
            #expect(outcome.served(from: 0, of: 6) >= 0.96, "seed \(seed)")
        }
        // What is left for the tenth is what the nine do not want.
        let greedy = result.outcomes[9].served(from: 0.3, of: 6)
        #expect(greedy > 0.2 && greedy < 0.35, "seed \(seed): \(greedy)")
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
