// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// What a stream's trust says, for the way of a request: two loads and no lock. Safe to use from any thread; one
/// publishes at a time.
final class TrustGate: Sendable {
    private let mask = Atomic<UInt64>(.max)
    private let until = Atomic<UInt64>(0)

    /// Slots in quarantine.
    var quarantined: UInt64 { mask.load(ordering: .relaxed) }

    /// Shows no copies of slots in quarantine, and none at all from `trustedUntil` on.
    func publish(quarantined: UInt64, trustedUntil: UInt64) {
        mask.store(quarantined, ordering: .releasing)
        until.store(trustedUntil, ordering: .releasing)
    }

    /// Whether some copies may not be shown at `now`.
    @inline(__always)
    func isDoubtful(at now: UInt64) -> Bool { !shows(.max, at: now) }

    /// Whether copies of the slots of `slots` may be shown at `now`.
    @inline(__always)
    func shows(_ slots: UInt64, at now: UInt64) -> Bool {
        // The time first: who sees a proof sees the quarantines before it. The other way round, a reader that pauses
        // between the two would take the mask from before a quarantine and the time from behind it.
        let trustedUntil = until.load(ordering: .acquiring)
        return mask.load(ordering: .acquiring) & slots == 0 && now < trustedUntil
    }

    /// What becomes of a read of the slots of `slots` at `now`, in a pool of this policy. A quarantine hides copies
    /// under every policy: it is not for how far the stream is behind.
    func standing(of slots: UInt64, at now: UInt64, _ policy: LagPolicy) -> CopyStanding {
        let isBehind = now >= until.load(ordering: .acquiring)
        let isQuarantined = mask.load(ordering: .acquiring) & slots != 0
        if isBehind, policy == .fail { return .refused }
        if isQuarantined { return .hidden }
        if !isBehind { return .vouched }
        return policy == .serveStale ? .stale : .hidden
    }
}

/// What a followed stream says of the copy of a request's key.
enum CopyStanding: UInt8 {
    /// It may be shown.
    case vouched
    /// It may be shown as one that is stale.
    case stale
    /// It may not be shown, whatever the stream brings meanwhile.
    case hidden
    /// The request is to fail.
    case refused
}
