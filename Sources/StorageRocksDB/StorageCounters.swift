// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Telemetry

/// What the backend's threads count, for `statistics()`.
final class StorageCounters: Sendable {
    let reads = SharedCounter()
    let readBatches = SharedCounter()
    let readsFound = SharedCounter()
    let readsFailed = SharedCounter()
    let readsRefused = SharedCounter()
    let writes = SharedCounter()
    let writesRefused = SharedCounter()
    let writesFailed = SharedCounter()
    /// Rows that writes looked at.
    let writeLookups = SharedCounter()
    let commits = SharedCounter()
    /// Changes in commits.
    let committed = SharedCounter()
    /// Commits that were synced.
    let syncs = SharedCounter()
    /// Writes that went into synced commits, and those that waited when the commits began.
    let syncedWrites = SharedCounter()
    let leftWaiting = SharedCounter()
    let committedBytes = SharedCounter()
    let checksumErrors = SharedCounter()
    /// How long commits took. Written by the committer alone.
    let commitTimes = DurationRecord()
    /// How much of that was writing and syncing the log. Written by the committer alone.
    let logTimes = DurationRecord()
}
