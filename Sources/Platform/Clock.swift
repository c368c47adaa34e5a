// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

/// Readings of the kernel's clocks.
package enum Clock {
    /// CLOCK_MONOTONIC in nanoseconds: for intervals and deadlines. About 20 ns a call.
    package static func monotonicNanoseconds() -> UInt64 { read(CLOCK_MONOTONIC) }

    /// CLOCK_MONOTONIC_COARSE in nanoseconds: a few nanoseconds a call, up to 4 ms old.
    package static func coarseNanoseconds() -> UInt64 { read(CLOCK_MONOTONIC_COARSE) }

    /// CLOCK_BOOTTIME in nanoseconds: goes on while the machine sleeps; for leases.
    package static func bootNanoseconds() -> UInt64 { read(CLOCK_BOOTTIME) }

    /// Time since the Unix epoch in nanoseconds; steps when the clock is set.
    package static func realtimeNanoseconds() -> UInt64 { read(CLOCK_REALTIME) }

    /// CLOCK_THREAD_CPUTIME_ID in nanoseconds: how long the thread that asks has run. A system call, 200 ns.
    package static func threadNanoseconds() -> UInt64 { read(CLOCK_THREAD_CPUTIME_ID) }

    private static func read(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        // SAFETY: the kernel fills the local structure; these clocks exist on every Linux.
        unsafe clock_gettime(clock, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }
}
