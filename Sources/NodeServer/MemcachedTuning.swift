// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What memcached's options say about its slabs, its LRU and its other inner parts.
///
/// There are none of these here. The options are accepted, because start scripts have them, and checked as memcached
/// checks them; `stats settings` tells the values back.
package struct MemcachedTuning: Sendable, Equatable {
    package var growthFactor = 1.25
    package var chunkSize = 48
    package var hashPower = 0
    package var expandsHash = true
    package var hashAlgorithm = "murmur3"
    package var reassignsSlabs = true
    package var slabAutomove = 1
    package var slabAutomoveRatio = 0.8
    package var slabAutomoveWindow = 10
    /// Bytes.
    package var slabChunkMaximum = 512 << 10
    /// Seconds; 0 is never.
    package var tailRepairTime = 0
    package var runsCrawler = true
    package var crawlerSleepMicroseconds = 100
    package var crawlerToCrawl = 0
    package var maintainsLRU = true
    package var isSegmentedLRU = true
    package var hotPercent = 20
    package var warmPercent = 40
    package var hotMaximumFactor = 0.2
    package var warmMaximumFactor = 2.0
    package var hasTemporaryLRU = false
    package var temporaryTTL = 61
    package var tracksSizes = false
    /// Bytes; 0 is no limit.
    package var readBufferLimitBytes = 0
    package var dropsPrivileges = false
    package var napiIDs = 0
    package var memoryFilePath: String?
    /// The options given that have no effect here, in order.
    package var ineffective: [String] = []

    package init() {}
}
