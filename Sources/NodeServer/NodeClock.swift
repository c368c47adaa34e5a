// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization

/// The node's time in whole seconds, as memcached keeps it: it starts at 62, so that nothing is as old as time 0.
final class NodeClock: Sendable {
    /// What memcached adds to its start, in seconds: an update interval of 60, and 2.
    private static let headStart: UInt64 = 62
    /// The longest exptime that counts from now; anything longer is a date. Thirty days in seconds.
    private static let longestRelative: Int64 = 60 * 60 * 24 * 30

    private let startSecond: UInt64
    /// The Unix time of second 0.
    let epoch: Int64
    /// What `debugtime` added, in seconds; only where the node was started for tests.
    private let skew = Atomic<Int64>(0)
    /// The second at which `debugtime p` stopped the clock; 0 while it runs.
    private let pausedSecond = Atomic<Int64>(0)

    init() {
        startSecond = Clock.monotonicNanoseconds() / 1_000_000_000
        epoch = Int64(Clock.realtimeNanoseconds() / 1_000_000_000) - Int64(Self.headStart)
    }

    /// The second of a monotonic reading in nanoseconds.
    func second(_ nanoseconds: UInt64) -> UInt32 {
        let paused = pausedSecond.load(ordering: .relaxed)
        let running = Int64(nanoseconds / 1_000_000_000 &- startSecond &+ Self.headStart)
        return UInt32(clamping: (paused > 0 ? paused : running) + skew.load(ordering: .relaxed))
    }

    /// The second now.
    func now() -> UInt32 { second(Clock.monotonicNanoseconds()) }

    /// Seconds since the start.
    func uptime(at second: UInt32) -> UInt32 { second >= 60 ? second - 60 : 0 }

    /// Moves the clock by `seconds`, for tests of expiry.
    func advance(by seconds: Int64) { skew.wrappingAdd(seconds, ordering: .relaxed) }

    /// Stops the clock, or lets it go on, for tests of expiry.
    func setPaused(_ isPaused: Bool) {
        let running = Int64(Clock.monotonicNanoseconds() / 1_000_000_000 &- startSecond &+ Self.headStart)
        pausedSecond.store(isPaused ? running : 0, ordering: .relaxed)
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
