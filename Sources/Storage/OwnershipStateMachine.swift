// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Decides what one node of a fleet may show and write: docs/contract.md, 3. Pure: answers of the authority and the
/// time come in, what the node knows comes out. Times are nanoseconds of the node's own CLOCK_BOOTTIME.
///
/// What it rests on:
/// - the store commits under the newest ring only, so that a copy made under the newest ring is as new as storage;
/// - every node that may still answer by an older ring has a lease that it asked for before it heard of the newer one,
///   so that it has said that it adopted the newer ring, or is silent a lease after the newer ring was known to
///   anybody;
/// - whatever is cached of a key that was another's meanwhile is not shown.
///
/// Where the store does not look at epochs (``OwnershipConfiguration/isFenced``), what is read of a key that was
/// another's may be older than a write that the other one has answered yet. Such a key's copies count as doubtful until
/// nobody else can have writes answered, and all copies were looked through after that.
package struct OwnershipStateMachine: Sendable {
    /// What the node is called.
    package let name: String
    /// Which process of that name it is; another one each time that the process takes its name back.
    package private(set) var token: UInt64
    private let configuration: OwnershipConfiguration
    private let guards: OwnershipGuards
    private let place: @Sendable ([RingMember]) -> (any KeyPlacement)?

    /// The rings that matter, in order, without gaps; the last one is the one that the node answers by.
    private var rings: [(ring: OwnershipRing, learned: UInt64)] = []
    /// The ring that membership wants.
    private var wanted: [RingMember] = []
    private var nodes: [(name: String, adopted: UInt64, ageMilliseconds: Int64)] = []
    /// Copies of keys that were the node's under all rings from this epoch on are as new as storage.
    private var cleanFrom: UInt64 = 0
    /// Nobody else answers by a ring of an epoch before this one.
    private var openFrom: UInt64 = 0
    /// Counts how often rings were missed.
    private var era = 0
    /// Whether the next request is to take the name.
    private var isJoining = true
    /// Whether the process had the name once and lost it: copies may be there from that time.
    private var isReturning = false
    /// Until when a process that had the name before may show copies.
    private var quietUntil: UInt64 = 0
    /// Until when the node may show copies; 0 before the first lease.
    package private(set) var leaseUntil: UInt64 = 0
    /// Whether another process has the name: this one serves nothing, until that one has been silent for so long that
    /// this one may take the name back.
    package private(set) var isSuperseded = false
    /// Since when a process that never had its name is refused it, because another one that lives has it; nil while it
    /// is not.
    package private(set) var refusedSince: UInt64?

    /// A node that has not asked yet. `place` spreads keys over members; nil where it cannot. `guards` is for tests.
    package init(
        name: String, token: UInt64, configuration: OwnershipConfiguration, guards: OwnershipGuards = .all,
        place: @escaping @Sendable ([RingMember]) -> (any KeyPlacement)?
    ) {
        self.name = name
        self.token = token
        self.configuration = configuration
        self.guards = guards
        self.place = place
    }

    // MARK: What it knows

    /// The epoch that the node answers by; 0 before the first.
    package var epoch: UInt64 { rings.last?.ring.epoch ?? 0 }

    /// What holds now.
    package var view: OwnershipView {
        guard let newest = rings.last?.ring, !isSuperseded else { return OwnershipView() }
        let before = rings.dropLast().map(\.ring)
        return OwnershipView(
            newest: newest, doubtful: guards.contains(.regained) ? before.filter { $0.epoch >= cleanFrom } : [],
            closing: before.filter { $0.epoch >= openFrom }, era: era)
    }

    /// Whether the node may show no copies at `now`.
    package func isLapsed(at now: UInt64) -> Bool { now >= leaseUntil && guards.contains(.leases) }

    /// How long until the next exchange, in nanoseconds.
    package var pauseNanoseconds: UInt64 {
        // Who joins has writes wait: one that is refused asks no more often than others.
        if refusedSince != nil { return configuration.renewNanoseconds }
        if isJoining || proposal != nil || view.isClosing { return configuration.hurryNanoseconds }
        let isWaiting = rings.isEmpty && !wanted.isEmpty && !isSuperseded
        return isWaiting ? configuration.hurryNanoseconds : configuration.renewNanoseconds
    }

    // MARK: Events

    /// Where the process listens is known: see ``LeaseRequest/token``. Before the first request.
    package mutating func listens(atPlace place: UInt32) { token = UInt64(place) << 32 | token & 0xffff_ffff }

    /// Membership wants this ring from now on.
    package mutating func want(_ members: [RingMember]) { wanted = members }

    /// What to ask next.
    package var request: LeaseRequest {
        var request = LeaseRequest(
            name: name, token: token, joins: isJoining,
            silenceMilliseconds: isReturning ? configuration.silenceMilliseconds : configuration.takeoverMilliseconds,
            adopted: epoch, proposal: proposal)
        request.isRestart = !isReturning
        return request
    }

    /// Whether it is certain that the process that has the name lives: it has said something since this one was first
    /// refused.
    package func isRefused(at now: UInt64) -> Bool {
        refusedSince.map { now &- $0 >= UInt64(configuration.silenceMilliseconds) * 1_000_000 } ?? false
    }

    /// Of the nodes that say something, the one with the least name proposes rings: two that see different members do
    /// not undo each other's.
    private var proposal: [RingMember]? {
        guard !isJoining, !isSuperseded, !wanted.isEmpty, wanted != rings.last?.ring.members else { return nil }
        let awake = nodes.filter { $0.ageMilliseconds < configuration.silenceMilliseconds }
        guard awake.allSatisfy({ $0.name >= name }), place(wanted) != nil else { return nil }
        return wanted
    }

    /// What an answer changed.
    package struct Change: Sendable, Equatable {
        /// There is another ``view``.
        package var view = false
        /// The node answers by another ring.
        package var ring = false
        /// Reads under way must not be cached, and then copies are to be looked through for strays: with each ring, and
        /// without a fence when nobody answers by the rings before any more.
        package var sweeps = false
        /// Rings were missed: nothing is known of who owned what.
        package var gap = false
    }

    /// The authority answered a request that was sent at `sent`. The lease counts once the caller has shown the new
    /// view to everybody: see ``extendLease(sentAt:)``.
    package mutating func replied(_ reply: LeaseReply, at now: UInt64) -> Change {
        guard reply.isHolder else { return lost(reply, at: now) }
        refusedSince = nil
        if isJoining {
            (isJoining, isSuperseded) = (false, false)
            if reply.hadPredecessor, guards.contains(.predecessors) { quietUntil = now &+ wait }
        }
        nodes = reply.nodes
        guard now >= quietUntil else { return Change() }
        let before = (epoch, cleanFrom, openFrom)
        var change = Change()
        change.gap = adopt(reply.rings, at: now)
        open(at: now)
        prune()
        change.ring = before.0 != epoch || change.gap
        change.view = change.ring || before.1 != cleanFrom || before.2 != openFrom
        change.sweeps = change.ring || (!isFenced && before.2 != openFrom)
        return change
    }

    /// Another process has the name. It may be gone: one that died while its request was on its way takes the name from
    /// the one that was started in its place.
    private mutating func lost(_ reply: LeaseReply, at now: UInt64) -> Change {
        if isJoining, !isReturning {
            // It never had the name, so there is nothing to take back.
            refusedSince = refusedSince ?? now
            return Change()
        }
        guard isSuperseded else {
            (isSuperseded, isJoining) = (true, false)
            leaseUntil = 0
            return Change(view: true, ring: true, sweeps: true)
        }
        // Only now that everybody has seen that nothing is the node's: no write carries the new token before that.
        let holder = reply.nodes.first { $0.name == name }
        isJoining = holder.map { $0.ageMilliseconds >= configuration.silenceMilliseconds } ?? true
        if isJoining { begin() }
        return Change()
    }

    /// Begins anew, as another process of the name would, but for the copies that are there.
    private mutating func begin() {
        // Writes that left under the token before must not count when the name is taken back.
        let next = token &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        token = (token & ~0xffff_ffff) | max(1, next >> 32)
        (rings, nodes, isReturning) = ([], [], true)
        (cleanFrom, openFrom) = (0, 0)
        era += 1
    }

    /// The node answers by what the last reply said, to a request that was sent at `sent`.
    package mutating func extendLease(sentAt sent: UInt64) {
        guard !rings.isEmpty, !isSuperseded else { return }
        leaseUntil = max(leaseUntil, sent &+ configuration.leaseNanoseconds)
    }

    /// Whether what is read under the newest ring is as new as whatever anybody answers.
    private var isFenced: Bool { configuration.isFenced || !guards.contains(.gained) }

    /// All copies were looked through since `view` was shown, and those removed that it calls stray. Without a fence
    /// that says something only of what was read when nobody else had writes answered any more.
    package mutating func swept(by view: OwnershipView) {
        guard view.era == era, isFenced || !view.isClosing else { return }
        cleanFrom = max(cleanFrom, view.epoch)
        prune()
    }

    private var wait: UInt64 { configuration.leaseNanoseconds &+ configuration.driftNanoseconds }

    // MARK: Rings

    /// Takes over rings that are newer. True where some were missed.
    private mutating func adopt(_ listed: [(epoch: UInt64, members: [RingMember])], at now: UInt64) -> Bool {
        guard let first = listed.first, let last = listed.last else { return false }
        let known = epoch
        let isFirst = rings.isEmpty
        var isGap = false
        if known > 0, first.epoch != known {
            // Too far behind; or the authority was set back, and numbers mean something else now.
            isGap = true
            era += 1
            rings = [(nobodys(before: first.epoch), now)]
            if last.epoch < known { (cleanFrom, openFrom) = (0, 0) }
        }
        // An authority without rings may have lost them, which a store that looks at epochs would not have.
        if isFirst, first.epoch > 1 || isReturning || !isFenced { rings = [(nobodys(before: first.epoch), now)] }
        for (epoch, members) in listed where epoch > self.epoch {
            let own = members.firstIndex { $0.name == name } ?? -1
            rings.append((OwnershipRing(epoch: epoch, members: members, own: own, placement: place(members)), now))
        }
        // Nothing was cached before the first ring.
        if isFirst, !isReturning, isFenced { cleanFrom = epoch }
        return isGap
    }

    /// Stands for rings that are not known.
    private func nobodys(before epoch: UInt64) -> OwnershipRing {
        OwnershipRing(epoch: max(epoch, 1) - 1, members: [], own: -1, placement: nil)
    }

    /// Finds out which rings nobody else answers by any more.
    private mutating func open(at now: UInt64) {
        let newest = epoch
        guard openFrom < newest else { return }
        guard guards.contains(.opening) else { return openFrom = newest }
        let lapsed = rings.last { $0.learned &+ wait <= now }?.ring.epoch ?? 0
        var lowest = newest
        let earlier = rings.dropLast().filter { $0.ring.epoch >= openFrom }
        for other in Set(earlier.flatMap { $0.ring.members.map(\.name) }) where other != name {
            let said = nodes.first { $0.name == other }?.adopted ?? 0
            lowest = min(lowest, max(said, lapsed))
        }
        // A ring of nobody stands for ones that are not known.
        if earlier.contains(where: { $0.ring.members.isEmpty }) { lowest = min(lowest, lapsed) }
        openFrom = max(openFrom, lowest)
    }

    /// Forgets rings that say nothing any more.
    private mutating func prune() {
        let needed = min(cleanFrom, openFrom)
        rings = rings.enumerated().filter { $0.offset == rings.count - 1 || $0.element.ring.epoch >= needed }
            .map(\.element)
        guard rings.count > configuration.ringsMax, let newest = rings.last else { return }
        rings = [(nobodys(before: newest.ring.epoch), newest.learned), newest]
    }
}
