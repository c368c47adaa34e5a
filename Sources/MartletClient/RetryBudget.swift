// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How often a client may try again, so that retries never become the load that keeps a fleet down.
///
/// A bucket of tokens: a retry takes one; a first attempt puts in a part of one, and time a few more. Over any time
/// there are at most `share` × first attempts + `perSecond` × seconds + `burst` retries. Pure: time is given. Source:
/// Finagle's RetryBudget.
struct RetryBudget: Sendable {
    let share: Double
    let perSecond: Double
    let burst: Double
    private var tokens: Double
    private var lastNanoseconds: UInt64

    init(share: Double, perSecond: Double, burst: Double, nowNanoseconds now: UInt64) {
        self.share = share
        self.perSecond = perSecond
        self.burst = burst
        tokens = burst
        lastNanoseconds = now
    }

    /// So many first attempts are made.
    mutating func attempted(_ count: Int = 1) { tokens = min(burst, tokens + share * Double(count)) }

    /// Takes a token for a retry; false when there is none.
    mutating func withdraw(nowNanoseconds now: UInt64) -> Bool {
        if now > lastNanoseconds {
            tokens = min(burst, tokens + perSecond * Double(now - lastNanoseconds) / 1e9)
            lastNanoseconds = now
        }
        guard tokens >= 1 else { return false }
        tokens -= 1
        return true
    }
}

/// How long is waited before an attempt: exponential, with full jitter between the shortest wait and what would have
/// been the whole one.
package struct Backoff: Sendable {
    /// The whole wait after the first failure.
    package var firstNanoseconds: UInt64
    /// The longest wait.
    package var longestNanoseconds: UInt64

    /// Waits between these.
    package init(firstNanoseconds: UInt64, longestNanoseconds: UInt64) {
        self.firstNanoseconds = firstNanoseconds
        self.longestNanoseconds = longestNanoseconds
    }

    /// The wait after so many failures (at least 1); `random` is from 0 to 1.
    package func wait(failures: Int, random: Double) -> UInt64 {
        let steps = UInt64(min(max(failures, 1) - 1, 20))
        let whole = min(firstNanoseconds << steps, longestNanoseconds)
        return firstNanoseconds / 2 + UInt64(Double(whole - min(whole, firstNanoseconds / 2)) * min(max(random, 0), 1))
    }
}

/// An estimate of a quantile of durations that follows them: a few bytes, a few operations each.
///
/// Each sample moves the estimate by a small part of itself, up for one above it and down for one below, in such shares
/// that it rests where the wanted part of the samples is below.
struct QuantileEstimate: Sendable {
    private let fraction: Double
    private static var step: Double { 0.03 }
    /// The estimate in nanoseconds; 0 before the first sample.
    private(set) var nanoseconds: Double = 0

    /// Follows the quantile `fraction`, from 0 to 1.
    init(fraction: Double) { self.fraction = fraction }

    /// A sample.
    mutating func add(_ sample: UInt64) {
        guard nanoseconds > 0 else {
            nanoseconds = max(Double(sample), 1_000)
            return
        }
        let up = Double(sample) > nanoseconds
        nanoseconds *= up ? 1 + Self.step * fraction : 1 - Self.step * (1 - fraction)
        nanoseconds = max(nanoseconds, 1_000)
    }
}
