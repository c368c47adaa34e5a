// Martlet
// SPDX-License-Identifier: Apache-2.0

import SimulationKit
import Storage
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// Which seeds a run tries. MARTLET_SEED tries one; MARTLET_SEED_FROM and MARTLET_SEEDS a range, as
/// Scripts/soak-simulation does; without them it is the first thousand, or a few where the code is not optimised.
enum Seeds {
    static let isOptimised: Bool = {
        var isDebug = false
        assert(
            {
                isDebug = true; return true
            }())
        return !isDebug
    }()

    static func number(_ name: String) -> UInt64? {
        guard let text = unsafe getenv(name) else { return nil }
        return UInt64(unsafe String(cString: text))
    }

    static let range: ClosedRange<UInt64> = {
        if let seed = number("MARTLET_SEED") { return seed...seed }
        let first = number("MARTLET_SEED_FROM") ?? 1
        return first...(first + max(number("MARTLET_SEEDS") ?? (isOptimised ? 1000 : 40), 1) - 1)
    }()

    static let isWholeRun = number("MARTLET_SEED") == nil && number("MARTLET_SEEDS") == nil
}

/// The storage tier on a simulated store, cache and clock: every history that clients see can be explained.
struct SimulationTests {
    @Test func everySeedIsLinearizable() {
        var (operations, faults, fewest) = (0, 0, Int.max)
        var unchecked = (operations: 0, keys: 0)
        for seed in Seeds.range {
            let report = Simulation(seed: seed).run()
            operations += report.operations
            faults += report.faultCount
            fewest = min(fewest, report.faultCount)
            unchecked.operations += report.uncheckedOperations
            unchecked.keys += report.undecided.count
            for key in report.undecided { print("simulation: not checked: seed \(seed), \(key)") }
            #expect(report.violations.isEmpty, "MARTLET_SEED=\(seed)")
            #expect(report.undecided.isEmpty, "MARTLET_SEED=\(seed): the checker gave up")
            #expect(report.operations >= 1000 && report.faultCount >= 5, "MARTLET_SEED=\(seed) is too tame")
        }
        let figures = "\(Seeds.range.count) seeds, \(operations) operations, \(faults) faults"
        let left = "\(unchecked.operations) operations of \(unchecked.keys) keys not checked"
        print("simulation: \(figures), \(left), at least \(fewest) faults a seed")
    }

    /// What a checker gives up on counts as neither right nor wrong, and is named.
    @Test func whatIsGivenUpIsNamedAndCounted() {
        let whole = Simulation(seed: 1).run()
        #expect(whole.undecided.isEmpty && whole.uncheckedOperations == 0)
        let report = Simulation(seed: 1, checker: LinearizabilityChecker(stepsMax: 20)).run()
        #expect(!report.undecided.isEmpty && report.undecided.allSatisfy { $0.hasPrefix("key-") })
        #expect(report.violations.isEmpty, "nothing is known to be wrong")
        #expect(report.uncheckedOperations > 100 && report.uncheckedOperations <= report.operations)
    }

    @Test func theSameSeedGivesTheSameRun() {
        for seed in UInt64(1)...5 {
            let report = Simulation(seed: seed).run()
            #expect(report == Simulation(seed: seed).run(), "seed \(seed)")
            #expect(report.digest != Simulation(seed: seed + 1).run().digest)
        }
    }

    /// Every kind of fault happens within a hundred seeds: a simulation without faults shows nothing.
    @Test(.enabled(if: Seeds.isOptimised && Seeds.isWholeRun)) func everyFaultHappens() {
        var faults: [String: Int] = [:]
        for seed in UInt64(1)...100 { faults.merge(Simulation(seed: seed).run().faults) { $0 + $1 } }
        for name in [
            "clock step", "crash", "eviction", "flush", "key written elsewhere", "late commit", "no memory", "not sent",
            "read error", "refused", "ring change", "slow read", "slow write", "unknown outcome",
        ] {
            #expect(faults[name, default: 0] >= 5, "\(name)")
        }
    }

    /// A clock that is set, and a node that does not notice: its copies outlive their rows.
    @Test(.enabled(if: Seeds.isOptimised && Seeds.isWholeRun)) func stepsThatNobodyNoticesAreCaught() {
        let caught = (UInt64(1)...1000).first { !Simulation(seed: $0, noticesSteps: false).run().violations.isEmpty }
        #expect(caught != nil)
        print("simulation: without an eye on the clock, caught by seed \(caught.map(String.init) ?? "none")")
    }

    /// A tier with a guard taken out is caught within a thousand seeds: the simulation sees what it is for.
    @Test(.enabled(if: Seeds.isOptimised && Seeds.isWholeRun), arguments: WriteThroughGuards.named.map(\.name))
    func aMissingGuardIsCaught(_ name: String) throws {
        let guards = try #require(WriteThroughGuards(named: name))
        let caught = (UInt64(1)...1000).first { seed in
            !Simulation(seed: seed, guards: .all.subtracting(guards)).run().violations.isEmpty
        }
        #expect(caught != nil, "without \(name) nothing was noticed in 1,000 seeds")
        print("simulation: without \(name), caught by seed \(caught.map(String.init) ?? "none")")
    }
}
