// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory
public import Synchronization

/// A histogram of durations that one thread writes and any thread reads.
///
/// The buckets are powers of two times 50 µs, up to 1.6384 s, and one for everything above. Recording costs a
/// multiplication, a count of leading zeros and two plain additions; it never allocates.
@usableFromInline
package struct LatencyHistogram: ~Copyable, Sendable {
    /// How many buckets have an upper bound; one more has none.
    @inlinable package static var boundedBucketCount: Int { 16 }
    /// The first bucket's upper bound in nanoseconds.
    @inlinable package static var firstBoundNanoseconds: UInt64 { 50_000 }

    /// The buckets' counts, the unbounded one last, then the sum in nanoseconds.
    @usableFromInline let cells: FixedArray<Atomic<UInt64>>

    /// Creates an empty histogram. Allocates once.
    package init() {
        cells = makeCounterCells(Self.boundedBucketCount + 2)
    }

    /// The upper bound of bucket `index` (0 to 15) in nanoseconds, inclusive.
    package static func boundNanoseconds(_ index: Int) -> UInt64 {
        precondition(index >= 0 && index < boundedBucketCount, "no such bounded bucket")
        return firstBoundNanoseconds << UInt64(index)
    }

    /// Which bucket a duration falls into: 0 to 16.
    @inlinable @inline(__always)
    package static func bucket(nanoseconds: UInt64) -> Int {
        let steps = (max(nanoseconds, 1) &- 1) / firstBoundNanoseconds
        return min(64 &- steps.leadingZeroBitCount, boundedBucketCount)
    }

    /// Counts `count` events that took `nanoseconds` each. Only on the owning thread.
    @inlinable @inline(__always)
    package func record(nanoseconds: UInt64, count: UInt64 = 1) {
        let bucket = Self.bucket(nanoseconds: nanoseconds)
        cells[bucket].store(cells[bucket].load(ordering: .relaxed) &+ count, ordering: .relaxed)
        let sum = Self.boundedBucketCount + 1
        cells[sum].store(cells[sum].load(ordering: .relaxed) &+ nanoseconds &* count, ordering: .relaxed)
    }

    /// The histogram as it is now, from any thread. Allocates.
    package func snapshot() -> HistogramSnapshot {
        var result = HistogramSnapshot()
        result.add(self)
        return result
    }
}

/// A histogram, or a sum of several threads' histograms, at one moment.
package struct HistogramSnapshot: Sendable, Equatable {
    /// Events per bucket (not cumulative), the unbounded bucket last: 17 numbers.
    package private(set) var counts: [UInt64]
    /// The sum of the durations in nanoseconds.
    package private(set) var sumNanoseconds: UInt64
    /// The last traced event of each bucket; empty where none was.
    package private(set) var exemplars: [Exemplar?] = []

    /// An empty histogram.
    package init() {
        counts = Array(repeating: 0, count: LatencyHistogram.boundedBucketCount + 1)
        sumNanoseconds = 0
    }

    /// All events. The buckets are the truth, so that count and buckets agree though a thread goes on recording.
    package var count: UInt64 { counts.reduce(0, &+) }

    /// Adds what `histogram` shows now.
    package mutating func add(_ histogram: borrowing LatencyHistogram) {
        for index in counts.indices { counts[index] &+= histogram.cells[index].load(ordering: .relaxed) }
        sumNanoseconds &+= histogram.cells[counts.count].load(ordering: .relaxed)
    }

    /// Adds traced events; of two in a bucket, the later one stays.
    package mutating func add(_ cells: borrowing ExemplarCells) {
        for bucket in counts.indices {
            guard let exemplar = cells.last(bucket: bucket) else { continue }
            if exemplars.isEmpty { exemplars = Array(repeating: nil, count: counts.count) }
            if let known = exemplars[bucket], known.unixNanoseconds >= exemplar.unixNanoseconds { continue }
            exemplars[bucket] = exemplar
        }
    }

    /// The bound in nanoseconds under which at least `fraction` (0 to 1) of the events stayed; nil when there are
    /// none, or when the answer lies above the last bound.
    package func bound(fraction: Double) -> UInt64? {
        let total = count
        guard total > 0 else { return nil }
        let wanted = max(1, (fraction * Double(total)).rounded(.up))
        var seen: UInt64 = 0
        for index in 0..<LatencyHistogram.boundedBucketCount {
            seen += counts[index]
            if Double(seen) >= wanted { return LatencyHistogram.boundNanoseconds(index) }
        }
        return nil
    }
}
