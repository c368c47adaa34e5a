// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a stripe's state machine counts.
struct WriteThroughStatistics: Sendable, Equatable {
    /// Reads that commands asked for, and those that were sent to storage for them.
    var reads: UInt64 = 0
    var readsSent: UInt64 = 0
    /// Reads that joined one in flight, or took the row of a write in flight.
    var joinedReads: UInt64 = 0
    /// Reads for copies behind their time, which nobody waits for.
    var refreshes: UInt64 = 0
    var readsBehindWrites: UInt64 = 0
    /// Reads that found, when they came, that the cache had been filled meanwhile.
    var readsFromCopies: UInt64 = 0
    var writes: UInt64 = 0
    var fills: UInt64 = 0
    var negativeFills: UInt64 = 0
    /// Answers of storage that were not cached, because something arrived meanwhile or the key is uncertain.
    var guardedFills: UInt64 = 0
    var uncachedReads: UInt64 = 0
    var failedReads: UInt64 = 0
    var failedWrites: UInt64 = 0
    var unknownOutcomes: UInt64 = 0
    /// Commands that were refused at a limit or while stopping.
    var refusedReads: UInt64 = 0
    var refusedWrites: UInt64 = 0
    var timedOutReads: UInt64 = 0
    var timedOutWrites: UInt64 = 0
    /// Answers of storage to writes whose time had run out.
    var lateWrites: UInt64 = 0
    var invalidations: UInt64 = 0
    var settlements: UInt64 = 0
    /// Reads that wait now.
    var waiters = 0

    init() {}

    /// Adds another stripe's.
    mutating func add(_ other: WriteThroughStatistics) {
        reads += other.reads
        readsSent += other.readsSent
        joinedReads += other.joinedReads
        refreshes += other.refreshes
        readsBehindWrites += other.readsBehindWrites
        readsFromCopies += other.readsFromCopies
        writes += other.writes
        fills += other.fills
        negativeFills += other.negativeFills
        guardedFills += other.guardedFills
        uncachedReads += other.uncachedReads
        failedReads += other.failedReads
        failedWrites += other.failedWrites
        unknownOutcomes += other.unknownOutcomes
        refusedReads += other.refusedReads
        refusedWrites += other.refusedWrites
        timedOutReads += other.timedOutReads
        timedOutWrites += other.timedOutWrites
        lateWrites += other.lateWrites
        invalidations += other.invalidations
        settlements += other.settlements
        waiters += other.waiters
    }
}

extension WriteThroughStatistics {
    /// The figures by their names, for `stats storage` and /metrics.
    func listed(_ inFlight: (reads: Int, writes: Int, uncertainKeys: Int)) -> [StorageStatistic] {
        func counter(_ name: String, _ value: UInt64, _ help: String) -> StorageStatistic {
            StorageStatistic(name, .counter, Double(value), help)
        }
        func gauge(_ name: String, _ value: Int, _ help: String) -> StorageStatistic {
            StorageStatistic(name, .gauge, Double(value), help)
        }
        return [
            counter("reads", reads, "Reads that commands asked the storage tier for."),
            counter("reads_sent", readsSent, "Reads that were sent to storage."),
            counter("single_flight_savings", joinedReads, "Reads that shared one of others, instead of one more."),
            counter("refreshes", refreshes, "Reads for copies that were shown behind their time."),
            counter("reads_behind_writes", readsBehindWrites, "Reads that waited for a write in flight to their key."),
            counter(
                "reads_from_copies", readsFromCopies, "Reads that found the cache filled when their turn came."),
            counter("reads_failed", failedReads, "Reads that storage answered with an error."),
            counter("reads_refused", refusedReads, "Reads that were refused at a limit, without being sent."),
            counter("reads_timed_out", timedOutReads, "Reads that storage did not answer in time."),
            counter("fills", fills, "Values that reads put in the cache."),
            counter("negative_fills", negativeFills, "Definite \"not found\" that was put in the cache."),
            counter("guarded_fills", guardedFills, "Answers not cached because something arrived for their bucket."),
            counter("uncached_reads", uncachedReads, "Answers not cached because of a write in flight or uncertain."),
            counter("writes", writes, "Writes that commands asked the storage tier for."),
            counter("writes_failed", failedWrites, "Writes that storage answered with an error."),
            counter("writes_refused", refusedWrites, "Writes that were refused at a limit, without being sent."),
            counter("writes_timed_out", timedOutWrites, "Writes that storage did not answer in time."),
            counter("writes_late", lateWrites, "Answers to writes whose time had run out."),
            counter("unknown_outcomes", unknownOutcomes, "Writes of which storage could not say what became of them."),
            counter("settlements", settlements, "Times that storage settled every unknown outcome."),
            counter("invalidations", invalidations, "Keys that something outside invalidated."),
            gauge("waiters", waiters, "Reads that wait for an answer."),
            gauge("reads_in_flight", inFlight.reads, "Reads that storage has not answered."),
            gauge("writes_in_flight", inFlight.writes, "Writes that storage has not answered."),
            gauge("uncertain_keys", inFlight.uncertainKeys, "Keys, and whole stripes, that must not be cached."),
        ]
    }
}
