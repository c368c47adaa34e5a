// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Gives versions: 48 bits of Unix milliseconds, then 16 bits that count within one. Each is greater than every one
/// before it, whatever the system's clock does. Pure: time comes in, nothing is read or written.
///
/// A mark that is persisted ahead of the versions keeps that so across restarts: no version above the mark is ever
/// committed, and a clock starts at the mark. So a crash and a clock that was set back do not repeat a version.
/// Source: Kulkarni et al., "Logical Physical Clocks" (2014).
package struct HybridLogicalClock: Sendable, Equatable {
    /// How far ahead of the versions the mark is persisted, in milliseconds of versions: one persisted mark does for
    /// about so much time, and a restart skips at most so much.
    package static let reserveMilliseconds: UInt64 = 10_000

    /// The last version that was given.
    package private(set) var last: UInt64
    /// The highest mark known to be durable.
    private var persistedMark: UInt64

    /// A clock whose versions are all above `mark`: the mark that was read from the store, 0 in a new one.
    package init(persistedMark mark: UInt64) {
        last = mark
        persistedMark = mark
    }

    /// A new version: at least the time, greater than `stored` (the version that the key has, 0 for none) and than
    /// every version before. More than 65,536 in a millisecond run ahead of the time.
    package mutating func next(after stored: UInt64 = 0, unixMilliseconds: Int64) -> UInt64 {
        let limit = UInt64(1) << 48 - 1
        let time = min(UInt64(max(unixMilliseconds, 0)), limit) << 16
        let floor = max(last, stored)
        precondition(floor < .max, "the versions are used up")
        last = max(time, floor + 1)
        return last
    }

    /// The mark that must be durable before a version is committed, or in the same atomic write; nil when one that is
    /// high enough is durable already. Goes on to ask for one until ``notePersisted(_:)``.
    package func mustPersistBefore(_ version: UInt64) -> UInt64? {
        guard version > persistedMark else { return nil }
        let (mark, overflow) = version.addingReportingOverflow(Self.reserveMilliseconds << 16)
        return overflow ? .max : mark
    }

    /// Notes that a mark is durable.
    package mutating func notePersisted(_ mark: UInt64) { persistedMark = max(persistedMark, mark) }
}
