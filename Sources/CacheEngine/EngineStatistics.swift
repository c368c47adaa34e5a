// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// What the whole engine holds and has done; counters since the start or the last reset.
package struct EngineStatistics: Sendable {
    /// Items now.
    package var items = 0
    /// Bytes of items now, headers included.
    package var itemBytes = 0
    /// Items that were stored, overwrites included.
    package var totalItems: UInt64 = 0
    /// Items that left to make room.
    package var evictions: UInt64 = 0
    /// Evictions from the main queue, a part of `evictions`.
    package var mainEvictions: UInt64 = 0
    /// Evictions of items that would have expired some day, and those of them from the main queue.
    package var evictedWithExpiry: UInt64 = 0
    /// Those of `evictedWithExpiry` from the main queue.
    package var mainEvictedWithExpiry: UInt64 = 0
    /// Evicted items that nobody had read.
    package var evictedUnfetched: UInt64 = 0
    /// Expired items that nobody had read.
    package var expiredUnfetched: UInt64 = 0
    /// Items that a command found expired.
    package var expiredOnAccess: UInt64 = 0
    /// Expired items whose memory was taken back.
    package var reclaimed: UInt64 = 0
    /// Those of `reclaimed` that a sweep found.
    package var swept: UInt64 = 0
    /// Items that moved from the small queue to the main queue.
    package var promotions: UInt64 = 0
    /// Items of the main queue that stayed in it for their reads.
    package var reinsertions: UInt64 = 0
    /// New items that went to the main queue because they were evicted not long ago.
    package var ghostHits: UInt64 = 0
    /// Segments that were emptied for their dead bytes, without an eviction.
    package var compactions: UInt64 = 0
    /// Stores that found no room.
    package var outOfMemory: UInt64 = 0
    /// Seconds since access of the item evicted last, in the shard where that is longest.
    package var lastEvictedAge: UInt32 = 0
    /// Bytes that items and index may use.
    package var limitBytes = 0
    /// Bytes that items and index use.
    package var usedBytes = 0
    /// Bytes of all shards' indexes.
    package var indexBytes = 0
    /// Bytes of the memory of evicted keys.
    package var ghostBytes = 0
    /// Bytes in segments that no live item uses.
    package var deadBytes = 0
    /// Bytes of the segments of new items.
    package var smallQueueBytes = 0
    /// Bytes of the segments of items that were read.
    package var mainQueueBytes = 0
    /// Segments in use, those of large items included.
    package var segments = 0
    /// Items that have a segment of their own.
    package var largeItems = 0
    /// Buckets of all shards' indexes.
    package var buckets = 0

    package init() {}
}

extension ShardState {
    func addStatistics(to total: inout EngineStatistics) {
        total.items += statistics.items
        total.itemBytes += statistics.itemBytes
        total.totalItems &+= statistics.totalItems
        total.evictions += statistics.evictions
        total.mainEvictions += statistics.mainEvictions
        total.evictedWithExpiry += statistics.evictedWithExpiry
        total.mainEvictedWithExpiry += statistics.mainEvictedWithExpiry
        total.evictedUnfetched += statistics.evictedUnfetched
        total.expiredUnfetched += statistics.expiredUnfetched
        total.expiredOnAccess += statistics.expiredOnAccess
        total.reclaimed += statistics.reclaimed
        total.swept += statistics.swept
        total.promotions += statistics.promotions
        total.reinsertions += statistics.reinsertions
        total.ghostHits += statistics.ghostHits
        total.compactions += statistics.compactions
        total.outOfMemory += statistics.outOfMemory
        total.lastEvictedAge = max(total.lastEvictedAge, statistics.lastEvictedAge)
        total.indexBytes += index.byteCount
        total.ghostBytes += ghost.byteCount
        total.deadBytes += deadBytes
        total.smallQueueBytes += small.byteCount
        total.mainQueueBytes += main.byteCount
        total.buckets += index.bucketCount
        for slot in 1..<segments.count where segments[slot].place != .free {
            total.segments += 1
            if segments[slot].isLarge { total.largeItems += 1 }
        }
    }
}
