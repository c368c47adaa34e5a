// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How many may wait for a thread of a backend, learnt from how long they do. Pure: time is given.
///
/// A store that takes everything that waits at once, and syncs once for it, is as good as idle however many that are,
/// and however long the sync takes. So what counts is not how long an answer takes, but what is left behind: where
/// even the newest that is taken waited for more than the longest work before it and the target, a queue stands. One
/// that has stood for the target's time is no burst that drains.
/// From then on as many may wait as the store takes in the target's time, and never fewer than it takes at once. The
/// limit goes once it refuses nothing any more.
///
/// Source: Nichols and Jacobson, "Controlling Queue Delay", 2012, for the least wait of an interval; Little's law.
package struct QueueLimit: Sendable {
    /// What a limit goes by.
    package struct Configuration: Sendable, Equatable {
        /// How long what waits may wait behind others, in nanoseconds; 0 for as long as it likes.
        package var targetNanoseconds: UInt64 = 750_000_000
        /// After how long without anything being taken no more may wait than would be taken at once, in nanoseconds.
        package var stallNanoseconds: UInt64 = 750_000_000
        /// How long an interval lasts at least, in nanoseconds.
        package var intervalNanoseconds: UInt64 = 100_000_000
        /// How many may wait in any case.
        package var fewest = 64
        /// Intervals in a row in which the limit refuses nothing, until it goes.
        package var calmIntervals = 3

        /// The defaults.
        package init() {}

        /// For what waits so many milliseconds until it waits in vain, of which the target is half at most: a burst
        /// that drains within that time has not stood for as long. A `target` of 0 switches the limit off.
        package init(target: UInt64, waitingMilliseconds: Int) {
            let whole = UInt64(waitingMilliseconds) * 1_000_000
            targetNanoseconds = min(target, max(whole / 2, 1))
            stallNanoseconds = whole / 2
        }
    }

    private let configuration: Configuration
    /// The limit; the greatest number while there is none.
    package private(set) var value = Int.max
    /// How often a limit began.
    package private(set) var entries: UInt64 = 0
    /// The interval at hand: since when, and what was seen in it.
    private var start: UInt64 = 0
    private var takes = 0
    private var taken = 0
    private var largest = 0
    private var leastWait = UInt64.max
    private var longestGap: UInt64 = 0
    private var refused = 0
    /// When something was taken last, and the most that was taken at once in the interval before.
    private var lastTake: UInt64 = 0
    private var atOnce = 0
    private var calm = 0
    /// Since when a queue stands; 0 while none does.
    private var standsSince: UInt64 = 0

    /// No limit yet.
    package init(_ configuration: Configuration = Configuration()) { self.configuration = configuration }

    /// Whether there is a limit.
    package var isLimiting: Bool { value < .max }

    /// Whether one more may wait where `waiting` do, of which the oldest waited for `oldestWait` nanoseconds.
    package mutating func admits(waiting: Int, oldestWait: UInt64, at now: UInt64) -> Bool {
        guard configuration.targetNanoseconds > 0 else { return true }
        // Where nobody waited, nothing was there to be taken.
        let stall = configuration.stallNanoseconds
        let isStalled = waiting > 0 && Self.since(lastTake, now) > stall && oldestWait > stall / 2
        guard waiting >= (isStalled ? min(value, fewest) : value) else { return true }
        refused &+= 1
        return false
    }

    /// A thread took `count`, of which the oldest and the newest waited so many nanoseconds.
    package mutating func took(_ count: Int, oldestWait: UInt64, newestWait: UInt64, at now: UInt64) {
        guard configuration.targetNanoseconds > 0, count > 0 else { return }
        // What was there first says since when the thread was kept from it: before that, nothing was to do.
        let gap = min(Self.since(lastTake, now), oldestWait)
        lastTake = max(lastTake, now)
        if takes == 0 { start = now > gap ? now - gap : 0 }
        takes += 1
        taken += count
        largest = max(largest, count)
        leastWait = min(leastWait, newestWait)
        longestGap = max(longestGap, gap)
        if takes >= 2, Self.since(start, now) >= configuration.intervalNanoseconds { endInterval(now) }
    }

    /// Threads read the clock before they come here: one may come with an earlier time than the one before.
    private static func since(_ begin: UInt64, _ now: UInt64) -> UInt64 { now > begin ? now - begin : 0 }

    private var fewest: Int { max(configuration.fewest, largest, atOnce) }

    private mutating func endInterval(_ now: UInt64) {
        let target = configuration.targetNanoseconds
        let isStanding = leastWait > longestGap &+ target
        if !isStanding { standsSince = 0 } else if standsSince == 0 { standsSince = start }
        if isLimiting ? isStanding || refused > 0 : isStanding && Self.since(standsSince, now) >= target {
            let rate = Double(taken) / Double(max(Self.since(start, now), 1))
            let inTime = max(fewest, Int(rate * Double(target)))
            if !isLimiting { entries &+= 1 }
            value = isLimiting ? (value + inTime) / 2 : inTime
            calm = 0
        } else if isLimiting {
            calm += 1
            if calm >= configuration.calmIntervals { value = .max }
        }
        atOnce = largest
        (takes, taken, largest) = (0, 0, 0)
        (leastWait, longestGap, refused) = (.max, 0, 0)
    }
}
