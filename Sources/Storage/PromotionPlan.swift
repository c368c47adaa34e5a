// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a node goes by: which region is home, of what it knows itself, what others say, and its region's database.
package struct HomeKnowledge: Sendable, Equatable {
    /// What the node goes by now.
    package var term: HomeTerm
    /// The newest that other regions told of.
    package var heard: HomeTerm?
    /// What the region's database said last; nil when it said nothing.
    package var database: HomeState?

    /// A node that goes by `term`.
    package init(_ term: HomeTerm) { self.term = term }

    /// What stands against a wish of another region, for its promotion `term`, at a node of the region `own`: a
    /// promotion that made another region home since, or this one, which whoever asks has not heard of.
    package func objection(to term: HomeTerm, in own: String) -> HomeTerm? {
        let known = self.term
        return known.epoch > 0 && (known.region != own || term.epoch <= known.epoch) ? known : nil
    }

    /// The newest promotion that counts for a node of the region `own`.
    package func newest(in own: String) -> HomeTerm {
        var newest = term
        // That this region is home, only its database can say.
        if let heard, heard.epoch > newest.epoch, heard.region != own { newest = heard }
        // A fence says of no region that it is home: it may come to nothing.
        if let found = database, let held = found.held, held.epoch > newest.epoch,
            !found.isStandby || held.region != own
        {
            newest = held
        }
        return newest
    }
}

/// What a promotion is to do.
package struct PromotionPlan: Sendable {
    /// Its steps.
    package var course: PromotionCourse
    /// Who is home before.
    package var old: String
    /// Whether another region's promotion, and what may be lost, does not hold it up.
    package var acceptsLoss: Bool

    /// What is to hold.
    package var term: HomeTerm { course.term }

    /// What makes `own` home, for a node that knows `known`, whose database says `found`. `isShared` says that the node
    /// writes to it though another region is home, `told` which promotion may be at the old home by what that said, and
    /// `identity` is drawn anew each time. `peers` are the regions that were asked, with what they take for home.
    /// Throws what is wrong with the wish.
    package init(
        _ own: String, _ known: HomeKnowledge, _ found: HomeState, isShared: Bool, told: Int64, identity: UInt64,
        acceptsLoss: Bool, peers: [(region: String, term: HomeTerm)], guards: PromotionGuards = .all
    ) throws(StorageFailure) {
        let term = known.term
        let isHome = found.term.region == own && !found.isStandby
        if !found.isFenced, term.region == own || isHome {
            let number = max(term.region == own ? term.number : 0, isHome ? found.term.number : 0)
            throw StorageFailure(.refused, "\(own) is home already, since promotion \(number)")
        }
        if term.region == own, let peer = peers.first(where: { $0.term.epoch >= found.term.epoch }) {
            throw StorageFailure(.refused, "\(peer.term.region) is home, as \(peer.region) says")
        }
        // What was taken over by nobody, or one database of all regions, needs no fence, and lacks nothing.
        let isOwn = !found.isStandby && (term.region == own || isShared)
        // A fence for this region itself came from home: something else has ended the standby's following since.
        let isForeign = found.isFenced && found.term.region != own
        if !found.isStandby, !isOwn, isForeign || found.term.epoch < term.epoch {
            throw StorageFailure(
                .refused,
                "the database of \(own) is no standby, and \(term.region) became home behind it, by "
                    + "promotion \(term.number): make it a standby of that region's first")
        }
        let epoch = max(max(term.epoch, found.term.epoch), max(known.heard?.epoch ?? 0, told))
        let identity = guards.contains(.identities) ? identity : 0
        let new = HomeTerm(epoch: HomeTerm.next(after: epoch, identity: identity), region: own)
        // The region of a fence in its last step may have been home since, for all that is known here.
        let rival = isOwn ? new.rival(among: found.claims) : nil
        if let rival, !acceptsLoss, guards.contains(.returns) { throw StorageFailure(.refused, rival.mayBeHome) }
        course = PromotionCourse(
            new, fences: !isOwn, isWhole: isOwn && rival == nil, acceptsLoss: acceptsLoss, guards: guards)
        old = rival?.region ?? term.region
        self.acceptsLoss = acceptsLoss
    }
}
