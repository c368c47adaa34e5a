// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Synchronization
internal import Telemetry

/// A number that any thread adds to and reads.
struct Counter: ~Copyable, Sendable {
    private let number = Atomic<UInt64>(0)

    /// Adds `count`.
    func add(_ count: Int) { number.add(UInt64(count), ordering: .relaxed) }

    /// The sum so far.
    var value: UInt64 { number.load(ordering: .relaxed) }
}

/// What the backend's threads count, for `statistics()`.
final class StorageCounters: Sendable {
    let reads = Counter()
    let readBatches = Counter()
    let readsFound = Counter()
    let readsFailed = Counter()
    let readsRefused = Counter()
    let writes = Counter()
    let writesRefused = Counter()
    let writesFailed = Counter()
    /// Rows that writes looked at.
    let writeLookups = Counter()
    let commits = Counter()
    /// Changes in commits.
    let committed = Counter()
    /// Commits that were synced.
    let syncs = Counter()
    /// Writes that went into synced commits, and those that waited when the commits began.
    let syncedWrites = Counter()
    let leftWaiting = Counter()
    let committedBytes = Counter()
    let checksumErrors = Counter()
    /// How long commits took. Written by the committer alone.
    let commitTimes = LatencyHistogram()
    /// How much of that was writing and syncing the log. Written by the committer alone.
    let logTimes = LatencyHistogram()
}
