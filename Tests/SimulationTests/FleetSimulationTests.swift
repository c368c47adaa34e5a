// Martlet
// SPDX-License-Identifier: Apache-2.0

import SimulationKit
import Storage
import Testing

/// Three nodes on one store while the ring changes every 100 ms: every history that clients see can be explained.
struct FleetSimulationTests {
    @Test func everySeedIsLinearizableWhileTheRingChanges() {
        var (operations, changes, faults, fewest) = (0, 0, 0, Int.max)
        for seed in Seeds.range {
            let simulation = FleetSimulation(seed: seed)
            let report = simulation.run()
            // Whoever replays a seed wants to know what happened.
            if Seeds.range.count == 1 {
                for name in report.violations + report.unanswered + report.undecided {
                    for line in simulation.log(of: name) { print(line) }
                }
            }
            operations += report.operations
            changes += report.faults["ring change"] ?? 0
            faults += report.faultCount
            fewest = min(fewest, report.faults["ring change"] ?? 0)
            #expect(report.violations.isEmpty, "MARTLET_SEED=\(seed)")
            #expect(report.undecided.isEmpty, "MARTLET_SEED=\(seed): the checker gave up")
            #expect(report.unanswered.isEmpty, "MARTLET_SEED=\(seed): nobody serves any more")
        }
        let figures = "\(Seeds.range.count) seeds, \(operations) operations, \(faults) faults"
        print("fleet simulation: \(figures), \(changes) rings, at least \(fewest) a seed")
        #expect(fewest > 1)
    }

    /// Nodes of a replica region: their store, the home region, commits whatever they send, whoever owns the key by
    /// then. No read shows what is older than a write that somebody was told of.
    @Test func whoWasToldOfAWriteReadsItWithoutAFence() {
        var (operations, changes, disowned) = (0, 0, 0)
        for seed in Seeds.range {
            let simulation = FleetSimulation(seed: seed, isFenced: false)
            let report = simulation.run()
            if Seeds.range.count == 1 {
                for name in report.violations + report.unanswered {
                    for line in simulation.log(of: name) { print(line) }
                }
            }
            operations += report.operations
            changes += report.faults["ring change"] ?? 0
            disowned += report.faults["disowned"] ?? 0
            #expect(report.violations.isEmpty, "MARTLET_SEED=\(seed)")
            #expect(report.unanswered.isEmpty, "MARTLET_SEED=\(seed): nobody serves any more")
        }
        print(
            "fleet simulation without a fence: \(Seeds.range.count) seeds, \(operations) operations, \(changes) rings, "
                + "\(disowned) writes done whose key went elsewhere")
        #expect(changes > 0)
    }

    @Test(.enabled(if: Seeds.isOptimised && Seeds.isWholeRun), arguments: OwnershipGuards.namedWithoutFence.map(\.name))
    func aMissingGuardIsCaughtWithoutAFence(_ name: String) throws {
        let guards = try #require(OwnershipGuards.namedWithoutFence.first { $0.name == name }?.guards)
        let caught = (UInt64(1)...1000).first { seed in
            let simulation = FleetSimulation(seed: seed, guards: .all.subtracting(guards), isFenced: false)
            return !simulation.run().violations.isEmpty
        }
        #expect(caught != nil, "without \(name) nothing was noticed in 1,000 seeds")
        print("fleet simulation without a fence: without \(name), caught by seed \(caught.map(String.init) ?? "none")")
    }

    @Test func theSameSeedGivesTheSameRun() {
        for seed in UInt64(1)...3 {
            #expect(FleetSimulation(seed: seed).run() == FleetSimulation(seed: seed).run(), "seed \(seed)")
        }
    }

    /// A fleet with a guard taken out is caught within a thousand seeds: the simulation sees what it is for.
    @Test(.enabled(if: Seeds.isOptimised && Seeds.isWholeRun), arguments: OwnershipGuards.named.map(\.name))
    func aMissingGuardIsCaught(_ name: String) throws {
        let guards = try #require(OwnershipGuards(named: name))
        let caught = (UInt64(1)...1000).first { seed in
            !FleetSimulation(seed: seed, guards: .all.subtracting(guards)).run().violations.isEmpty
        }
        #expect(caught != nil, "without \(name) nothing was noticed in 1,000 seeds")
        print("fleet simulation: without \(name), caught by seed \(caught.map(String.init) ?? "none")")
    }
}
