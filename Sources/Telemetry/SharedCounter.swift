// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// A number that any thread adds to and reads. Adding costs a locked instruction.
package struct SharedCounter: ~Copyable, Sendable {
    private let number = Atomic<UInt64>(0)

    /// A counter at 0.
    package init() {}

    /// Adds `count`, which is not negative.
    package func add(_ count: Int) { number.add(UInt64(count), ordering: .relaxed) }

    /// The sum so far.
    package var value: UInt64 { number.load(ordering: .relaxed) }
}
