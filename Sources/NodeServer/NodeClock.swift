// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization

/// The node's time in whole seconds, as memcached keeps it: it starts at 62, so that nothing is as old as time 0.
final class NodeClock: Sendable {
    /// What memcached adds to its start, in seconds: an update interval of 60, and 2.
    private static let headStart: Int64 = 62
    /// The most seconds that a clock may go on from: 68 years.
    private static let longestPast = Int64(Int32.max)
    /// The longest exptime that counts from now; anything longer is a date. Thirty days in seconds.
    private static let longestRelative: Int64 = 60 * 60 * 24 * 30

    /// The monotonic second at which this clock's second was ``headStart``; before 0 when the clock goes on that an
    /// earlier process began before the machine was started.
    private let startSecond: Int64
    /// The second at which the process started.
    private let bornSecond: UInt32
    /// The Unix time of second 0, as it was when the process started.
    let epoch: Int64
    /// Whether it goes on where an earlier process's clock was.
    let goesOn: Bool
    /// What `debugtime` added, in seconds; only where the node was started for tests.
    private let skew = Atomic<Int64>(0)
    /// The second at which `debugtime p` stopped the clock; 0 while it runs.
    private let pausedSecond = Atomic<Int64>(0)

    /// A clock that starts now, or goes on from a process whose second 0 was at the Unix time `earlier`.
    init(epoch earlier: Int64? = nil) {
        let monotonic = Int64(Clock.monotonicNanoseconds() / 1_000_000_000)
        let realtime = Int64(Clock.realtimeNanoseconds() / 1_000_000_000)
        let fresh = realtime - Self.headStart
        // Not where the system's clock was set back, nor where seconds would soon have more than 32 bits.
        let (passed, overflow) = fresh.subtractingReportingOverflow(earlier ?? fresh)
        let isUsable = !overflow && (0...Self.longestPast).contains(passed)
        goesOn = earlier != nil && isUsable
        epoch = isUsable ? fresh - passed : fresh
        startSecond = monotonic - (isUsable ? passed : 0)
        bornSecond = UInt32((isUsable ? passed : 0) + Self.headStart)
    }

    /// The second of a monotonic reading in nanoseconds.
    func second(_ nanoseconds: UInt64) -> UInt32 {
        let paused = pausedSecond.load(ordering: .relaxed)
        let running = Int64(nanoseconds / 1_000_000_000) - startSecond + Self.headStart
        return UInt32(clamping: (paused > 0 ? paused : running) + skew.load(ordering: .relaxed))
    }

    /// The second now.
    func now() -> UInt32 { second(Clock.monotonicNanoseconds()) }

    /// The Unix time at which the process started, about a minute early as memcached has it.
    var startedAt: Int64 { epoch + Int64(bornSecond) - Self.headStart }

    /// Seconds since the start.
    func uptime(at second: UInt32) -> UInt32 {
        let start = bornSecond - 2
        return second >= start ? second - start : 0
    }

    /// Moves the clock by `seconds`, for tests of expiry.
    func advance(by seconds: Int64) { skew.wrappingAdd(seconds, ordering: .relaxed) }

    /// Stops the clock, or lets it go on, for tests of expiry.
    func setPaused(_ isPaused: Bool) {
        let running = Int64(Clock.monotonicNanoseconds() / 1_000_000_000) - startSecond + Self.headStart
        pausedSecond.store(isPaused ? running : 0, ordering: .relaxed)
    }

    /// When a second of this clock begins, in milliseconds of Unix time as that is now, for the store; 0, which is
    /// never, stays 0. Two clock readings: the system's clock may have been set since the start.
    func unixMilliseconds(_ second: UInt32) -> Int64 {
        second == 0 ? 0 : beginningMilliseconds() + Int64(second) * 1000 + Self.toleranceMilliseconds
    }

    /// When a row with a client's exptime expires, in milliseconds of Unix time; 0 is never. A date is that date,
    /// whatever the system's clock said at the start; what counts from now does so by the clock as it is now.
    func unixExpiry(_ exptime: Int64, now: UInt32) -> Int64 {
        exptime > Self.longestRelative ? exptime * 1000 : unixMilliseconds(expiry(exptime, now: now))
    }

    /// A store's time in milliseconds of Unix time as a second of this clock: rounded down, so that nothing lives too
    /// long. 0, which is never, stays 0; a time before the start is 1.
    func second(unixMilliseconds: Int64) -> UInt32 {
        guard unixMilliseconds != 0 else { return 0 }
        // A time that no clock reaches is no reason to end the process.
        let second = (min(max(unixMilliseconds, 0), .max / 2) - beginningMilliseconds()) / 1000
        return second <= 1 ? 1 : UInt32(clamping: second)
    }

    /// The two clocks are not read at the same moment: so much later the store lets a row expire than the cache does,
    /// or a second could get lost between them.
    private static let toleranceMilliseconds: Int64 = 5

    /// The Unix time of second 0 as that is now, for a process that goes on; a second early, because none may live too
    /// long by it.
    var currentEpoch: Int64 { beginningMilliseconds() / 1000 - 1 }

    /// Whether the system's clock was set since the start.
    var wasSet: Bool { abs(currentEpoch + 1 - epoch) > 1 }

    /// The same, from readings that nothing held apart: differences are those of the system's clock, set or slept
    /// through.
    func steadyBeginningMilliseconds() -> Int64 {
        for _ in 0..<8 {
            let before = Clock.monotonicNanoseconds()
            let beginning = beginningMilliseconds()
            if Clock.monotonicNanoseconds() - before < 20_000_000 { return beginning }
        }
        return beginningMilliseconds()
    }

    /// When second 0 began, in milliseconds of Unix time as that is now.
    private func beginningMilliseconds() -> Int64 {
        let monotonic = Clock.monotonicNanoseconds()
        let realtime = Clock.realtimeNanoseconds()
        let running = Int64(monotonic / 1_000_000) - startSecond * 1000
        return Int64(realtime / 1_000_000) - running - Self.headStart * 1000
    }

    /// When something with a client's exptime expires: 0 for never, 1 (long ago) for a negative one or a date before
    /// the start. Source: memcached protocol.txt, "Expiration times".
    func expiry(_ exptime: Int64, now: UInt32) -> UInt32 {
        if exptime == 0 { return 0 }
        let given = exptime < 0 ? Self.longestRelative + 1 : exptime
        if given > Self.longestRelative {
            return given <= epoch ? 1 : UInt32(truncatingIfNeeded: given - epoch)
        }
        return UInt32(truncatingIfNeeded: given + Int64(now))
    }
}
