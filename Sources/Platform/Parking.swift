// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Synchronization

/// A place where threads sleep until somebody says that something changed.
///
/// A waiter reads ``ticket``, looks whether it must wait, and calls ``wait(_:timeoutNanoseconds:)`` with that ticket; a
/// change that was announced in between makes the wait return at once, so none is missed.
package final class Parking: Sendable {
    private let sequence = Atomic<UInt32>(0)
    private let sleepers = Atomic<UInt32>(0)

    /// A place where nobody sleeps yet.
    package init() {}

    /// The number of the last announcement.
    package var ticket: UInt32 { sequence.load(ordering: .sequentiallyConsistent) }

    /// Sleeps until ``announce()`` is called or was called since `ticket` was read, or the time is over.
    package func wait(_ ticket: UInt32, timeoutNanoseconds: UInt64) {
        sleepers.add(1, ordering: .sequentiallyConsistent)
        // SAFETY: an Atomic's storage in a class does not move, and the class lives during the call.
        unsafe withUnsafePointer(to: sequence) { unsafe _ = martlet_futex_wait_for($0, ticket, timeoutNanoseconds) }
        sleepers.subtract(1, ordering: .sequentiallyConsistent)
    }

    /// Wakes everybody who waits. A system call only when somebody does.
    package func announce() {
        sequence.add(1, ordering: .sequentiallyConsistent)
        guard sleepers.load(ordering: .sequentiallyConsistent) > 0 else { return }
        // SAFETY: as above.
        unsafe withUnsafePointer(to: sequence) { unsafe _ = martlet_futex_wake($0, Int32.max) }
    }
}
