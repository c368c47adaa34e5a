// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// The search for the last records of a topic's partitions: from some messages before their ends, to these. Pure.
struct KafkaPlacing {
    private let starts: [Int64]
    private let ends: [Int64]
    /// How many messages before the ends it begins.
    let back: Int64
    /// When it began, in monotonic nanoseconds.
    let since: UInt64
    private var places: [KafkaPlace?]
    /// Partitions whose end was not met yet.
    private var open: UInt64 = 0

    /// Between the starts and the ends of all partitions.
    init(starts: [Int64], ends: [Int64], back: Int64, since: UInt64) {
        self.starts = starts
        self.ends = ends
        self.back = back
        self.since = since
        places = [KafkaPlace?](repeating: nil, count: starts.count)
        for partition in starts.indices where starts[partition] < ends[partition] {
            open |= StreamSlots.mask(partition)
        }
    }

    /// Where to begin, by partition; nil where there is nothing.
    var offsets: [Int64?] {
        starts.indices.map { starts[$0] < ends[$0] ? max(starts[$0], ends[$0] - back) : nil }
    }

    /// Where partition 0 ended.
    var firstEnd: Int64 { ends[0] }

    /// Where each partition ended.
    var allEnds: [Int64] { ends }

    /// By partition, the offsets of so many messages before its end; none where there are none.
    func last(_ count: Int64) -> [Int: Range<Int64>] {
        var found: [Int: Range<Int64>] = [:]
        for partition in starts.indices where starts[partition] < ends[partition] {
            found[partition] = max(starts[partition], ends[partition] - count)..<ends[partition]
        }
        return found
    }

    /// A message was met; `place` where it has one.
    mutating func met(partition: Int, offset: Int64, place: KafkaPlace?) {
        guard places.indices.contains(partition) else { return }
        if let place { places[partition] = place }
        if offset >= ends[partition] - 1 { open &= ~StreamSlots.mask(partition) }
    }

    /// A partition was read to its end: what stood there is gone, or was no message.
    mutating func ended(partition: Int) { open &= ~StreamSlots.mask(partition) }

    /// Whether all ends were met.
    var isOver: Bool { open == 0 }

    /// The last place of each partition; nil where there is none, and the search went back to the start.
    var found: [KafkaPlace?] { places }

    /// Whether a partition has messages before those that were looked at, and none of these had a place.
    var goesFurtherBack: Bool {
        starts.indices.contains { places[$0] == nil && starts[$0] < ends[$0] && ends[$0] - back > starts[$0] }
    }
}
