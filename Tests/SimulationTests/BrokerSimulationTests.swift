// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Storage
import Testing

/// Followers of a topic in virtual time: no copy is shown past the bound, whatever brokers do, and whoever is home.
struct BrokerSimulationTests {
    @Test func noCopyIsShownPastTheBoundWhateverTheBrokersDo() {
        var events: [String: Int] = [:]
        var shown = 0
        for seed in Seeds.range {
            var world = BrokerWorld(seed: seed)
            world.run(steps: 3000)
            #expect(world.violation == nil, "MARTLET_SEED=\(seed): \(world.violation ?? "")")
            shown += world.shown
            events.merge(world.events) { $0 + $1 }
        }
        let faults = events.values.reduce(0, +)
        print("brokers: \(Seeds.range.count) seeds, \(shown) shown, \(faults) events, \(events["repair"] ?? 0) repairs")
        guard Seeds.range.count >= 40 else { return }
        #expect(shown > 800 * Seeds.range.count)
        for event in [
            "broker", "publisher", "pause", "retention", "trim", "loss", "epoch", "overrun", "rejoin", "repair",
        ] {
            #expect(events[event, default: 0] > 0, "\(event)")
        }
    }

    @Test func noCopyIsShownPastTheBoundWhoeverIsHome() {
        var events: [String: Int] = [:]
        var shown = 0
        for seed in Seeds.range {
            var world = BrokerHomesWorld(seed: seed)
            world.run(steps: 3000)
            #expect(world.violation == nil, "MARTLET_SEED=\(seed): \(world.violation ?? "")")
            shown += world.shown
            events.merge(world.events) { $0 + $1 }
        }
        let moves = (events["moved"] ?? 0) + (events["replaced"] ?? 0)
        print("homes behind brokers: \(Seeds.range.count) seeds, \(shown) shown, \(moves) moves of the home")
        guard Seeds.range.count >= 40 else { return }
        #expect(shown > 300 * Seeds.range.count)
        for event in ["moved", "replaced", "doubt", "broker", "pause", "publisher", "retention", "overrun", "repair"] {
            #expect(events[event, default: 0] > 0, "\(event)")
        }
    }

    private static func guards(without name: String) -> StreamGuards {
        .all.subtracting(StreamGuards.named.first { $0.name == name }?.guards ?? [])
    }

    @Test(
        .enabled(if: Seeds.isWholeRun),
        arguments: ["contiguity", "tails", "epochs", "trims", "repairs", "proofs", "bound", "sweeps"])
    func aMissingGuardIsCaught(_ name: String) {
        let caught = (UInt64(1)...1000).first { seed in
            var world = BrokerWorld(seed: seed, guards: Self.guards(without: name))
            world.run(steps: 3000)
            return world.violation != nil
        }
        #expect(caught != nil, "nobody notices that \(name) is missing")
    }

    @Test(
        .enabled(if: Seeds.isWholeRun),
        arguments: ["contiguity", "tails", "epochs", "repairs", "proofs", "bound", "sweeps", "successions", "turns"])
    func aMissingGuardOfHomesIsCaught(_ name: String) {
        let caught = (UInt64(1)...1000).first { seed in
            var world = BrokerHomesWorld(seed: seed, guards: Self.guards(without: name), turns: name != "turns")
            world.run(steps: 3000)
            return world.violation != nil
        }
        #expect(caught != nil, "nobody notices that \(name) is missing")
    }
}
