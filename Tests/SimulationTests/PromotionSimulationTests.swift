// Martlet
// SPDX-License-Identifier: Apache-2.0

import SimulationKit
import Storage
import Testing

/// Three regions that are promoted by several hands at once: no acknowledged write is lost, and one region is home.
struct PromotionSimulationTests {
    @Test func noSeedHasTwoHomesOrLosesAWrite() {
        var total = PromotionReports(seed: 0)
        for seed in Seeds.range {
            let report = PromotionSimulation(seed: seed).run()
            #expect(report.violations.isEmpty, "MARTLET_SEED=\(seed): \(report.violations.first ?? "")")
            total.writes += report.writes
            total.promotions += report.promotions
            total.losses += report.losses
            total.later += report.later
            total.contests += report.contests
            total.rivals += report.rivals
            total.releases += report.releases
        }
        let figures = "\(Seeds.range.count) seeds, \(total.writes) writes, \(total.promotions) promotions"
        let losses = "\(total.losses) with loss, \(total.later) behind the first of these"
        let contests = "\(total.contests) contested, \(total.rivals) of them by a lower one"
        let kinds = "\(losses), \(contests), \(total.releases) undone"
        print("promotions: \(figures), \(kinds)")
        guard Seeds.isOptimised, Seeds.isWholeRun else { return }
        #expect(total.promotions > Seeds.range.count && total.losses > 50, "too tame")
        #expect(total.contests > 50 && total.releases > 50 && total.later > 50, "too tame")
        #expect(total.rivals > 3, "too tame")
    }

    @Test func theSameSeedGivesTheSamePromotions() {
        for seed in UInt64(1)...3 {
            #expect(PromotionSimulation(seed: seed).run() == PromotionSimulation(seed: seed).run(), "seed \(seed)")
        }
    }

    /// A promotion with such a guard taken out is caught within a thousand seeds.
    @Test(.enabled(if: Seeds.isOptimised && Seeds.isWholeRun), arguments: PromotionGuards.named.map(\.name))
    func aMissingGuardOfPromotionsIsCaught(_ name: String) throws {
        let guards = try #require(PromotionGuards(named: name))
        let caught = (UInt64(1)...1000).first { seed in
            !PromotionSimulation(seed: seed, guards: .all.subtracting(guards)).run().violations.isEmpty
        }
        #expect(caught != nil, "nobody notices that \(name) is missing")
    }

    /// What follows a promotion with loss accepted is judged as well: a guard that is taken out then is missed, too.
    /// But for one, of which too little comes behind a loss: an earlier claim holds against a third region.
    @Test(
        .enabled(if: Seeds.isOptimised && Seeds.isWholeRun),
        arguments: PromotionGuards.named.map(\.name).filter { $0 != "contests" })
    func aGuardThatIsMissingBehindALossIsCaught(_ name: String) throws {
        let guards = try #require(PromotionGuards(named: name))
        let caught = (UInt64(1)...2000).first { seed in
            !PromotionSimulation(seed: seed, later: .all.subtracting(guards)).run().violations.isEmpty
        }
        #expect(caught != nil, "nobody notices that \(name) is missing behind a loss")
    }
}
