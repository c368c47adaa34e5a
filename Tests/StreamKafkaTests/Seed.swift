// Martlet
// SPDX-License-Identifier: Apache-2.0

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
