// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Walks over the items, piece by piece, so that no lock is held for long.
extension CacheEngine {
    /// Buckets of a shard's index now: where a walk of ``forEachItem(shard:bucket:of:_:)`` ends.
    package func bucketCount(shard number: Int) -> Int { withShard(number: number) { $0.index.bucketCount } }

    /// Calls `body`, under the shard's lock, for each item that was or would have been in a bucket when the index had
    /// `count` buckets: what moved to buckets that were split off since is included. So a walk over buckets 0 to
    /// `count - 1` meets each item that is there all the time exactly once, however the index grows meanwhile.
    /// `body` gets the number of the item's queue, as ``ShardState/queueNumber(of:)`` has it.
    package func forEachItem(shard number: Int, bucket: Int, of count: Int, _ body: (Item, Int) -> Void) {
        withShard(number: number) { shard in
            shard.forEachItem(inFamilyOf: bucket, of: count, body)
        }
    }

    /// The segments of a queue (1 of new items, 2 the main one), newest first, for
    /// ``forEachItem(shard:queue:segment:_:)``.
    package func segments(shard number: Int, queue: Int) -> [Int] {
        withShard(number: number) { shard in
            var slots: [Int] = []
            var slot = queue == 1 ? shard.small.tail : shard.main.tail
            while slot != 0 {
                slots.append(Int(slot))
                slot = shard.segments[Int(slot)].previous
            }
            return slots
        }
    }

    /// Calls `body`, under the shard's lock, for each item of a segment, oldest first, while it returns true. A segment
    /// that has left the queue has no items.
    package func forEachItem(shard number: Int, queue: Int, segment slot: Int, _ body: (Item) -> Bool) {
        withShard(number: number) { shard in
            let segment = shard.segments[slot]
            guard segment.place == (queue == 1 ? .small : .main) else { return }
            var offset = 0
            while offset < Int(segment.usedBytes) {
                let item = Item(
                    block: segment.block.slice(offset, segment.block.count - offset),
                    location: UInt32(slot) << shard.segmentShift | UInt32(offset))
                offset += item.size
                if !item.isDead, !item.isAbsent, !body(item) { return }
            }
        }
    }
}

extension ShardState {
    /// The items of a bucket and of all buckets that were split off it since there were `count`. Linear hashing splits
    /// bucket b off the bucket whose number is b without its highest bit.
    func forEachItem(inFamilyOf bucket: Int, of count: Int, _ body: (Item, Int) -> Void) {
        guard bucket < index.bucketCount else { return }
        index.forEach(inBucket: UInt32(bucket)) { location in
            let item = self.item(at: location)
            if !item.isAbsent { body(item, queueNumber(of: item)) }
        }
        var bit = 1 << (Int.bitWidth - bucket.leadingZeroBitCount)
        while bucket + bit < index.bucketCount {
            if bucket + bit >= count { forEachItem(inFamilyOf: bucket + bit, of: count, body) }
            bit <<= 1
        }
    }
}
