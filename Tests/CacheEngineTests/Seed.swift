// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory

#if canImport(Glibc)
    import Glibc
#endif

/// The seed of this run's random tests: MARTLET_SEED if set, else the clock. Failures print it.
enum Seed {
    static let current: UInt64 = {
        if let text = unsafe getenv("MARTLET_SEED"), let seed = UInt64(unsafe String(cString: text)) { return seed }
        return UInt64.random(in: 1...UInt64.max)
    }()
}

/// SplitMix64: small, fast, the same everywhere for the same seed. Source: Steele, Lea, Flood (OOPSLA 2014).
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(max(bound, 1))) }
}
