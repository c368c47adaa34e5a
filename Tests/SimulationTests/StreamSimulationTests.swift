// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import SimulationKit
import Storage
import Testing

/// Three regions in virtual time: no hit is older than the bound, whatever happens to the stream.
struct StreamSimulationTests {
    @Test func noSeedShowsAStaleCopy() {
        var (commits, hits, faults, quarantines, repairs) = (0, 0, 0, UInt64(0), UInt64(0))
        var hitless: [UInt64] = []
        for seed in Seeds.range {
            let report = StreamSimulation(seed: seed).run()
            #expect(report.violations.isEmpty, "MARTLET_SEED=\(seed): \(report.violations.first ?? "")")
            #expect(report.commits > 0 && report.hits + report.fills > 0, "MARTLET_SEED=\(seed) is too tame")
            if report.hits == 0 { hitless.append(seed) }
            (commits, hits) = (commits + report.commits, hits + report.hits)
            faults += report.faults.values.reduce(0, +)
            (quarantines, repairs) = (quarantines + report.quarantines, repairs + report.repairs)
        }
        // A region whose way is broken for the whole run reads at home, and one that nobody fills has nothing by then.
        #expect(hitless.count <= Seeds.range.count / 200 + 1, "no hits from seeds \(hitless)")
        let figures = "\(Seeds.range.count) seeds, \(commits) commits, \(hits) hits, \(faults) faults"
        print("streams: \(figures), \(quarantines) quarantined slots, \(repairs) repaired gaps")
    }

    @Test func theSameSeedGivesTheSameStreams() {
        for seed in UInt64(1)...3 {
            let report = StreamSimulation(seed: seed).run()
            #expect(report == StreamSimulation(seed: seed).run(), "seed \(seed)")
            #expect(report.digest != StreamSimulation(seed: seed + 1).run().digest)
        }
    }

    @Test(.enabled(if: Seeds.isOptimised && Seeds.isWholeRun)) func everyFaultOfStreamsHappens() {
        var faults: [String: Int] = [:]
        for seed in UInt64(1)...50 { faults.merge(StreamSimulation(seed: seed).run().faults) { $0 + $1 } }
        for name in [
            "disconnect", "duplicate", "epoch", "lag", "loss", "partition", "pause", "reconnect", "reorder", "restart",
            "stall", "trim", "promotion", "truncation",
        ] {
            #expect(faults[name, default: 0] >= 5, "\(name)")
        }
    }

    /// A stream with such a guard taken out is caught within a thousand seeds.
    @Test(.enabled(if: Seeds.isOptimised && Seeds.isWholeRun), arguments: StreamGuards.named.map(\.name))
    func aMissingGuardOfStreamsIsCaught(_ name: String) throws {
        let guards = try #require(StreamGuards(named: name))
        let caught = (UInt64(1)...1000).first { seed in
            !StreamSimulation(seed: seed, guards: .all.subtracting(guards)).run().violations.isEmpty
        }
        #expect(caught != nil, "nobody notices that \(name) is missing")
    }
}
