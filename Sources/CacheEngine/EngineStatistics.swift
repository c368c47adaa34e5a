// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// What the whole engine holds and has done; counters since the start or the last reset.
package struct EngineStatistics: Sendable {
    package var items = 0
    package var itemBytes = 0
    package var totalItems: UInt64 = 0
    package var evictions: UInt64 = 0
    /// Evictions from the main queue, a part of `evictions`.
    package var mainEvictions: UInt64 = 0
    /// Evictions of items that would have expired some day, and those of them from the main queue.
    package var evictedWithExpiry: UInt64 = 0
    package var mainEvictedWithExpiry: UInt64 = 0
    package var evictedUnfetched: UInt64 = 0
    package var expiredUnfetched: UInt64 = 0
    package var expiredOnAccess: UInt64 = 0
    package var reclaimed: UInt64 = 0
    /// Those of `reclaimed` that a sweep found.
    package var swept: UInt64 = 0
    package var promotions: UInt64 = 0
    package var reinsertions: UInt64 = 0
    package var ghostHits: UInt64 = 0
    package var compactions: UInt64 = 0
    package var outOfMemory: UInt64 = 0
    package var lastEvictedAge: UInt32 = 0
    package var limitBytes = 0
    package var usedBytes = 0
    package var indexBytes = 0
    package var ghostBytes = 0
    package var deadBytes = 0
    package var smallQueueBytes = 0
    package var mainQueueBytes = 0
    package var segments = 0
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
