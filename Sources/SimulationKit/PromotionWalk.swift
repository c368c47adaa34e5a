// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// A node takes the steps of a promotion.
final class PromotionWalk {
    private let simulation: PromotionSimulation
    private let region: PromotionRegion
    private let node: PromotionNode
    private let plan: PromotionPlan
    private var course: PromotionCourse
    private let incarnation: Int
    private let end: UInt64
    /// Which promotion the old home has said to be ahead.
    private var ahead: HomeTerm?
    /// Whether the old home let it go on to its last step.
    private var isClaimed = false
    /// What the old home was told of then.
    private var told: Set<HomeTerm> = []

    init(
        _ simulation: PromotionSimulation, _ region: PromotionRegion, _ node: PromotionNode, _ plan: PromotionPlan,
        seconds: Int
    ) {
        self.simulation = simulation
        self.region = region
        self.node = node
        self.plan = plan
        course = plan.course
        incarnation = node.incarnation
        end = simulation.now + UInt64(seconds) * PromotionSimulation.second
    }

    private var world: VirtualWorld { simulation.world }

    func begin() {
        node.isPromoting = true
        go(course.first)
    }

    /// Does something a little later, or much, if the process lives.
    private func later(_ most: Int, _ body: @escaping () -> Void) {
        let pause = world.random.chance(60) ? world.random.within(200_000...4_000_000) : 0
        world.after(pause + world.random.below(most)) { [self] in if node.incarnation == incarnation { body() } }
    }

    private func go(_ step: PromotionCourse.Step) {
        switch step {
        case .fence:
            tell(.fence) { [self] answer in
                note(answer)
                go(course.fenced(answer))
            }
        case .wait:
            later(40_000) { [self] in
                let next = course.looked(region.database.state)
                go(next == .wait && simulation.now >= end ? course.waitedOut() : next)
            }
        case .claim:
            // What comes behind the fence may not get to the standby any more.
            if world.random.chance(simulation.isContending ? 600 : 100) {
                region.heldUntil = max(region.heldUntil, simulation.now + UInt64(world.random.below(1_500_000)))
            }
            tell(.claim) { [self] answer in
                note(answer)
                isClaimed = answer == .done
                go(course.claimed(answer))
            }
        case .promote(let isWhole):
            if let instead = course.overtaken(by: node.known.newest(in: region.name)) { return go(instead) }
            later(20_000) { [self] in promote(isWhole) }
        case .fail(let failure, let releases):
            if case .contested = failure { simulation.report.contests += 1 }
            guard releases else { return over() }
            tell(.release) { [self] answer in
                if answer == .done { simulation.noteReleased(plan.term) }
                over()
            }
        }
    }

    private func over() { node.isPromoting = false }

    private func note(_ answer: HomeAnswer) {
        switch answer {
        case .done, .unknown: node.told = max(node.told, plan.term.epoch)
        case .contested(let other): (node.told, ahead) = (max(node.told, other.epoch), other)
        case .refused: break
        }
    }

    private func promote(_ isWhole: Bool) {
        let database = region.database
        guard database.isStandby else { return say(isWhole) }
        // The role may not do that, or the server is away.
        if world.random.chance(80) { return go(course.notPromoted("permission", isUntouched: true)) }
        // Once it is asked for, it happens, whatever becomes of who asked; unless the server dies first.
        let process = incarnation
        let (isDone, isAnswered) = (!world.random.chance(60), !world.random.chance(60))
        world.after(world.random.within(5_000...400_000)) { [self] in
            if isDone { database.endRecovery() }
            guard node.incarnation == process else { return }
            guard isDone, isAnswered else { return go(course.notPromoted("no answer", isUntouched: nil)) }
            later(30_000) { [self] in say(isWhole) }
        }
    }

    /// The row in the database that takes writes now.
    private func say(_ isWhole: Bool) {
        guard !region.database.isStandby else { return over() }
        let base = region.database.held(simulation.first)
        let isWhole = isWhole && !region.database.rows.isContested(plan.term)
        let other = region.database.change { $0.promote(to: plan.term, overrides: plan.acceptsLoss) }
        if let other {
            let (rows, term) = (region.database.rows, plan.term)
            // Unless the old home got its role back, with loss accepted.
            let isSucceeded = rows.rows.contains { !$0.isFenced && $0.term.epoch > term.epoch }
            if isClaimed, other.region != region.name, !rows.claims.contains(other), rows.isFenced, !isSucceeded {
                simulation.violate("\(plan.term) was in its last step, and \(other) came above it")
            }
            return go(course.notPromoted("\(other.words) was faster", isUntouched: false))
        }
        if let ahead { simulation.violate("\(plan.term) was told that \(ahead) is ahead, and went on") }
        if !isWhole, !plan.acceptsLoss { simulation.violate("\(plan.term) loses what nobody has given up") }
        simulation.promoted(region, plan.term, behind: base, isWhole: isWhole, told: told)
        over()
    }

    // MARK: What the old home is told

    /// Tells a node of the old home, and hands its answer on; once.
    private func tell(_ wish: HomeWish, _ body: @escaping (HomeAnswer) -> Void) {
        guard let old = simulation.region(plan.old), old.isReached(simulation.now), region.isReached(simulation.now)
        else { return later(500_000) { body(.refused("no node answers")) } }
        let target = old.nodes[world.random.below(2)]
        let process = target.incarnation
        var isAnswered = false
        let answer = { [self] (answer: HomeAnswer) in
            guard !isAnswered else { return }
            isAnswered = true
            later(5_000) { body(answer) }
        }
        // A statement may wait for long, and the connection end before.
        let isSlow = world.random.chance(120)
        let most = wish == .claim && simulation.isContending ? 700_000 : 20_000
        let wait = isSlow ? world.random.within(300_000...5_000_000) : world.random.within(500...most)
        let isLost = world.random.chance(80)
        world.after(world.random.within(200...10_000)) { [self] in
            guard target.incarnation == process, old.isUp(simulation.now) else { return answer(.unknown("it ended")) }
            if wish != .release, let other = target.known.objection(to: plan.term, in: old.name) {
                return answer(.contested(other))
            }
            guard target.known.term.region == old.name else { return answer(.refused("\(old.name) is not home")) }
            // The statement is on its way to the database, whatever becomes of the node.
            world.after(wait) { [self] in
                guard old.isUp(simulation.now), !old.database.isStandby else { return answer(.unknown("it ended")) }
                let result = execute(wish, old.database)
                if isLost || !old.isReached(simulation.now) || !region.isReached(simulation.now) { return }
                answer(result)
            }
            world.after(isLost ? world.random.within(1_000...900_000) : 1_000_000) { answer(.unknown("no answer")) }
        }
    }

    private func execute(_ wish: HomeWish, _ database: PromotionDatabase) -> HomeAnswer {
        let term = plan.term
        switch wish {
        case .fence:
            let before = database.rows
            let answer = database.change { $0.fence(for: term) }
            if database.rows != before { simulation.noteFenced(term) }
            return answer
        case .claim:
            let answer = database.change { $0.claim(term) }
            if answer == .done { told = database.told }
            if case .contested(let other) = answer, other.epoch < term.epoch { simulation.report.rivals += 1 }
            return answer
        case .release: return database.change { $0.release(term) }
        }
    }
}
