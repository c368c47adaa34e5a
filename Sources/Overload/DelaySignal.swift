// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The least queueing delay of the last two steps. The least, since a queue that ever empties is no standing queue, and
/// one turn that the scheduler held up is no overload.
///
/// Source: Nichols and Jacobson, "Controlling Queue Delay", 2012.
package struct DelaySignal: Sendable {
    private var current = UInt64.max
    private var previous = UInt64.max

    package init() {}

    /// Notes how old the oldest input of a turn may be, in nanoseconds.
    @inline(__always)
    package mutating func note(_ nanoseconds: UInt64) { if nanoseconds < current { current = nanoseconds } }

    /// Ends a step, and returns the least delay of this one and the one before; 0 before the second.
    package mutating func step() -> UInt64 {
        let result = previous == .max ? 0 : min(current, previous)
        previous = current
        current = .max
        return result
    }
}
