// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage

/// What one seed of a simulation of promotions showed.
package struct PromotionReports: Sendable, Equatable {
    /// The run can be repeated by it.
    package var seed: UInt64
    /// Writes that were acknowledged.
    package var writes = 0
    /// Promotions that made a region home.
    package var promotions = 0
    /// Those with loss accepted.
    package var losses = 0
    /// Those behind the first of these.
    package var later = 0
    /// Those that another one was ahead of.
    package var contests = 0
    /// Claims that another region's promotion stood against, though it is the lower one.
    package var rivals = 0
    /// Fences that were taken back.
    package var releases = 0
    /// What was seen that must not have been.
    package var violations: [String] = []

    /// Nothing yet.
    package init(seed: UInt64) { self.seed = seed }
}

/// Three regions, two of them with a standby of home's database, in virtual time: the real course of a promotion, and
/// the rules of its table, with operators that ask for it at several nodes and regions at once, nodes that die or stand
/// still in it, answers that are lost, and statements that come late.
///
/// No write that was acknowledged is lost, unless loss was accepted where its home was left, and then none from before
/// the time that is printed; there are no two homes in the end, nor at once, unless where they part one was promoted
/// with loss accepted. Who is told that another promotion is ahead goes no further, and no database says that nothing
/// is lost without a home that it, or the old home before the claim, was told of.
package final class PromotionSimulation {
    static let second: UInt64 = 1_000_000
    let world: VirtualWorld
    private(set) var guards: PromotionGuards
    private let laterGuards: PromotionGuards
    let regions: [PromotionRegion]
    /// Who is home before any promotion.
    let first = HomeTerm(epoch: 0, region: "us-east")
    private var end: UInt64
    private let hasDisasters: Bool
    var report: PromotionReports
    private var history: PromotionHistory
    /// Promotions of which an old home has said that their fence is taken back.
    private var released: Set<Int64> = []
    private var streams: [Int64: HomeTerm] = [:]
    private var isOver = false
    /// Until when nothing else comes between two promotions that contend.
    private var contendUntil: UInt64 = 0

    /// A run of a seed. Which faults there are, and how many, is the seed's choice. From the first promotion with loss
    /// accepted on, `later` are the guards, where they are given.
    package init(seed: UInt64, guards: PromotionGuards = .all, later: PromotionGuards? = nil) {
        world = VirtualWorld(seed: seed)
        self.guards = guards
        laterGuards = later ?? guards
        history = PromotionHistory(first)
        regions = ["us-east", "eu-west", "ap-south"].map { PromotionRegion($0, home: "us-east", guards) }
        for region in regions.dropFirst() { region.database.rebuild(from: regions[0].database) }
        hasDisasters = world.random.chance(350)
        end = world.microseconds + UInt64(world.random.within(8...16)) * Self.second
        report = PromotionReports(seed: seed)
    }

    /// Runs to the end and says what was seen.
    package func run() -> PromotionReports {
        defer { world.end() }
        for region in regions {
            writeSoon(region)
            followSoon(region)
            for node in region.nodes { lookSoon(node, region) }
        }
        wishSoon()
        if hasDisasters, world.random.chance(700) {
            world.after(world.random.within(100_000...1_000_000)) { [self] in contend() }
        }
        faultSoon()
        rebuildSoon()
        while world.microseconds < end, world.step() {}
        isOver = true
        for region in regions { (region.cutUntil, region.downUntil, region.heldUntil) = (0, 0, 0) }
        run(until: world.microseconds + 12 * Self.second)
        recover()
        judge()
        report.writes = history.acknowledged.count
        return report
    }

    private func run(until time: UInt64) { while world.microseconds < time, world.step() {} }

    var now: UInt64 { world.microseconds }

    /// Whether two promotions are under way of which the old home hears in between.
    var isContending: Bool { now < contendUntil }

    func region(_ name: String) -> PromotionRegion? { regions.first { $0.name == name } }

    func violate(_ text: String) { report.violations.append("at \(now) µs: \(text)") }

    private var open: [PromotionRegion] { regions.filter { $0.isOpen(initial: first.region) } }

    // MARK: What goes on by itself

    private func writeSoon(_ region: PromotionRegion) {
        world.after(world.random.within(3_000...30_000)) { [self] in
            defer { writeSoon(region) }
            let node = region.nodes[world.random.below(2)]
            guard !isOver, region.isUp(now), region.isOpen(initial: first.region) else { return }
            if world.random.chance(100) { region.database.commit(.seen(now)) }
            guard node.known.term.region == region.name else { return }
            let term = region.database.held(first)
            region.database.commit(.write(history.acknowledge(at: now, by: term)))
            for other in open where other !== region {
                let held = other.database.held(first)
                if !history.mayBothBeHome(term, held) { violate("\(term) and \(held) take writes at once") }
            }
        }
    }

    private func followSoon(_ region: PromotionRegion) {
        world.after(world.random.within(1_000...15_000)) { [self] in
            defer { followSoon(region) }
            guard now >= region.heldUntil, region.isReached(now),
                let from = regions.first(where: { $0.database === region.database.upstream }), from.isReached(now)
            else { return }
            region.database.follow(limit: world.random.within(1...40))
        }
    }

    /// A node looks at its region's database, hears what another region says, and turns.
    private func lookSoon(_ node: PromotionNode, _ region: PromotionRegion) {
        world.after(world.random.within(50_000...400_000)) { [self] in
            defer { lookSoon(node, region) }
            guard region.isUp(now) else { return }
            let other = regions[world.random.below(regions.count)]
            if other !== region, other.isReached(now), region.isReached(now) {
                node.hear(other.nodes[world.random.below(2)].known.term)
            }
            look(node, region)
        }
    }

    func look(_ node: PromotionNode, _ region: PromotionRegion) {
        node.known.database = region.database.state
        let term = node.known.newest(in: region.name)
        if term.region != region.name, term.epoch > 0, !region.database.isStandby {
            if !region.database.told.contains(term) { region.database.commit(.told(term)) }
            if region.database.state.isToYield(to: term) { region.database.change { $0.yield(to: term) } }
        }
        if term != node.known.term { node.known.term = term }
    }

    /// Somebody makes the database of an old home a standby of the new one's.
    private func rebuildSoon() {
        world.after(world.random.within(400_000...1_500_000)) { [self] in
            defer { rebuildSoon() }
            let region = regions[world.random.below(regions.count)]
            let term = region.nodes[0].known.term
            guard let home = self.region(term.region), home !== region, home.isOpen(initial: first.region),
                region.isReached(now), home.isReached(now), !region.nodes.contains(where: \.isPromoting),
                region.nodes[1].known.term == term, home.nodes.allSatisfy({ $0.known.term == term }),
                region.database.upstream !== home.database || world.random.chance(100)
            else { return }
            if region.database.isStandby || region.database.rows.isFenced {
                region.database.rebuild(from: home.database)
            }
        }
    }

    private func faultSoon() {
        world.after(world.random.within(200_000...1_500_000)) { [self] in
            guard !isOver else { return }
            defer { faultSoon() }
            guard !isContending else { return }
            let region = regions[world.random.below(regions.count)]
            let until = now + UInt64(world.random.within(100_000...4_000_000))
            switch world.random.below(hasDisasters ? 6 : 4) {
            case 0, 1:
                world.noteFault("restart")
                region.nodes[world.random.below(2)].restart()
            case 2:
                world.noteFault("hold")
                region.heldUntil = until
            case 3, 4:
                world.noteFault("cut")
                region.cutUntil = until
                // What it had heard of is forgotten, then, and not heard again.
                if world.random.chance(300) { for node in region.nodes { node.restart() } }
            default:
                world.noteFault("down")
                region.downUntil = until
                for node in region.nodes { node.restart() }
            }
        }
    }

    // MARK: Operators

    private func wishSoon() {
        world.after(world.random.within(500_000...4_000_000)) { [self] in
            guard !isOver else { return }
            defer { wishSoon() }
            guard !isContending else { return }
            // Somebody wants a region back that takes no writes.
            let fenced = regions.first { !$0.database.isStandby && $0.database.rows.isFenced }
            let any = regions[world.random.below(regions.count)]
            let region = world.random.chance(300) ? fenced ?? any : any
            if hasDisasters, world.random.chance(300) { return contend() }
            wish(region, region.nodes[world.random.below(2)], hasDisasters && world.random.chance(400))
            guard world.random.chance(600) else { return }
            // Somebody else wishes, too.
            let second = world.random.chance(500) ? region : regions[world.random.below(regions.count)]
            let node = second.nodes[world.random.below(2)]
            let isFar = world.random.chance(300)
            let accepts = hasDisasters && world.random.chance(400)
            world.after(world.random.below(isFar ? 3_000_000 : 60_000)) { [self] in wish(second, node, accepts) }
        }
    }

    /// A region that is cut off is promoted with loss accepted, and another one without: the old home hears of the
    /// first while the second is under way.
    private func contend() {
        let others = regions.filter { !$0.isOpen(initial: first.region) }
        guard others.count > 1 else { return }
        let isTurned = world.random.chance(500)
        let (far, near) = isTurned ? (others[1], others[0]) : (others[0], others[1])
        let pause = world.random.within(700_000...1_800_000)
        far.cutUntil = now + UInt64(pause + world.random.within(50_000...250_000))
        contendUntil = far.cutUntil + Self.second
        wish(far, far.nodes[world.random.below(2)], true)
        if world.random.chance(800) { near.heldUntil = far.cutUntil + UInt64(world.random.within(100_000...800_000)) }
        let node = near.nodes[world.random.below(2)]
        world.after(pause) { [self] in wish(near, node, false) }
    }

    private func wish(_ region: PromotionRegion, _ node: PromotionNode, _ accepts: Bool) {
        guard region.isUp(now), !node.isPromoting else { return }
        let others = regions.filter { $0 !== region && $0.isReached(now) && region.isReached(now) }
        let peers = others.map { (region: $0.name, term: $0.nodes[world.random.below(2)].known.term) }
        do throws(StorageFailure) {
            let plan = try PromotionPlan(
                region.name, node.known, region.database.state, isShared: false, told: node.told,
                identity: world.random.next(), acceptsLoss: accepts, peers: peers, guards: guards)
            PromotionWalk(self, region, node, plan, seconds: world.random.within(1...4)).begin()
        } catch {
            // What cannot be.
        }
    }

    /// A promotion has made a region home, behind `base`, whose database was told of `told` before the claim.
    func promoted(
        _ region: PromotionRegion, _ term: HomeTerm, behind base: HomeTerm, isWhole: Bool, told: Set<HomeTerm>
    ) {
        report.promotions += 1
        if history.hasLoss { report.later += 1 }
        let database = region.database
        database.streamEpoch =
            guards.contains(.streams)
            ? ((database.streamEpoch >> 16) + 1) << 16 | term.epoch >> 24 & 0xFFFF : database.streamEpoch + 1
        if let other = streams.updateValue(term, forKey: database.streamEpoch), other != term {
            violate("the streams of \(other) and \(term) have one epoch")
        }
        history.promoted(term, behind: base, isWhole: isWhole, seen: database.seen)
        if let lost = history.lost(at: term, having: database.writes) {
            let words = isWhole ? "said to be whole" : "said to be whole up to \(database.seen) µs"
            violate("\(term) is \(words), and lacks a write of \(lost.term) of \(lost.time) µs")
        }
        if isWhole {
            let told = database.told.union(told).filter { $0.epoch > base.epoch && !history.isBehind(term, $0) }
            if let other = told.max(by: { $0.epoch < $1.epoch }) {
                violate("\(term) is said to be whole, and its database was told of \(other)")
            }
            return
        }
        report.losses += 1
        // What follows is to be seen, too.
        if report.losses == 1 { end = max(end, now + 10 * Self.second) }
        guards = laterGuards
        for region in regions { region.database.guards = laterGuards }
    }

    /// An old home has said that a fence is taken back.
    func noteReleased(_ term: HomeTerm) {
        report.releases += 1
        released.insert(term.epoch)
    }

    /// A database is fenced for a promotion.
    func noteFenced(_ term: HomeTerm) {
        if released.contains(term.epoch) { violate("the fence of \(term) came behind its being taken back") }
    }

    // MARK: The end

    /// Somebody sees to it that a region is home, at last with loss accepted.
    private func recover() {
        for attempt in 0..<8 where open.isEmpty {
            let newest = regions.compactMap { $0.database.rows.newest?.term }.max { $0.epoch < $1.epoch }
            let names = [newest?.region, regions[0].nodes[0].known.term.region, "us-east", "eu-west"]
            guard let region = names[attempt % 4].flatMap({ self.region($0) }) else { continue }
            wish(region, region.nodes[0], attempt >= 4)
            run(until: world.microseconds + 8 * Self.second)
        }
        run(until: world.microseconds + 6 * Self.second)
    }

    private func judge() {
        guard let home = open.first else { return violate("no region is home, nor can be") }
        if open.count > 1 { return violate("\(open.map(\.name)) are home") }
        for region in regions {
            for node in region.nodes where node.known.term.region != home.name {
                violate("a node of \(region.name) takes \(node.known.term) for home, and \(home.name) is")
            }
        }
        let term = home.database.held(first)
        if let lost = history.lost(at: term, having: home.database.writes) {
            violate("a write of \(lost.term) of \(lost.time) µs is lost at \(term)")
        }
    }
}
