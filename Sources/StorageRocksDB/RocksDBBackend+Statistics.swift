// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage
package import Telemetry

extension RocksDBBackend: DurationSource {
    /// Counters and gauges; names say their units.
    package func statistics() -> [StorageStatistic] {
        let figures = queueStatistics() + commitStatistics() + ((try? guests.use { databaseStatistics($0) }) ?? [])
        return figures.map { StorageStatistic("rocksdb_\($0.name)", $0.kind, $0.value, $0.help) }
    }

    /// How long commits took, and how much of that was the log.
    package func durations() -> [NamedDurations] {
        var commits = NamedDurations("rocksdb_commit", things: "commits", "Time in commits.")
        core.counters.commitTimes.add(to: &commits.summary)
        var log = NamedDurations("rocksdb_log", things: "log writes", "Time in writing and syncing the log.")
        core.counters.logTimes.add(to: &log.summary)
        return [commits, log]
    }

    private func queueStatistics() -> [StorageStatistic] {
        let counters = core.counters
        return [
            counter("reads", counters.reads, "Rows that were looked up for reads."),
            counter("read_batches", counters.readBatches, "Lookups of several rows together."),
            counter("reads_found", counters.readsFound, "Reads that found a live row."),
            counter("reads_failed", counters.readsFailed, "Reads that failed, damaged rows included."),
            counter("reads_refused", counters.readsRefused, "Reads that found no room in the queue."),
            StorageStatistic("reads_waiting", .gauge, Double(core.reads.count), "Reads that wait for a reader."),
            StorageStatistic(
                "reads_waiting_limit", .gauge, Double(core.reads.waitingLimit.count),
                "How many reads may wait: fewer while a queue stands."),
            StorageStatistic(
                "reads_limited", .counter, Double(core.reads.waitingLimit.entries),
                "Times that fewer reads may wait because a queue stood."),
            counter("writes", counters.writes, "Writes that were answered, those that changed nothing included."),
            counter(
                "writes_refused", counters.writesRefused, "Writes that found no room, or a store that is read-only."),
            counter("writes_failed", counters.writesFailed, "Writes whose commit failed."),
            StorageStatistic("writes_waiting", .gauge, Double(core.writes.count), "Writes that wait for a commit."),
            StorageStatistic(
                "writes_waiting_limit", .gauge, Double(core.writes.waitingLimit.count),
                "How many writes may wait: fewer while a queue stands."),
            StorageStatistic(
                "writes_limited", .counter, Double(core.writes.waitingLimit.entries),
                "Times that fewer writes may wait because a queue stood."),
            counter("write_lookups", counters.writeLookups, "Rows that were looked up to decide writes."),
            counter("checksum_errors", counters.checksumErrors, "Damaged rows that were met."),
        ]
    }

    private func commitStatistics() -> [StorageStatistic] {
        let counters = core.counters
        return [
            counter("commits", counters.commits, "Batches that were committed."),
            counter("committed_writes", counters.committed, "Changes in commits."),
            counter("committed_bytes", counters.committedBytes, "Keys, values and records in commits."),
            counter("syncs", counters.syncs, "Commits that were synced to the disk."),
            counter("synced_writes", counters.syncedWrites, "Changes in synced commits."),
            counter("sync_left_waiting", counters.leftWaiting, "Writes that waited while a synced commit began."),
        ]
    }

    private func databaseStatistics(_ database: RocksDatabase) -> [StorageStatistic] {
        func gauge(
            _ name: String, _ family: RocksDatabase.Family, _ property: String, _ help: String
        ) -> StorageStatistic {
            StorageStatistic(name, .gauge, Double(database.property(family, "rocksdb." + property)), help)
        }
        return [
            counter("expired_reaped", core.rules.expired, "Expired rows that left the files."),
            counter("tombstones_reaped", core.rules.tombstones, "Tombstones that left the files."),
            counter("outbox_dropped", core.cursors.dropped, "Trimmed records that left the files."),
            gauge("rows_estimate", .rows, "estimate-num-keys", "About how many rows there are."),
            gauge("rows_bytes", .rows, "live-sst-files-size", "Files of rows in bytes."),
            gauge("rows_memory_bytes", .rows, "cur-size-all-mem-tables", "Rows in memory that are not in files yet."),
            StorageStatistic(
                "outbox_backlog", .gauge, Double(core.cursors.keptCount),
                "Records of the outbox that are kept: for those who have not had them, or for a start to go on from."),
            gauge("outbox_bytes", .outbox, "live-sst-files-size", "Files of the outbox in bytes."),
            gauge("block_cache_bytes", .rows, "block-cache-usage", "Blocks of files in memory."),
            gauge("compaction_pending_bytes", .rows, "estimate-pending-compaction-bytes", "What is to be rewritten."),
            gauge("compactions_running", .rows, "num-running-compactions", "Rewrites that run."),
            gauge("flushes_running", .rows, "num-running-flushes", "Buffers that are being written to files."),
            gauge(
                "write_delay_bytes_per_second", .rows, "actual-delayed-write-rate", "What writes are slowed to; 0: not."
            ),
            gauge("write_stopped", .rows, "is-write-stopped", "Whether writes are stopped until files are rewritten."),
            gauge("background_errors", .unused, "background-errors", "Failures while files were written."),
        ]
    }

    private func counter(_ name: String, _ value: borrowing SharedCounter, _ help: String) -> StorageStatistic {
        StorageStatistic(name, .counter, Double(value.value), help)
    }
}
