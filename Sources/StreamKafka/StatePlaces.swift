// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// Which messages of the topic of states are another publisher's: what stands between ours, or behind them. One that
/// stood still puts older states behind newer ones when it goes on, and compaction would keep them. Pure.
struct StatePlaces {
    /// By partition, where the next message of ours is to be, if nobody else puts one there; nil where nobody knows.
    private var next = [Int64?](repeating: nil, count: StreamSlots.count)
    /// By partition, messages that were handed over and not reported.
    private var waiting = [Int](repeating: 0, count: StreamSlots.count)
    /// By partition, where there are messages of others, or of ours whose reports were lost.
    private var others: [Int: Range<Int64>] = [:]

    /// All partitions end there, and ours come next.
    mutating func begin(ends: [Int64]) {
        self = StatePlaces()
        for slot in 0..<min(ends.count, StreamSlots.count) { next[slot] = ends[slot] }
    }

    /// The producer is gone: what waited may be there or not.
    mutating func forgetWaiting() { waiting = [Int](repeating: 0, count: StreamSlots.count) }

    /// A message was handed over.
    mutating func handed(_ slot: Int) { waiting[slot] += 1 }

    /// It is at an offset; nil where nobody knows, or it is nowhere.
    mutating func reported(_ slot: Int, offset: Int64?) {
        waiting[slot] = max(0, waiting[slot] - 1)
        guard let offset, offset >= 0, let place = next[slot], offset >= place else { return }
        note(slot, place..<offset)
        next[slot] = offset + 1
    }

    /// A partition ended there at a moment in which nothing was handed over. What waits may be among it.
    mutating func ended(_ slot: Int, at end: Int64) {
        guard waiting[slot] == 0, let place = next[slot] else { return }
        if end > place { note(slot, place..<end) }
        next[slot] = end
    }

    /// By partition, where others' messages are that were not looked at.
    mutating func takeOthers() -> [Int: Range<Int64>] {
        defer { others = [:] }
        return others
    }

    private mutating func note(_ slot: Int, _ range: Range<Int64>) {
        guard !range.isEmpty else { return }
        if let known = others[slot] {
            others[slot] = min(known.lowerBound, range.lowerBound)..<max(known.upperBound, range.upperBound)
        } else {
            others[slot] = range
        }
    }
}
