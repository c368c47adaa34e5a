// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Synchronization

/// An event of a histogram that was traced: where to look for why it took so long.
package struct Exemplar: BitwiseCopyable, Sendable, Equatable {
    /// The trace's 16 bytes, the first eight in front.
    package var traceHigh: UInt64
    /// The last eight.
    package var traceLow: UInt64
    /// The span's number.
    package var span: UInt64
    /// How long it took.
    package var nanoseconds: UInt64
    /// When it was over, in Unix time.
    package var unixNanoseconds: UInt64

    /// An event of a trace.
    package init(
        traceHigh: UInt64, traceLow: UInt64, span: UInt64, nanoseconds: UInt64, unixNanoseconds: UInt64
    ) {
        self.traceHigh = traceHigh
        self.traceLow = traceLow
        self.span = span
        self.nanoseconds = nanoseconds
        self.unixNanoseconds = unixNanoseconds
    }
}

/// The last traced event of each bucket of a ``LatencyHistogram``: one thread writes, any thread reads.
///
/// Noting one is a few plain stores, without a locked instruction; nothing allocates after `init`, and nothing to speak
/// of is allocated where nothing is traced.
package struct ExemplarCells: ~Copyable, Sendable {
    /// For each bucket a count of changes, which is odd during one, and the exemplar's five numbers.
    private let cells: FixedArray<Atomic<UInt64>>
    private let isOn: Bool

    private static var stride: Int { 6 }
    /// How often a reader looks again at what is being changed.
    private static var attempts: Int { 8 }

    /// Cells without an event.
    package init(isOn: Bool) {
        self.isOn = isOn
        cells = makeCounterCells(isOn ? (LatencyHistogram.boundedBucketCount + 1) * Self.stride : 1)
    }

    /// Notes an event in the bucket that it belongs to. Only on the owning thread.
    package func note(_ exemplar: Exemplar) {
        guard isOn else { return }
        let first = LatencyHistogram.bucket(nanoseconds: exemplar.nanoseconds) * Self.stride
        let change = cells[first].load(ordering: .relaxed)
        cells[first].store(change &+ 1, ordering: .relaxed)
        atomicMemoryFence(ordering: .releasing)
        cells[first + 1].store(exemplar.traceHigh, ordering: .relaxed)
        cells[first + 2].store(exemplar.traceLow, ordering: .relaxed)
        cells[first + 3].store(exemplar.span, ordering: .relaxed)
        cells[first + 4].store(exemplar.nanoseconds, ordering: .relaxed)
        cells[first + 5].store(exemplar.unixNanoseconds, ordering: .relaxed)
        cells[first].store(change &+ 2, ordering: .releasing)
    }

    /// The last event of a bucket; nil where there is none, or another one all the time.
    func last(bucket: Int) -> Exemplar? {
        guard isOn else { return nil }
        let first = bucket * Self.stride
        for _ in 0..<Self.attempts {
            let change = cells[first].load(ordering: .acquiring)
            guard change > 0 else { return nil }
            guard change & 1 == 0 else { continue }
            let exemplar = Exemplar(
                traceHigh: cells[first + 1].load(ordering: .relaxed),
                traceLow: cells[first + 2].load(ordering: .relaxed),
                span: cells[first + 3].load(ordering: .relaxed),
                nanoseconds: cells[first + 4].load(ordering: .relaxed),
                unixNanoseconds: cells[first + 5].load(ordering: .relaxed))
            atomicMemoryFence(ordering: .acquiring)
            if cells[first].load(ordering: .relaxed) == change { return exemplar }
        }
        return nil
    }
}
