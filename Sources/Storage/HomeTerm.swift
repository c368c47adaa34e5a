// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which region is home, and since which promotion.
package struct HomeTerm: Sendable, Hashable {
    /// Which promotion it is: of two the higher counts. Its upper bits are ``number``, the others were drawn when it
    /// was begun: no two that were begun are one, wherever that was, and whatever they knew of each other. 0 before
    /// the first, when the settings say which region is home.
    package var epoch: Int64
    /// Its name.
    package var region: String

    /// A region that is home since a promotion.
    package init(epoch: Int64, region: String) {
        self.epoch = epoch
        self.region = region
    }

    /// How many bits of ``epoch`` tell promotions of one number apart.
    package static let identityBits: Int64 = 40
    /// The highest ``number``: the epoch of a stream has 15 bits for it.
    package static let numberMax: Int64 = 1 << 14

    /// The number of a promotion, as people count them; 0 before the first.
    package static func number(_ epoch: Int64) -> Int64 { epoch >> identityBits }

    /// The number of this one.
    package var number: Int64 { Self.number(epoch) }

    /// The one that follows all up to `epoch`, told apart from others that do by bits of `identity`.
    package static func next(after epoch: Int64, identity: UInt64) -> Int64 {
        let bits = Int64(truncatingIfNeeded: identity & (1 << UInt64(identityBits) - 1))
        return min(number(epoch) + 1, numberMax) << identityBits | bits
    }

    /// It, in words.
    package var words: String { "promotion \(number) of \(region)" }

    /// The newest of another region among promotions in their last step: that region may be home by now.
    package func rival(among claims: [HomeTerm]) -> HomeTerm? { claims.last { $0.region != region } }

    /// What who gives an old home its role back is told where this one is in its last step.
    package var mayBeHome: String { "\(words) is ahead, and may be home by now: --accept-loss goes on all the same" }
}

/// How the numbering of a stream goes on behind a promotion: what the new home has of the numbering before.
package struct StreamSuccession: Sendable, Equatable {
    /// The epoch that it follows.
    package var previous: Int64
    /// By slot, the last number of that epoch whose record the new home has. What a consumer had beyond it is lost.
    package var included: [Int64]
    /// Whether nothing was acknowledged that the new home does not have.
    package var isWhole: Bool

    /// What is had of the epoch `previous`. There are as many numbers as slots.
    package init(previous: Int64, included: [Int64], isWhole: Bool) {
        precondition(included.count == StreamSlots.count, "a succession has a number for each slot")
        self.previous = previous
        self.included = included
        self.isWhole = isWhole
    }
}

/// What a region's database says of itself.
package struct HomeState: Sendable, Equatable {
    /// The newest promotion that it knows of; epoch 0, and no region, where it knows of none.
    package var term = HomeTerm(epoch: 0, region: "")
    /// The newest that made a region home, by what it knows; nil where it knows of none.
    package var held: HomeTerm?
    /// Whether it takes no writes any more, as another region is to be home, or is.
    package var isFenced = false
    /// The promotions behind ``held`` that went on to their last step, the newest last: the regions of each may be home
    /// by now.
    package var claims: [HomeTerm] = []
    /// Whether there is one.
    package var isClaimed: Bool { !claims.isEmpty }
    /// Of a database that is fenced, the promotion by which it is: what is in its last step comes before newer fences.
    package var fence: HomeTerm { claims.last ?? term }
    /// Whether it is a standby, which follows another database.
    package var isStandby = false
    /// What its stream is called.
    package var source = ""
    /// When the home region last said something in it, in milliseconds of Unix time by the clock of home's database:
    /// everything that was acknowledged before is in it. 0 when it never did.
    package var seenMilliseconds: Int64 = 0

    package init() {}

    /// Whether it is to be fenced for a promotion that holds, of another region: it was home, and does not know of it;
    /// or has no fence of it that was claimed, and its region, or another one, would be home as if nothing was lost.
    package func isToYield(to term: HomeTerm) -> Bool {
        if isStandby || claims.contains(term) { return false }
        return self.term.epoch < term.epoch || (isFenced && (held?.epoch ?? 0) < term.epoch)
    }
}

/// A store with a database that its region can be home with.
package protocol HomedStore: StorageBackend {
    /// That database; nil where it has none.
    var homeDatabase: (any HomeDatabase)? { get }
}

/// What a promotion came to.
package struct PromotionReport: Sendable, Equatable {
    /// What holds from now on.
    package var term: HomeTerm
    /// Whether the old home was fenced first, and the new one had everything that it had acknowledged.
    package var isWhole: Bool
    /// Everything that was acknowledged before is there: milliseconds of Unix time by the clock of the old home's
    /// database.
    package var safeUntilMilliseconds: Int64

    /// A promotion to `term`.
    package init(term: HomeTerm, isWhole: Bool, safeUntilMilliseconds: Int64) {
        self.term = term
        self.isWhole = isWhole
        self.safeUntilMilliseconds = safeUntilMilliseconds
    }
}

/// A region's own database: the home's, or a standby of it that can be promoted. All calls block, for some seconds at
/// most, but for ``promote(to:isWhole:overrides:)``, which may take a minute.
package protocol HomeDatabase: AnyObject, Sendable {
    /// What it says of itself.
    func look() throws(StorageFailure) -> HomeState
    /// Has it take no writes any more, as `term` is to hold; returns when no write is under way. What stands against
    /// that: a promotion that is as new, or is in its last step; nil where it is fenced.
    func fence(for term: HomeTerm) throws(StorageFailure) -> HomeTerm?
    /// The region of `term` goes on to its last step: no other promotion takes its place any more. What stands against
    /// that: a promotion that took its place before, or another region's that is in its last step; nil where it may go
    /// on.
    func claim(_ term: HomeTerm) throws(StorageFailure) -> HomeTerm?
    /// Takes the fence back, where the promotion came to nothing. None for that promotion comes behind this.
    func release(_ term: HomeTerm) throws(StorageFailure)
    /// Has it take no writes any more, as `term` holds, and its fence be one in its last step.
    func yield(to term: HomeTerm) throws(StorageFailure)
    /// Makes it take writes, as the home of `term`. `isWhole` says that nothing is missing in it. Where another
    /// region's promotion is in its last step, `overrides` says that it is not waited for; then something may be. Fails
    /// with `notSent` where nothing was asked of it: it is as it was.
    func promote(to term: HomeTerm, isWhole: Bool, overrides: Bool) throws(StorageFailure) -> PromotionReport
    /// How many changes it has that the home of `succession` does not, at most, and the times of the first and the last
    /// in milliseconds of Unix time; nil where there is none.
    func leftBehind(
        _ succession: StreamSuccession
    ) throws(StorageFailure) -> (count: Int64, first: Int64, last: Int64)?
}
