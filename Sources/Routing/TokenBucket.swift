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

/// Numbers by chance, from a seed: SplitMix64.
struct RouteRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ value &>> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value &>> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value &>> 31
    }

    /// A number from 0 to 1, 1 excluded.
    mutating func fraction() -> Double { Double(next() &>> 11) / Double(1 << 53) }
}
