// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Synchronization

/// What all threads have to know of copies of hot keys on other servers than the keys' own, by hash of the keys: which
/// may be there, which are being made, and which nobody reads for a while. Shared by all reactors.
///
/// A thread that makes a copy says so first and looks for writes then; one that writes says that first
/// (``WriteVersions``) and looks for copies that are being made then. So one of them sees the other, whichever came
/// first: the copy is not made, or not read.
final class HotCopies: Sendable {
    private static var places: Int { 4096 }
    private let mayExist = FixedArray<Atomic<UInt64>>(count: HotCopies.places) { _ in Atomic(0) }
    private let distrusted = FixedArray<Atomic<UInt64>>(count: HotCopies.places) { _ in Atomic(0) }
    private let fills = FixedArray<Atomic<Int>>(count: HotCopies.places) { _ in Atomic(0) }

    /// A copy will be made, which may be there until that time.
    func beginFill(_ hash: UInt64, until time: UInt64) {
        let place = Self.place(hash)
        Self.raise(mayExist[place], to: time)
        fills[place].add(1, ordering: .sequentiallyConsistent)
    }

    /// That is over; once for each ``beginFill(_:until:)``. A copy that may come yet is not read until that time.
    func endFill(_ hash: UInt64, until time: UInt64, isKnown: Bool) {
        let place = Self.place(hash)
        Self.raise(mayExist[place], to: time)
        if !isKnown { Self.raise(distrusted[place], to: time) }
        fills[place].subtract(1, ordering: .sequentiallyConsistent)
    }

    /// A key is being written. Whether copies of it may be there that are to be deleted; those that are being made are
    /// not read until `time`.
    func written(_ hash: UInt64, now: UInt64, until time: UInt64) -> Bool {
        let place = Self.place(hash)
        if fills[place].load(ordering: .sequentiallyConsistent) > 0 { Self.raise(distrusted[place], to: time) }
        return mayExist[place].load(ordering: .sequentiallyConsistent) > now
    }

    /// Copies of a key are not read until that time: one of them may be from before a write.
    func distrust(_ hash: UInt64, until time: UInt64) { Self.raise(distrusted[Self.place(hash)], to: time) }

    /// No copies at all are read until that time.
    func distrustAll(until time: UInt64) {
        for place in 0..<Self.places { Self.raise(distrusted[place], to: time) }
    }

    /// Whether copies of a key may be read.
    func isTrusted(_ hash: UInt64, now: UInt64) -> Bool {
        distrusted[Self.place(hash)].load(ordering: .sequentiallyConsistent) <= now
    }

    private static func raise(_ cell: borrowing Atomic<UInt64>, to time: UInt64) {
        _ = cell.max(time, ordering: .sequentiallyConsistent)
    }

    private static func place(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: hash & UInt64(places - 1)) }
}
