// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Storage
import Testing

struct BrokerModelTests {
    @Test func noCopyIsShownPastTheBoundWhateverTheBrokersDo() {
        let first = UInt64.random(in: 0...UInt64.max / 2)
        var events: [String: Int] = [:]
        var shown = 0
        for seed in first..<first + 60 {
            var world = BrokerWorld(seed: seed)
            world.run(steps: 3000)
            #expect(world.violation == nil, "seed \(seed): \(world.violation ?? "")")
            shown += world.shown
            events.merge(world.events) { $0 + $1 }
        }
        #expect(shown > 50_000, "seed \(first)")
        for event in [
            "broker", "publisher", "pause", "retention", "trim", "loss", "epoch", "overrun", "rejoin", "repair",
        ] {
            #expect(events[event, default: 0] > 0, "\(event) did not happen from seed \(first) on")
        }
    }

    @Test(arguments: ["contiguity", "tails", "epochs", "trims", "repairs", "proofs", "bound", "sweeps"])
    func withoutAGuardACopyIsShownPastTheBound(_ name: String) {
        let missing = StreamGuards.named.first { $0.name == name }?.guards ?? []
        for seed in UInt64(1)...1000 {
            var world = BrokerWorld(seed: seed, guards: StreamGuards.all.subtracting(missing))
            world.run(steps: 3000)
            if world.violation != nil { return }
        }
        Issue.record("nothing is seen of it within 1000 seeds")
    }
}
