// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Synchronization

/// Spans on their way from one thread to the exporter's: bounded, without a lock. What finds no room is dropped and
/// counted. One thread puts in, another takes out; nothing allocates after `init`.
final class SpanRing: Sendable {
    private let records: FixedArray<SpanRecord>
    private let mask: Int
    /// How many were put in, by the one thread, and taken out, by the other.
    private let tail = Atomic<Int>(0)
    private let head = Atomic<Int>(0)
    private let lost = Atomic<UInt64>(0)

    /// Room for at least `capacity` spans.
    init(capacity: Int) {
        var size = 1
        while size < capacity { size *= 2 }
        mask = size - 1
        records = FixedArray(count: size) { _ in SpanRecord() }
    }

    /// Puts a span in; nil when there was no room, else how many wait. Only on the one thread.
    func offer(_ record: SpanRecord) -> Int? {
        let position = tail.load(ordering: .relaxed)
        let waiting = position &- head.load(ordering: .acquiring)
        guard waiting <= mask else {
            lost.store(lost.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
            return nil
        }
        records[position & mask] = record
        tail.store(position &+ 1, ordering: .releasing)
        return waiting &+ 1
    }

    /// Takes the oldest, `limit` at most. Only on the other thread.
    func take(into taken: inout [SpanRecord], limit: Int) {
        let position = head.load(ordering: .relaxed)
        let count = min(limit, tail.load(ordering: .acquiring) &- position)
        guard count > 0 else { return }
        for index in 0..<count { taken.append(records[(position &+ index) & mask]) }
        head.store(position &+ count, ordering: .releasing)
    }

    /// Spans that found no room.
    var dropped: UInt64 { lost.load(ordering: .relaxed) }

    /// Spans that wait.
    var count: Int { tail.load(ordering: .relaxed) &- head.load(ordering: .relaxed) }
}
