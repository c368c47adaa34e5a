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
    /// Whether somebody may sleep: set before sleeping, taken back by whoever wakes.
    private let hasSleepers = Atomic<Bool>(false)
    /// How often ``spin(_:nanoseconds:)`` looks before it reads the clock.
    private static let looksPerClock = 16

    /// A place where nobody sleeps yet.
    package init() {}

    /// The number of the last announcement.
    package var ticket: UInt32 { sequence.load(ordering: .sequentiallyConsistent) }

    /// Sleeps until ``announce()`` is called or was called since `ticket` was read, or the time is over.
    package func wait(_ ticket: UInt32, timeoutNanoseconds: UInt64) {
        hasSleepers.store(true, ordering: .sequentiallyConsistent)
        // SAFETY: an Atomic's storage in a class does not move, and the class lives during the call.
        unsafe withUnsafePointer(to: sequence) { unsafe _ = martlet_futex_wait_for($0, ticket, timeoutNanoseconds) }
    }

    /// Looks, without sleeping, for at most `nanoseconds` whether ``announce()`` was called since `ticket` was read.
    ///
    /// For a wait that is likely to be shorter than it takes to fall asleep and to be woken. It costs a processor
    /// meanwhile.
    package func spin(_ ticket: UInt32, nanoseconds: UInt64) -> Bool {
        let end = Clock.monotonicNanoseconds() + nanoseconds
        repeat {
            for _ in 0..<Self.looksPerClock {
                if self.ticket != ticket { return true }
                martlet_pause()
            }
        } while Clock.monotonicNanoseconds() < end
        return false
    }

    /// Wakes everybody who waits. A system call only when somebody has gone to sleep since the last one.
    package func announce() {
        sequence.add(1, ordering: .sequentiallyConsistent)
        // Who sets the flag later compares the sequence later, in the kernel, and does not sleep. All who sleep are
        // woken, so the flag need not be kept for anybody.
        guard hasSleepers.load(ordering: .sequentiallyConsistent),
            hasSleepers.exchange(false, ordering: .sequentiallyConsistent)
        else { return }
        // SAFETY: as above.
        unsafe withUnsafePointer(to: sequence) { unsafe _ = martlet_futex_wake($0, Int32.max) }
    }
}
