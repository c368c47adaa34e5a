// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// What one of the two queues holds, in all shards together.
package struct QueueStatistics: Sendable, Equatable {
    /// Items in the queue.
    package var items = 0
    /// Bytes of the items, headers included.
    package var itemBytes = 0
    /// Segments in the queue.
    package var segments = 0
    /// Bytes of the segments.
    package var segmentBytes = 0
    /// Seconds since the last access of the oldest item of the shard where that is longest.
    package var oldestAge: UInt32 = 0

    package init() {}
}

extension CacheEngine {
    /// The queue of new items and the main queue, in this order. Takes every shard's lock in turn.
    package func queueStatistics(now: UInt32) -> (new: QueueStatistics, main: QueueStatistics) {
        var new = QueueStatistics()
        var main = QueueStatistics()
        for number in 0..<shardCount {
            withShard(number: number) { shard in
                shard.add(shard.small, to: &new, now: now)
                shard.add(shard.main, to: &main, now: now)
            }
        }
        return (new, main)
    }
}

extension ShardState {
    func add(_ queue: SegmentQueue, to total: inout QueueStatistics, now: UInt32) {
        total.segmentBytes += queue.byteCount
        var slot = queue.head
        var hasOldest = false
        while slot != 0 {
            let segment = segments[Int(slot)]
            total.items += Int(segment.liveItems)
            total.itemBytes += Int(segment.liveBytes)
            total.segments += 1
            if !hasOldest, let age = ageOfOldest(segment, slot, now: now) {
                total.oldestAge = max(total.oldestAge, age)
                hasOldest = true
            }
            slot = segment.next
        }
    }

    /// Seconds since the last access of a segment's first item; nil when there is none.
    private func ageOfOldest(_ segment: Segment, _ slot: UInt32, now: UInt32) -> UInt32? {
        guard segment.liveItems > 0 else { return nil }
        var offset = 0
        while offset < Int(segment.usedBytes) {
            let item = Item(
                block: segment.block.slice(offset, segment.block.count - offset),
                location: slot << segmentShift | UInt32(offset))
            if !item.isDead { return item.secondsSinceAccess(now: now) }
            offset += item.size
        }
        return nil
    }
}
