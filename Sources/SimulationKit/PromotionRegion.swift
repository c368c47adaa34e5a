// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// A region's database: what is committed in it, in order, by itself or by the one that it is a standby of.
final class PromotionDatabase {
    enum Entry {
        case write(Int)
        case rows(HomeRows)
        case seen(UInt64)
        case told(HomeTerm)
    }

    private(set) var log: [Entry] = []
    private(set) var rows: HomeRows
    private(set) var writes: Set<Int> = []
    /// Everything that was acknowledged until then is there.
    private(set) var seen: UInt64 = 0
    /// Whom it follows; nil for a primary.
    private(set) var upstream: PromotionDatabase?
    /// Grows when it is made anew, from where nobody goes on who followed it.
    private var generation = 0
    private var followed = 0
    /// What its stream's records have.
    var streamEpoch: Int64 = 1
    /// Promotions of other regions that are known to hold, by what was said to it, or to whom it followed.
    private(set) var told: Set<HomeTerm> = []
    /// Which of the table's rules hold.
    var guards: PromotionGuards { didSet { rows.guards = guards } }

    init(_ guards: PromotionGuards) {
        self.guards = guards
        rows = HomeRows(guards)
    }

    var isStandby: Bool { upstream != nil }

    /// Which promotion made it home; `first` before any.
    func held(_ first: HomeTerm) -> HomeTerm { rows.rows.last { !$0.isFenced }?.term ?? first }

    private func apply(_ entry: Entry) {
        log.append(entry)
        switch entry {
        case .write(let number): writes.insert(number)
        case .rows(let rows):
            self.rows = rows
            self.rows.guards = guards
        case .seen(let time): seen = time
        case .told(let term): told.insert(term)
        }
    }

    /// Commits in a primary.
    func commit(_ entry: Entry) { if !isStandby { apply(entry) } }

    /// Changes the table of promotions in one transaction.
    func change<R>(_ body: (inout HomeRows) -> R) -> R {
        var changed = rows
        let result = body(&changed)
        if changed != rows { commit(.rows(changed)) }
        return result
    }

    /// A standby takes over some of what it has not.
    func follow(limit: Int) {
        guard let upstream, upstream.generation == followed, upstream.log.count > log.count else { return }
        for entry in upstream.log[log.count..<min(upstream.log.count, log.count + limit)] { apply(entry) }
    }

    /// It follows nobody any more.
    func endRecovery() { upstream = nil }

    /// It is made a standby of another one, with all that it has.
    func rebuild(from other: PromotionDatabase) {
        generation += 1
        (log, rows, writes, seen, streamEpoch) = (other.log, other.rows, other.writes, other.seen, other.streamEpoch)
        (upstream, followed, told) = (other, other.generation, other.told)
    }

    /// What it says of itself.
    var state: HomeState {
        var state = HomeState()
        state.isStandby = isStandby
        if let newest = rows.newest {
            (state.term, state.isFenced, state.claims) = (newest.term, newest.isFenced, rows.claims)
        }
        state.held = rows.rows.last { !$0.isFenced }?.term
        state.seenMilliseconds = Int64(seen)
        return state
    }
}

/// A region: its database, its nodes, and how it is reached.
final class PromotionRegion {
    let name: String
    let database: PromotionDatabase
    let nodes: [PromotionNode]
    /// Until when nobody else reaches it, and it nobody.
    var cutUntil: UInt64 = 0
    /// Until when nothing of it runs.
    var downUntil: UInt64 = 0
    /// Until when its database takes nothing over.
    var heldUntil: UInt64 = 0

    init(_ name: String, home: String, _ guards: PromotionGuards) {
        self.name = name
        database = PromotionDatabase(guards)
        nodes = (0..<2).map { _ in PromotionNode(home: home) }
    }

    func isUp(_ now: UInt64) -> Bool { now >= downUntil }
    func isReached(_ now: UInt64) -> Bool { now >= cutUntil && isUp(now) }

    /// Whether its database takes writes as the home's.
    func isOpen(initial: String) -> Bool {
        if database.isStandby { return false }
        guard let newest = database.rows.newest else { return name == initial }
        return !newest.isFenced && newest.term.region == name
    }
}

/// A node: which region it takes for home, and the promotion that it is at.
final class PromotionNode {
    private let first: HomeTerm
    var known: HomeKnowledge
    /// The last promotion that may be at the old home.
    var told: Int64 = 0
    var isPromoting = false
    /// Which process it is.
    private(set) var incarnation = 0

    init(home: String) {
        first = HomeTerm(epoch: 0, region: home)
        known = HomeKnowledge(first)
    }

    /// It begins anew, and knows nothing of what it was at.
    func restart() {
        incarnation += 1
        (known, told, isPromoting) = (HomeKnowledge(first), 0, false)
    }

    /// Hears which region another one takes for home.
    func hear(_ term: HomeTerm) {
        if term.epoch > max(known.heard?.epoch ?? 0, known.term.epoch) { known.heard = term }
    }
}
