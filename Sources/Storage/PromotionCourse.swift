// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What the old home is told of a promotion.
package enum HomeWish: Sendable, Equatable {
    /// Take no writes any more.
    case fence
    /// Let no other promotion take this one's place.
    case claim
    /// Take writes again: it came to nothing.
    case release
}

/// What came of what a node of another region was told.
package enum HomeAnswer: Sendable, Equatable {
    /// It is done.
    case done
    /// Nothing was done, as this promotion stands against it.
    case contested(HomeTerm)
    /// Nothing was done, for this reason.
    case refused(String)
    /// It was told, and whether it did it is not known, for this reason.
    case unknown(String)
}

/// What keeps the promises of a promotion: without one of these, writes are lost, or two regions are home.
package struct PromotionGuards: NamedGuards {
    /// A bit for each guard.
    package let rawValue: UInt32

    /// The guards of these bits.
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// No two promotions are one, whatever they knew of each other.
    package static let identities = PromotionGuards(rawValue: 1 << 0)
    /// The old home is told before the standby is promoted, and may say that another promotion came in between.
    package static let claims = PromotionGuards(rawValue: 1 << 1)
    /// What is in its last step is not overtaken.
    package static let contests = PromotionGuards(rawValue: 1 << 2)
    /// An old home gets its role back only where no promotion is in its last step.
    package static let returns = PromotionGuards(rawValue: 1 << 3)
    /// A fence that was taken back comes to nothing when it comes late.
    package static let marks = PromotionGuards(rawValue: 1 << 4)
    /// Streams behind two promotions of one home have two epochs.
    package static let streams = PromotionGuards(rawValue: 1 << 5)
    /// An old home that names another promotion is not passed over, whatever may be lost.
    package static let objections = PromotionGuards(rawValue: 1 << 6)
    /// A fence is in its last step where its promotion is known to hold, also when nobody claimed it.
    package static let yields = PromotionGuards(rawValue: 1 << 7)
    /// Nothing is said to be whole behind what is in its last step, also where that is below another fence.
    package static let rivals = PromotionGuards(rawValue: 1 << 8)
    /// A claim is refused where another region's promotion is in its last step.
    package static let precedence = PromotionGuards(rawValue: 1 << 9)

    /// Each guard with its name.
    package static let named: [(name: String, guards: PromotionGuards)] = [
        ("identities", .identities), ("claims", .claims), ("contests", .contests), ("returns", .returns),
        ("marks", .marks), ("streams", .streams), ("objections", .objections), ("yields", .yields),
        ("rivals", .rivals), ("precedence", .precedence),
    ]

    /// All guards.
    package static let all = PromotionGuards(named.map(\.guards))
}

/// The steps of a promotion, and what each answer leads to. Who takes them does the work, and says what came of it.
package struct PromotionCourse: Sendable {
    /// What is next.
    package enum Step: Sendable, Equatable {
        /// Have the old home fenced, and say ``PromotionCourse/fenced(_:)``.
        case fence
        /// Look at the standby, again and again: ``PromotionCourse/looked(_:)``, or ``PromotionCourse/waitedOut()``.
        case wait
        /// Tell the old home, and say ``PromotionCourse/claimed(_:)``.
        case claim
        /// Promote the region's own database, which lacks nothing where `isWhole`; say
        /// ``PromotionCourse/notPromoted(_:isUntouched:)`` where that fails, and it is over else.
        case promote(isWhole: Bool)
        /// Take the fence back, where `releases`; then it is over, for this reason.
        case fail(PromotionFailure, releases: Bool)
    }

    /// What is to hold.
    package let term: HomeTerm
    /// Whether there is an old home to be fenced.
    package let fences: Bool
    private let isWhole: Bool
    private let acceptsLoss: Bool
    private let guards: PromotionGuards
    private var hasAll = false

    /// A promotion to `term`. `fences` says that there is an old home to be fenced, `isWhole` that nothing can be
    /// missing as it is, `acceptsLoss` that it goes on where the old home is not there.
    package init(
        _ term: HomeTerm, fences: Bool, isWhole: Bool, acceptsLoss: Bool, guards: PromotionGuards = .all
    ) {
        self.term = term
        self.fences = fences
        self.isWhole = isWhole
        self.acceptsLoss = acceptsLoss
        self.guards = guards
    }

    /// The first step.
    package var first: Step { fences ? .fence : .promote(isWhole: isWhole) }

    /// What the old home said to the fence.
    package func fenced(_ answer: HomeAnswer) -> Step {
        switch answer {
        case .done: return .wait
        // It lives, and another promotion is ahead of this one: there is no loss to accept.
        case .contested(let other) where guards.contains(.objections) || !acceptsLoss:
            return .fail(.contested(other), releases: false)
        case .contested: return .promote(isWhole: false)
        case .refused(let reason):
            return acceptsLoss ? .promote(isWhole: false) : .fail(.notFenced(reason), releases: false)
        case .unknown(let reason):
            // It may have been fenced all the same, or be yet.
            return acceptsLoss ? .promote(isWhole: false) : .fail(.notFenced(reason), releases: true)
        }
    }

    /// What the standby shows; nil where it shows nothing.
    package mutating func looked(_ state: HomeState?) -> Step {
        if let state, state.term.epoch > term.epoch { return .fail(.contested(state.term), releases: true) }
        guard let state, state.isFenced, state.term == term else { return .wait }
        hasAll = true
        return guards.contains(.claims) ? .claim : .promote(isWhole: true)
    }

    /// The standby does not show the fence in time.
    package func waitedOut() -> Step {
        // Without loss accepted it is over; else others are to know of it.
        acceptsLoss ? .claim : .fail(.notFollowing, releases: true)
    }

    /// What the old home said to the claim.
    package func claimed(_ answer: HomeAnswer) -> Step {
        switch answer {
        case .done: return .promote(isWhole: hasAll)
        case .contested(let other): return .fail(.contested(other), releases: true)
        case .refused(let reason), .unknown(let reason):
            return acceptsLoss ? .promote(isWhole: false) : .fail(.notClaimed(reason), releases: true)
        }
    }

    /// What is next instead of promoting the database, where the node has heard of a newer promotion meanwhile.
    package func overtaken(by newest: HomeTerm) -> Step? {
        newest.epoch > term.epoch ? .fail(.contested(newest), releases: fences) : nil
    }

    /// The database could not be promoted. `isUntouched` says whether it is as it was: it follows the old home yet, or
    /// nothing was asked of it; nil where nobody knows. Only where it is, it has become nobody's, and the old home goes
    /// on.
    package func notPromoted(_ reason: String, isUntouched: Bool?) -> Step {
        .fail(.notPromoted(reason, isUntouched: isUntouched), releases: fences && isUntouched == true)
    }
}

/// Why a promotion came to nothing.
package enum PromotionFailure: Sendable, Equatable {
    /// Another promotion is ahead of it.
    case contested(HomeTerm)
    /// The old home was not fenced, for this reason.
    case notFenced(String)
    /// The standby does not follow.
    case notFollowing
    /// The old home did not say that no other promotion came in between, for this reason.
    case notClaimed(String)
    /// The database was not promoted, for this reason; whether it is as it was, nil where nobody knows.
    case notPromoted(String, isUntouched: Bool?)
}
