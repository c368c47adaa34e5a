// Martlet
// SPDX-License-Identifier: Apache-2.0

import Overload
import Testing

/// Tenants before a server that takes so many requests a second, whoever sends them, and refuses the others.
private struct TenantSimulation {
    var accepts = 1000.0
    var throttle = AcceptThrottle(seed: 7)
    /// By tenant: what it offers a second, what it offered, what was sent of it, and what was served.
    var rates: [Double]
    var tellsApart = true
    private(set) var offered: [Double]
    private(set) var served: [Double]
    private(set) var sent = 0
    private var now: UInt64 = 1_000_000_000
    private var random: UInt64 = 0x9E37_79B9_7F4A_7C15
    private var due: [Double]
    /// What the server can do at once.
    private var room = 0.0

    init(_ rates: [Double]) {
        self.rates = rates
        offered = rates.map { _ in 0 }
        served = offered
        due = offered
    }

    private mutating func uniform() -> Double {
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        return Double(random >> 11) / Double(1 << 53)
    }

    mutating func clearFigures() {
        offered = rates.map { _ in 0 }
        served = offered
        sent = 0
    }

    mutating func run(seconds: Double) {
        for _ in 0..<Int(seconds * 1000) {
            now += 1_000_000
            var arrived: [Int] = []
            for tenant in rates.indices {
                due[tenant] += rates[tenant] * 2 * uniform() / 1000
                while due[tenant] >= 1 {
                    due[tenant] -= 1
                    offered[tenant] += 1
                    let number = tellsApart ? UInt64(tenant + 1) : 0
                    if throttle.admits(.standard, tenant: number, now: now) { arrived.append(tenant) }
                }
            }
            sent += arrived.count
            room = min(room + accepts / 1000, accepts / 200)
            let part = min(1, room / max(Double(arrived.count), 1))
            for tenant in arrived {
                if uniform() < part {
                    room = max(room - 1, 0)
                    served[tenant] += 1
                    throttle.accepted(.standard, now: now)
                } else {
                    throttle.refused(.standard, now: now)
                }
            }
        }
    }

    func part(_ tenant: Int) -> Double { served[tenant] / max(offered[tenant], 1) }
}

@Suite struct TenantThrottleTests {
    @Test func whoAsksForMoreThanItsPartIsRefusedFirst() {
        for tellsApart in [true, false] {
            var simulation = TenantSimulation([Double](repeating: 80, count: 9) + [5000])
            simulation.tellsApart = tellsApart
            simulation.run(seconds: 3)
            simulation.clearFigures()
            simulation.run(seconds: 10)
            let least = (0..<9).map(simulation.part).min() ?? 0
            #expect(simulation.served.reduce(0, +) > 0.9 * 10_000, "the server has as much to do as it can")
            #expect(tellsApart ? least > 0.45 : least < 0.3, "\(tellsApart): \(least)")
            if tellsApart { #expect(simulation.part(9) < 0.18) }
        }
    }

    @Test func equalsAreTreatedAlike() {
        var simulation = TenantSimulation([Double](repeating: 500, count: 10))
        simulation.run(seconds: 3)
        simulation.clearFigures()
        simulation.run(seconds: 10)
        let parts = (0..<10).map(simulation.part)
        #expect((parts.max() ?? 0) < 1.4 * (parts.min() ?? 0), "\(parts)")
        #expect(simulation.served.reduce(0, +) > 0.9 * 10_000)
    }

    @Test func itIsOverWhenTheLoadIs() {
        var simulation = TenantSimulation([300, 5000])
        simulation.run(seconds: 3)
        #expect(simulation.throttle.isActive)
        simulation.rates = [300, 300]
        simulation.run(seconds: 1.5)
        simulation.clearFigures()
        simulation.run(seconds: 5)
        #expect(simulation.part(0) > 0.99 && simulation.part(1) > 0.97)
    }

    @Test func aServerThatTakesMoreIsSentMore() {
        var simulation = TenantSimulation([300, 5000])
        simulation.run(seconds: 3)
        simulation.accepts = 4000
        simulation.run(seconds: 3)
        simulation.clearFigures()
        simulation.run(seconds: 5)
        #expect(simulation.served.reduce(0, +) > 0.85 * 5 * 4000)
        #expect(simulation.part(0) > 0.8)
    }

    @Test func deletesAreAlwaysSent() {
        var simulation = TenantSimulation([300, 5000])
        simulation.run(seconds: 3)
        for _ in 0..<1000 {
            let isSent = simulation.throttle.admits(.invalidation, tenant: 2, now: 5_000_000_000)
            #expect(isSent)
        }
    }
}
