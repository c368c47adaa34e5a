// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// Random numbers from a seed: the same ones each time. Source: Blackman and Vigna's xoshiro256++, seeded by
/// splitmix64.
package struct RandomSource: RandomNumberGenerator, Sendable {
    private var state: (UInt64, UInt64, UInt64, UInt64)

    /// The numbers of `seed`.
    package init(seed: UInt64) {
        var mixed = seed
        func step() -> UInt64 {
            mixed &+= 0x9e37_79b9_7f4a_7c15
            return Self.mix(mixed)
        }
        state = (step(), step(), step(), step())
    }

    /// The next 64 bits.
    package mutating func next() -> UInt64 {
        let sum = state.0 &+ state.3
        let result = (sum << 23 | sum >> 41) &+ state.0
        let shifted = state.1 << 17
        state.2 ^= state.0
        state.3 ^= state.1
        state.1 ^= state.2
        state.0 ^= state.3
        state.2 ^= shifted
        state.3 = state.3 << 45 | state.3 >> 19
        return result
    }

    /// A number from 0 up to but not 1, evenly spread.
    package mutating func unit() -> Double { Double(next() >> 11) * 0x1p-53 }

    /// A number of an exponential distribution with mean 1.
    package mutating func exponential() -> Double { -log(1 - unit()) }

    /// A number of the normal distribution with mean 0 and deviation 1. Source: Box and Muller.
    package mutating func normal() -> Double {
        (-2 * log(1 - unit())).squareRoot() * cos(2 * Double.pi * unit())
    }

    /// One word of well mixed bits for `value`: splitmix64's last step.
    package static func mix(_ value: UInt64) -> UInt64 {
        var bits = value
        bits = (bits ^ bits >> 30) &* 0xbf58_476d_1ce4_e5b9
        bits = (bits ^ bits >> 27) &* 0x94d0_49bb_1331_11eb
        return bits ^ bits >> 31
    }
}
