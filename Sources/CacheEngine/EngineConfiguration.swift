// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How a cache engine is set up, and every limit it keeps.
package struct EngineConfiguration: Sendable {
    /// Bytes for items and index together. 1 MiB to 2^50.
    package var limitBytes: Int
    /// Whether the engine makes room by evicting; without, a store that finds none fails (memcached's `-M`).
    package var evicts = true
    /// The largest item, by memcached's accounting (`-I`): 1 KiB to 1 GiB.
    package var itemSizeMax = 1 << 20
    /// Seed of the index's hash; random in production, against chosen collisions.
    package var hashSeed: UInt64
    /// Shards, a power of two; 0 chooses by `limitBytes`.
    package var shardCount = 0
    /// Bytes of a segment, a power of two from 4 KiB to 1 MiB; 0 chooses by `limitBytes`.
    package var segmentBytes = 0
    /// Share of a shard's bytes that new items pass through before they are evicted or promoted, in percent (S3-FIFO).
    package var smallQueuePercent = 10
    /// Seconds that items which linger stay behind their expiry, for ``ShardState/findLingering(_:_:now:)``.
    package var lingerSeconds: UInt32 = 0
    /// How many reclaimed segments may survive whole before the next gives up its items whatever their reads.
    package var reclaimAttemptsMax = 16
    /// How many segments a reclaim looks at for one that is worth compacting.
    package var compactionCandidatesMax = 64

    /// The defaults for a cache of `limitBytes`.
    package init(limitBytes: Int, hashSeed: UInt64 = 0) {
        self.limitBytes = limitBytes
        self.hashSeed = hashSeed
    }

    /// 16 MiB a shard, but at least 16 shards where each still has 1 MiB, and at most 4,096.
    var effectiveShardCount: Int {
        if shardCount > 0 { return shardCount }
        let bySize = Self.powerOfTwo(atMost: limitBytes >> 24)
        let enough = min(16, Self.powerOfTwo(atMost: limitBytes >> 20))
        return min(max(bySize, enough), 4096)
    }

    /// 256 segments a shard: fine enough for FIFO queues, coarse enough that the open ones cost little.
    var effectiveSegmentBytes: Int {
        if segmentBytes > 0 { return segmentBytes }
        let wanted = Self.powerOfTwo(atMost: limitBytes / effectiveShardCount / 256)
        return min(max(wanted, 8 << 10), 1 << 20)
    }

    static func powerOfTwo(atMost value: Int) -> Int {
        value < 1 ? 1 : 1 << (Int.bitWidth - 1 - value.leadingZeroBitCount)
    }
}
