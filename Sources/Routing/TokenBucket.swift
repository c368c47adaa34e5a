// Martlet
// SPDX-License-Identifier: Apache-2.0

/// So many tokens for each unit of something that grows, and not more than so many at once.
///
/// What grows is seconds or requests. Source: the algorithm of mcrouter's limits: the bucket is the time since it was
/// last empty.
struct TokenBucket: Sendable {
    private let rate: Double
    private let burst: Double
    private var empty: Double

    /// A bucket that is empty at `start`, or full.
    init(rate: Double, burst: Double, emptyAt start: Double, isFull: Bool = false) {
        self.rate = rate
        self.burst = burst
        empty = isFull && rate > 0 ? start - burst / rate : start
    }

    /// Takes a token, when there is one at `now`.
    mutating func take(now: Double) -> Bool {
        guard rate > 0 else { return false }
        let held = min((now - empty) * rate, burst)
        guard held >= 1 else { return false }
        empty = now - (held - 1) / rate
        return true
    }
}
