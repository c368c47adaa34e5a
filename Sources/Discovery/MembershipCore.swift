// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How changes of a fleet are taken over. Milliseconds.
package struct MembershipConfiguration: Sendable, Equatable {
    /// How long a set stays the same before it counts.
    package var debounceMilliseconds = 500
    /// After how long a set counts that does not come to rest.
    package var longestDebounceMilliseconds = 5_000
    /// The part of the members that may be gone at once: from 0 to 1. More have to stay away for a while.
    package var largestLoss = 0.5
    /// How long more of them have to stay away.
    package var confirmationMilliseconds = 30_000
    /// Members that a set has at least: below that the last one is kept. At least 1.
    package var fewestMembers = 1
    /// Members that a set has at most; the rest is left out.
    package var mostMembers = 65_536

    /// The ordinary ones.
    package init() {}
}

/// Decides which members count: a state machine without a clock and without I/O.
///
/// The last good set is kept while whoever knows the fleet cannot be asked. A change counts when it has been there for
/// a moment; one that takes away more than a part of the members, when they were seen to stay away for long; one that
/// leaves too few, never. The epoch only grows.
package struct MembershipCore: Sendable {
    /// Why a set that was found does not count yet.
    package enum Hold: Sendable, Equatable {
        /// It is new.
        case debounce
        /// It takes away too many.
        case loss(Int, of: Int)
        /// It has too few.
        case tooFew(Int)
    }

    private let configuration: MembershipConfiguration
    /// The members that count.
    package private(set) var current: MemberSet
    /// The members that were found and do not count yet.
    private var candidate: MemberSet?
    /// When the candidate was found first, and since when what was found is held for the same reason.
    private var candidateSince: UInt64 = 0
    private var heldSince: UInt64 = 0
    /// Why the last attempt failed; nil when it did not.
    package private(set) var failure: String?
    /// When members were last found. Nanoseconds; nil before.
    package private(set) var foundNanoseconds: UInt64?
    /// Whether any set ever counted that was found.
    private var isSettled = false

    /// Begins with members that are known already; none counts as nothing known.
    package init(
        _ configuration: MembershipConfiguration = MembershipConfiguration(), initial: [Member] = [], epoch: UInt64 = 0
    ) {
        self.configuration = configuration
        current = MemberSet(initial, epoch: epoch)
    }

    /// These members were found.
    package mutating func found(_ members: [Member], nowNanoseconds now: UInt64) {
        let wasFailing = failure != nil
        failure = nil
        foundNanoseconds = now
        let set = MemberSet(Array(members.prefix(configuration.mostMembers)), epoch: 0)
        if set.members == current.members {
            candidate = nil
            isSettled = true
            return
        }
        guard candidate?.members != set.members else {
            // Nobody could tell meanwhile that they stayed away.
            if wasFailing, case .loss = hold { heldSince = now }
            return
        }
        let before = (hold: hold, missing: candidate.map(missing) ?? [])
        candidate = set
        candidateSince = now
        switch (before.hold, hold) {
        case (.debounce, .debounce), (.tooFew, .tooFew): break
        // Those that were missed just now have to stay away as long as the others.
        case (.loss, .loss) where !wasFailing && missing(set).isSubset(of: before.missing): break
        default: heldSince = now
        }
    }

    /// Nobody could be asked: what counts stays.
    package mutating func failed(_ reason: String) { failure = reason }

    /// Why a set that was found does not count; nil when there is none.
    package var hold: Hold? {
        guard let candidate else { return nil }
        if candidate.members.count < max(configuration.fewestMembers, 1) { return .tooFew(candidate.members.count) }
        let lost = missing(candidate).count
        let isLoss = isSettled && Double(lost) > Double(current.members.count) * configuration.largestLoss
        return isLoss ? .loss(lost, of: current.members.count) : .debounce
    }

    private func missing(_ set: MemberSet) -> Set<String> {
        Set(current.members.map(\.identity)).subtracting(set.members.map(\.identity))
    }

    /// When ``tick(nowNanoseconds:)`` may change what counts; nil while it cannot.
    package var dueNanoseconds: UInt64? {
        func after(_ start: UInt64, _ milliseconds: Int) -> UInt64 { start &+ UInt64(milliseconds) * 1_000_000 }
        switch hold {
        case nil, .tooFew: return nil
        case .loss: return failure == nil ? after(heldSince, configuration.confirmationMilliseconds) : nil
        case .debounce:
            // The first members are waited for.
            if current.members.isEmpty { return candidateSince }
            return min(
                after(candidateSince, configuration.debounceMilliseconds),
                after(heldSince, configuration.longestDebounceMilliseconds))
        }
    }

    /// Lets a set count whose time has come. Returns the new one; nil when nothing changed.
    package mutating func tick(nowNanoseconds now: UInt64) -> MemberSet? {
        guard let due = dueNanoseconds, due <= now, let candidate else { return nil }
        current = MemberSet(candidate.members, epoch: current.epoch + 1)
        self.candidate = nil
        isSettled = true
        return current
    }
}
