// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A quantile of how long requests took lately: within an eighth of the truth, of the last one or two thousand.
///
/// Buckets grow by an eighth of a power of two, from 8 µs to a minute. When two thousand were counted all counts are
/// halved, so what is old weighs less and less. Pure. Allocates once.
package struct LatencyQuantile: Sendable {
    private let fraction: Double
    private var counts = [UInt32](repeating: 0, count: LatencyQuantile.bucketCount)
    private var total: UInt32 = 0
    private var untilUpdate = LatencyQuantile.updateInterval
    private var known: UInt64 = 0

    /// Samples before which nothing is said.
    package static var fewestSamples: Int { 100 }
    private static var bucketCount: Int { 8 * 24 }
    private static var memory: UInt32 { 2048 }
    private static var updateInterval: Int { 32 }

    /// The quantile of a number from 0 to 1; of nothing yet.
    package init(_ fraction: Double) { self.fraction = fraction }

    /// Takes in a request that took so long.
    package mutating func add(nanoseconds: UInt64) {
        counts[Self.bucket(nanoseconds)] += 1
        total += 1
        untilUpdate -= 1
        guard untilUpdate == 0 else { return }
        untilUpdate = Self.updateInterval
        if total >= Self.fewestSamples || known > 0 { known = bound() }
        guard total >= Self.memory else { return }
        total = 0
        for index in counts.indices {
            counts[index] /= 2
            total += counts[index]
        }
    }

    /// The quantile, as of at most 32 samples ago, rounded up; nil while too little is known.
    package var nanoseconds: UInt64? { known > 0 ? known : nil }

    private func bound() -> UInt64 {
        let wanted = Double(total) * fraction
        var seen = 0.0
        for index in counts.indices {
            seen += Double(counts[index])
            if seen >= wanted { return Self.upper(index) }
        }
        return Self.upper(Self.bucketCount - 1)
    }

    private static func bucket(_ nanoseconds: UInt64) -> Int {
        let units = max(nanoseconds >> 10, 8)
        let shift = 60 - units.leadingZeroBitCount
        return min(shift * 8 + Int(units >> UInt64(shift)) - 8, bucketCount - 1)
    }

    private static func upper(_ bucket: Int) -> UInt64 { UInt64(9 + bucket % 8) << UInt64(10 + bucket / 8) }
}
