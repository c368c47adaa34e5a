// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What memcached's options say about its slabs, its LRU and its other inner parts.
///
/// There are none of these here. The options are accepted, because start scripts have them, and checked as memcached
/// checks them; `stats settings` tells the values back.
package struct MemcachedTuning: Sendable, Equatable {
    /// `-f`.
    package var growthFactor = 1.25
    /// `-n`, in bytes.
    package var chunkSize = 48
    /// `-o hashpower`.
    package var hashPower = 0
    /// Whether `-o no_hashexpand` was not given.
    package var expandsHash = true
    /// `-o hash_algorithm`.
    package var hashAlgorithm = "murmur3"
    /// `-o slab_reassign`.
    package var reassignsSlabs = true
    /// `-o slab_automove`.
    package var slabAutomove = 1
    /// `-o slab_automove_ratio`.
    package var slabAutomoveRatio = 0.8
    /// `-o slab_automove_window`.
    package var slabAutomoveWindow = 10
    /// Bytes.
    package var slabChunkMaximum = 512 << 10
    /// Seconds; 0 is never.
    package var tailRepairTime = 0
    /// `-o lru_crawler`.
    package var runsCrawler = true
    /// `-o lru_crawler_sleep`.
    package var crawlerSleepMicroseconds = 100
    /// `-o lru_crawler_tocrawl`.
    package var crawlerToCrawl = 0
    /// `-o lru_maintainer`.
    package var maintainsLRU = true
    /// Whether `-o no_modern` and its like were not given.
    package var isSegmentedLRU = true
    /// `-o hot_lru_pct`.
    package var hotPercent = 20
    /// `-o warm_lru_pct`.
    package var warmPercent = 40
    /// `-o hot_max_factor`.
    package var hotMaximumFactor = 0.2
    /// `-o warm_max_factor`.
    package var warmMaximumFactor = 2.0
    /// Whether `-o temporary_ttl` was given.
    package var hasTemporaryLRU = false
    /// `-o temporary_ttl`, in seconds.
    package var temporaryTTL = 61
    /// `-o track_sizes`.
    package var tracksSizes = false
    /// Bytes; 0 is no limit.
    package var readBufferLimitBytes = 0
    /// `-o drop_privileges`.
    package var dropsPrivileges = false
    /// `-N`.
    package var napiIDs = 0
    /// `-e`.
    package var memoryFilePath: String?
    /// The options given that have no effect here, in order.
    package var ineffective: [String] = []

    package init() {}
}
