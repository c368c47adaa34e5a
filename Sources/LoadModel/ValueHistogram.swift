// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A histogram of any numbers in fixed memory: 128 buckets to each power of two, so that a quantile is off by less than
/// 0.8% of its value, whatever was recorded and how much of it.
///
/// Covers magnitudes from 2^-20 to 2^43 (in milliseconds: from a picosecond to centuries) of either sign; what is
/// smaller counts as 0, what is larger as the largest. Count, sum, least and greatest are exact. 64 KiB once something
/// was recorded. Source of the idea: HdrHistogram; the bucket is read off the bits of the floating-point number.
package struct ValueHistogram: Sendable, Equatable {
    private static let lowestExponent = -20
    private static let highestExponent = 43
    private static let subBits: UInt64 = 7
    static let bucketCount = (highestExponent - lowestExponent) << 7
    private static let base = UInt64(1023 + lowestExponent) << subBits

    private(set) var positives: [UInt64] = []
    private(set) var negatives: [UInt64] = []
    private(set) var zeros: UInt64 = 0
    /// How many numbers were recorded.
    package private(set) var count: UInt64 = 0
    /// Their sum.
    package private(set) var sum = 0.0
    /// The least of them; 0 when there are none.
    package private(set) var minimum = 0.0
    /// The greatest of them; 0 when there are none.
    package private(set) var maximum = 0.0

    package init() {}

    /// Records `value`, which is finite. Allocates the first time only.
    package mutating func record(_ value: Double, count times: UInt64 = 1) {
        if count == 0 {
            (minimum, maximum) = (value, value)
        } else {
            if value < minimum { minimum = value }
            if value > maximum { maximum = value }
        }
        count &+= times
        sum += times == 1 ? value : value * Double(times)
        let key = (value.bitPattern & ~(1 << 63)) >> (52 - Self.subBits)
        guard key >= Self.base else {
            zeros &+= times
            return
        }
        let index = min(Int(truncatingIfNeeded: key &- Self.base), Self.bucketCount - 1)
        if value > 0 {
            if positives.isEmpty { positives = Array(repeating: 0, count: Self.bucketCount) }
            positives[index] &+= times
        } else {
            if negatives.isEmpty { negatives = Array(repeating: 0, count: Self.bucketCount) }
            negatives[index] &+= times
        }
    }

    /// The mean; 0 when there are none.
    package var mean: Double { count == 0 ? 0 : sum / Double(count) }

    /// The number under which `fraction` (0 to 1) of all lie; 0 when there are none. Inside of a bucket its numbers are
    /// taken for evenly spread.
    package func quantile(_ fraction: Double) -> Double {
        guard count > 0 else { return 0 }
        let rank = min(max(1, (fraction * Double(count)).rounded(.up)), Double(count))
        if rank == 1 { return minimum }
        if rank == Double(count) { return maximum }
        var seen = 0.0
        for index in negatives.indices.reversed() where negatives[index] > 0 {
            let here = Double(negatives[index])
            if seen + here >= rank { return bounded(-Self.value(index, 1 - (rank - seen - 0.5) / here)) }
            seen += here
        }
        seen += Double(zeros)
        if seen >= rank { return bounded(0) }
        for index in positives.indices where positives[index] > 0 {
            let here = Double(positives[index])
            if seen + here >= rank { return bounded(Self.value(index, (rank - seen - 0.5) / here)) }
            seen += here
        }
        return maximum
    }

    /// Takes over what was read of another one, whose numbers agree with each other.
    mutating func restore(
        count: UInt64, sum: Double, range: ClosedRange<Double>, zeros: UInt64, positives: [UInt64],
        negatives: [UInt64]
    ) {
        (self.count, self.sum, self.zeros) = (count, sum, zeros)
        (minimum, maximum) = (range.lowerBound, range.upperBound)
        (self.positives, self.negatives) = (positives, negatives)
    }

    /// Adds what another one recorded.
    package mutating func add(_ other: ValueHistogram) {
        guard other.count > 0 else { return }
        minimum = count == 0 ? other.minimum : min(minimum, other.minimum)
        maximum = count == 0 ? other.maximum : max(maximum, other.maximum)
        count &+= other.count
        sum += other.sum
        zeros &+= other.zeros
        Self.add(&positives, other.positives)
        Self.add(&negatives, other.negatives)
    }

    /// What was recorded since `earlier`, which is this histogram at an earlier time. Least and greatest are then those
    /// of the buckets.
    package func since(_ earlier: ValueHistogram) -> ValueHistogram {
        var result = self
        result.count = count &- earlier.count
        result.sum = sum - earlier.sum
        result.zeros = zeros &- earlier.zeros
        for index in earlier.positives.indices { result.positives[index] &-= earlier.positives[index] }
        for index in earlier.negatives.indices { result.negatives[index] &-= earlier.negatives[index] }
        guard result.count > 0 else { return ValueHistogram() }
        if let low = result.buckets().first, let high = result.buckets().last {
            result.minimum = max(minimum, low.low)
            result.maximum = min(maximum, high.high)
        }
        return result
    }

    /// The buckets that hold something, in rising order: their bounds, and how many numbers they hold.
    package func buckets() -> [(low: Double, high: Double, count: UInt64)] {
        var result: [(low: Double, high: Double, count: UInt64)] = []
        for index in negatives.indices.reversed() where negatives[index] > 0 {
            result.append((-Self.value(index, 1), -Self.value(index, 0), negatives[index]))
        }
        if zeros > 0 { result.append((0, 0, zeros)) }
        for index in positives.indices where positives[index] > 0 {
            result.append((Self.value(index, 0), Self.value(index, 1), positives[index]))
        }
        return result
    }

    private func bounded(_ value: Double) -> Double { min(max(value, minimum), maximum) }

    /// The number at `part` (0 to 1) of bucket `index`.
    private static func value(_ index: Int, _ part: Double) -> Double {
        let low = Double(bitPattern: (UInt64(index) &+ base) << (52 - subBits))
        let high = Double(bitPattern: (UInt64(index) &+ base &+ 1) << (52 - subBits))
        return low + (high - low) * part
    }

    private static func add(_ target: inout [UInt64], _ source: [UInt64]) {
        if source.isEmpty { return }
        if target.isEmpty {
            target = source
            return
        }
        for index in source.indices { target[index] &+= source[index] }
    }
}
