// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Synchronization

/// When keys were deleted last while a node warms up, by hash: what was fetched of them before is not kept. Safe to use
/// from any thread.
final class WarmingKeys: Sendable {
    private static var places: Int { 1 << 16 }
    private let deleted = FixedArray<Atomic<UInt64>>(count: WarmingKeys.places) { _ in Atomic(0) }
    private let flushed = Atomic<UInt64>(0)

    /// A key was, or is about to be, deleted.
    @inline(__always)
    func noteDelete(_ hash: UInt64) {
        deleted[Self.place(hash)].store(Clock.monotonicNanoseconds(), ordering: .sequentiallyConsistent)
    }

    /// All keys were, or are about to be.
    func noteFlush() { flushed.store(Clock.monotonicNanoseconds(), ordering: .sequentiallyConsistent) }

    /// Whether all keys were deleted at that time or later.
    func isFlushed(since time: UInt64) -> Bool { flushed.load(ordering: .sequentiallyConsistent) >= time }

    /// Whether the key was deleted at that time or later.
    func isDeleted(_ hash: UInt64, since time: UInt64) -> Bool {
        deleted[Self.place(hash)].load(ordering: .sequentiallyConsistent) >= time || isFlushed(since: time)
    }

    private static func place(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: hash & UInt64(places - 1)) }
}
