// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Synchronization

/// Durations of which some may be beyond a histogram's last bound: the histogram, and the longest of them. One thread
/// writes, any thread reads.
package struct DurationRecord: ~Copyable, Sendable {
    private let histogram = LatencyHistogram()
    private let longest = Atomic<UInt64>(0)

    /// An empty record. Allocates once.
    package init() {}

    /// Counts an event. Only on the owning thread.
    package func record(nanoseconds: UInt64) {
        histogram.record(nanoseconds: nanoseconds)
        if nanoseconds > longest.load(ordering: .relaxed) { longest.store(nanoseconds, ordering: .relaxed) }
    }

    /// Adds what was recorded to a sum of records.
    package func add(to sum: inout DurationSummary) {
        sum.histogram.add(histogram)
        sum.longestNanoseconds = max(sum.longestNanoseconds, longest.load(ordering: .relaxed))
    }
}

/// A record, or several together, at one moment.
package struct DurationSummary: Sendable {
    /// The events by length.
    package fileprivate(set) var histogram = HistogramSnapshot()
    /// The longest of them.
    package fileprivate(set) var longestNanoseconds: UInt64 = 0

    /// A summary of nothing.
    package init() {}

    /// The time that at least `fraction` (0 to 1) of the events took at most: a bucket's bound, or that of the longest
    /// event beyond the last bucket. nil when there were none.
    package func bound(fraction: Double) -> UInt64? {
        guard histogram.count > 0 else { return nil }
        return histogram.bound(fraction: fraction) ?? longestNanoseconds
    }

    /// All of them together.
    package var sumNanoseconds: UInt64 { histogram.sumNanoseconds }
}

/// How long things of one kind took since the start, under a name.
package struct NamedDurations: Sendable {
    /// Without a unit, like `rocksdb_commit`.
    package var name: String
    /// The things in the plural, like `commits`.
    package var things: String
    /// One sentence.
    package var help: String
    /// The things by how long they took.
    package var summary = DurationSummary()

    /// Where none has happened yet.
    package init(_ name: String, things: String, _ help: String) {
        self.name = name
        self.things = things
        self.help = help
    }
}

/// What measures how long things take. Safe to ask from any thread.
package protocol DurationSource {
    /// Each kind of them.
    func durations() -> [NamedDurations]
}
