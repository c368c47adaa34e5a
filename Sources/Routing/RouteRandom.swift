// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Numbers by chance, from a seed: SplitMix64.
package struct RouteRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64

    /// Numbers that depend on nothing but `seed`.
    package init(seed: UInt64) { state = seed }

    /// The next one.
    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ value &>> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value &>> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value &>> 31
    }

    /// A number from 0 to 1, 1 excluded.
    mutating func fraction() -> Double { Double(next() &>> 11) / Double(1 << 53) }
}
