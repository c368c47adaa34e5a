// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// Which cached copies may be shown: those of slots that are not in quarantine, as long as the stream is known to be
/// complete within the bound. Pure.
///
/// A quarantine sets one bit, however many copies there are. The slot is trusted again once a sweep has removed what
/// was cached before, under the quarantine's own number: a second quarantine that comes during the sweep asks for
/// another.
package struct StreamTrust: Sendable {
    private let configuration: InvalidationConfiguration
    private let guards: StreamGuards
    /// Whether the stream was joined, which quarantines everything: before that, a sweep would be too early.
    private var isJoined = false
    /// How often each slot was quarantined.
    private var generations = [UInt64](repeating: 0, count: StreamSlots.count)
    /// Slots whose earlier copies are not gone yet.
    package private(set) var quarantined: UInt64
    /// When the stream was last known to be complete, in monotonic nanoseconds; nil before the first time.
    package private(set) var provenNanoseconds: UInt64?

    /// Trusts nothing until the stream was joined.
    package init(_ configuration: InvalidationConfiguration, guards: StreamGuards = .all) {
        self.configuration = configuration
        self.guards = guards
        quarantined = guards.contains(.joins) ? StreamSlots.all : 0
    }

    /// Until when copies may be shown, in monotonic nanoseconds; 0 is never, and .max is without bound.
    package var trustedUntil: UInt64 {
        guard guards.contains(.bound) else { return .max }
        guard let proven = provenNanoseconds else { return guards.contains(.joins) ? 0 : .max }
        return proven &+ configuration.lagBoundNanoseconds
    }

    /// Whether a copy of a key in the slot may be shown at `now`.
    package func trusts(_ slot: Int, at now: UInt64) -> Bool {
        quarantined & StreamSlots.mask(slot) == 0 && now < trustedUntil
    }

    /// The stream was complete when the monotonic clock said `nanoseconds`.
    package mutating func proved(_ nanoseconds: UInt64) {
        provenNanoseconds = max(provenNanoseconds ?? 0, nanoseconds)
    }

    /// Shows no copies of the slots of `mask` from now on.
    package mutating func quarantine(_ mask: UInt64) {
        isJoined = true
        for slot in 0..<StreamSlots.count where mask & StreamSlots.mask(slot) != 0 { generations[slot] += 1 }
        if guards.contains(.sweeps) { quarantined |= mask }
    }

    /// What a sweep is to remove: the slots, and the number of each one's quarantine, for ``swept(_:)``. Nil when there
    /// is nothing.
    package var sweep: StreamSweep? {
        quarantined == 0 || !isJoined ? nil : StreamSweep(mask: quarantined, generations: generations)
    }

    /// A sweep has removed everything that was cached of its slots before it began.
    package mutating func swept(_ sweep: StreamSweep) {
        for slot in 0..<StreamSlots.count
        where sweep.mask & StreamSlots.mask(slot) != 0 && sweep.generations[slot] == generations[slot] {
            quarantined &= ~StreamSlots.mask(slot)
        }
    }
}

/// What is to be removed from a cache, and on behalf of which quarantines.
package struct StreamSweep: Sendable, Equatable {
    /// The slots.
    package let mask: UInt64
    /// By slot, the number of its quarantine.
    let generations: [UInt64]
}

/// What becomes of a cached copy when a record about its key comes.
package enum CopyChange: Sendable, Equatable {
    /// Nothing: the copy is as new.
    case keep
    /// The copy goes, and fills under way for the key must not install.
    case drop
    /// The record's value takes its place.
    case install

    /// Acts if and only if the record is newer than the copy, whose version is nil where there is none. A change that
    /// went around the cache (reason `cdc`) has no version to trust, and always acts. Where reads fill the cache from a
    /// store, a value only takes the place of a copy: without one, a read may have shown a newer row and not cached it.
    package static func of(
        recordVersion: UInt64, hasValue: Bool, isUnconditional: Bool = false, copyVersion: UInt64?,
        hasFills: Bool = false, guards: StreamGuards = .all
    ) -> CopyChange {
        if let copyVersion, copyVersion >= recordVersion, !isUnconditional, guards.contains(.versions) { return .keep }
        return hasValue && (copyVersion != nil || !hasFills) ? .install : .drop
    }
}
