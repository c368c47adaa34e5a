// Martlet
// SPDX-License-Identifier: Apache-2.0

/// For how long a thread that has answered a write looks for the next one before it sleeps.
///
/// Falling asleep and being woken takes some 20 µs, on a virtual machine twice that, and the thread comes back to cold
/// caches: a tenth and more of a commit on a fast disk. Looking takes a processor from others meanwhile. So it is only
/// done where a single client writes one thing after the other, and while that client comes in time: each vain look
/// doubles how many waits go by without one.
struct ArrivalSpin {
    /// The longest look, in nanoseconds: what a client needs from its answer to its next write, and the way to us.
    static let limitNanoseconds: UInt64 = 100_000
    /// After so many vain looks in a row, only one wait in 2 to the power of this many has one.
    private static let vainLimit = 10

    private let isUseful: Bool
    private var vain = 0
    /// Waits that go by without a look.
    private var skipped = 0

    /// On a machine with one processor whoever looks keeps the client from writing: there it is never done.
    init(processors: Int) { isUseful = processors > 1 }

    /// How long to look, in nanoseconds, after a commit that answered `count` writes; 0 is not at all. Several writes
    /// come from several clients: their next ones are worth waiting for together.
    mutating func nanoseconds(afterCommitOf count: Int) -> UInt64 {
        guard isUseful, count == 1 else { return 0 }
        if skipped > 0 {
            skipped -= 1
            return 0
        }
        return Self.limitNanoseconds
    }

    /// Notes whether a look found something.
    mutating func note(_ isFound: Bool) {
        vain = isFound ? 0 : min(vain + 1, Self.vainLimit)
        skipped = isFound ? 0 : (1 << vain) - 1
    }
}
