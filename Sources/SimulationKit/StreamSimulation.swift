// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Invalidation

/// What one seed of a stream simulation showed.
package struct StreamReport: Sendable, Equatable {
    /// What the run can be repeated by.
    package var seed: UInt64
    /// Commits at home.
    package var commits = 0
    /// Reads that a cached copy answered.
    package var hits = 0
    /// Reads that went home.
    package var fills = 0
    /// What was injected, by name.
    package var faults: [String: Int] = [:]
    /// What was read that must not have been.
    package var violations: [String] = []
    /// Slots that were quarantined.
    package var quarantines: UInt64 = 0
    /// Gaps that were repaired in time.
    package var repairs: UInt64 = 0
    /// Of everything that was read: the same seed gives the same.
    package var digest: UInt64 = 0
}

/// A home region and two others that follow its stream, in virtual time and with seeded faults: the real follower,
/// pump, feed, trust and rule of application on a simulated outbox, network and caches. Each hit is checked: it is not
/// older than the bound, and not older than what a finished read of its region had shown.
package final class StreamSimulation {
    private let world: VirtualWorld
    private let seed: UInt64
    private let home: StreamHome
    private let replicas: [StreamReplica]
    private let end: UInt64
    private var report: StreamReport

    /// A run of a seed. Which faults there are, and how many, is the seed's choice.
    package init(seed: UInt64, guards: StreamGuards = .all) {
        self.seed = seed
        let world = VirtualWorld(seed: seed)
        self.world = world
        var configuration = InvalidationConfiguration()
        configuration.lagBoundNanoseconds = 2_000_000_000
        configuration.repairNanoseconds = 500_000_000
        configuration.probeNanoseconds = 200_000_000
        home = StreamHome(world, guards)
        let home = self.home
        replicas = (0..<2).map { StreamReplica(world, home, configuration, guards, mayBePlain: $0 == 0) }
        end = world.microseconds + UInt64(world.random.within(6...10)) * 1_000_000
        report = StreamReport(seed: seed)
    }

    /// Runs to the end and says what was seen.
    package func run() -> StreamReport {
        defer { world.end() }
        for replica in replicas {
            replica.connectSoon()
            replica.schedule()
        }
        home.schedule()
        faultSoon()
        while world.microseconds < end, world.step() {}
        report.commits = home.commits
        for replica in replicas {
            report.hits += replica.hits
            report.fills += replica.fills
            report.violations += replica.violations
            report.digest = report.digest &* 31 &+ replica.digest
            let statistics = replica.total
            report.quarantines += statistics.quarantines
            report.repairs += statistics.repairs
        }
        report.faults = world.faults
        return report
    }

    private func faultSoon() {
        world.after(world.random.within(100_000...1_200_000)) { [self] in
            let replica = replicas[world.random.below(replicas.count)]
            let node = home.nodes[world.random.below(home.nodes.count)]
            switch world.random.below(14) {
            case 0:
                world.noteFault("disconnect")
                replica.disconnect(for: world.random.below(600_000))
            case 1:
                world.noteFault("partition")
                replica.disconnect(for: world.random.within(1_000_000...5_000_000))
            case 2: replica.link.loss = world.random.within(20...400)
            case 3: replica.link.duplicates = world.random.within(50...400)
            case 4: replica.link.stall(until: world.microseconds + UInt64(world.random.within(200_000...4_000_000)))
            case 5:
                world.noteFault("trim")
                home.trim()
                if world.random.chance(500) {
                    // Once more while somebody is away.
                    replica.disconnect(for: world.random.within(700_000...1_500_000))
                    world.after(600_000) { [self] in home.trim() }
                }
            case 6:
                world.noteFault("epoch")
                home.beginEpoch()
                for replica in replicas { replica.disconnect(for: world.random.below(300_000)) }
            case 7:
                world.noteFault("restart")
                replica.restart()
            case 8:
                // The way is long for a while, and what is on it is lost with the connection.
                world.noteFault("lag")
                replica.link.delay = world.random.within(50_000...900_000)
            case 9: node.pause(for: world.random.within(100_000...4_000_000))
            case 10:
                world.noteFault("reconnect")
                node.reconnect()
            case 12:
                world.noteFault("truncation")
                home.truncate()
            case 11:
                world.noteFault("promotion")
                home.promote()
                for replica in replicas {
                    replica.noteLoss()
                    replica.disconnect(for: world.random.below(300_000))
                }
            default: replica.link.heal()
            }
            faultSoon()
        }
    }
}

/// Frames on their way, each in its own time: lost, doubled, late and out of order as the seed has it.
final class StreamNetwork {
    private let world: VirtualWorld
    var loss = 0
    var duplicates = 0
    var delay = 0
    private var stalledUntil: UInt64 = 0
    private let spread: Int

    init(_ world: VirtualWorld) {
        self.world = world
        spread = world.random.within(1...60) * 1000
    }

    func stall(until time: UInt64) {
        world.noteFault("stall")
        stalledUntil = time
    }

    func heal() { (loss, duplicates, delay) = (0, 0, 0) }

    func send(_ body: @escaping () -> Void) {
        if world.random.chance(loss) { return world.noteFault("loss") }
        if world.random.chance(duplicates) {
            world.noteFault("duplicate")
            deliver(body)
        }
        deliver(body)
    }

    private func deliver(_ body: @escaping () -> Void) {
        let wait = stalledUntil > world.microseconds ? Int(stalledUntil - world.microseconds) : 0
        world.after(wait + delay + 200 + world.random.below(spread), body)
    }
}
