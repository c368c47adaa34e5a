// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// What can be set about the embedded store, with its limits.
package struct RocksDBConfiguration: Sendable {
    /// When a write is answered, and what a power loss may take.
    package enum Durability: String, Sendable, CaseIterable {
        /// After one fdatasync for everything that waits. Loses nothing that was answered.
        case sync
        /// As `sync`, but waits ``groupWaitMicroseconds`` for company first: fewer syncs, more latency.
        case group
        /// Before it is synced. A killed process loses nothing; a power loss takes what the kernel had not written.
        case async
    }

    /// The directory of the store; made when it is missing, together with those above it.
    package var path: String
    /// When a write is answered.
    package var durability = Durability.sync
    /// How long `group` waits for more writes, in microseconds: 0 to 2,000.
    package var groupWaitMicroseconds = 1_000
    /// Blocks of the store's files that are kept in memory, in bytes. Indexes and filters count.
    package var blockCacheBytes = 64 << 20
    /// What is collected in memory before it is written as a file, in bytes; there may be three such buffers.
    package var writeBufferBytes = 64 << 20
    /// As ``writeBufferBytes``, for the outbox.
    package var outboxBufferBytes = 16 << 20
    /// Threads that read: 1 to 64.
    package var readerThreads = 2
    /// Reads that wait at most; beyond it they are answered `notSent`.
    package var waitingReadLimit = 65_536
    /// Writes that wait at most; beyond it they are answered `notSent`. As many as the tier lets in, which knows whom
    /// to refuse first.
    package var waitingWriteLimit = 270_336
    /// Keys and values of waiting writes in bytes at most; beyond it they are answered `notSent`, but for deletes.
    package var waitingWriteBytes = 256 << 20
    /// Writes in one commit at most.
    package var commitLimit = 8_192
    /// Keys and values of one commit in bytes, those that it looks at included, after which it takes no more.
    package var commitBytes = 8 << 20
    /// Reads that one reader takes at once: 4 at least.
    package var readBatchLimit = 128
    /// Keys that it looks up at once, whose rows are in memory together however large they are: 1 at least.
    package var lookupRows = 128
    /// About how many bytes of rows one reader takes reads for, and delivers, at once: fewer keys where rows are large.
    package var readBatchBytes = 8 << 20
    /// Rows that one scan looks at at most, live or not: on the way it holds a stop up.
    package var scanLimit = 100_000
    /// How long a read or a write waits at most for a disk that does not answer, in milliseconds; then it is answered
    /// `notSent`. Below the time after which those who asked give up.
    package var waitingMilliseconds = 3_750
    /// How long reads and writes may queue behind others, in nanoseconds, until more are answered `notSent`: half of
    /// ``waitingMilliseconds`` at most; 0 for as long as they may wait at all.
    package var queueTargetNanoseconds = UInt64.max
    /// How long a deleted key is remembered, in milliseconds.
    package var tombstoneMilliseconds: Int64 = 24 * 3_600 * 1_000
    /// After how long a file is rewritten though nothing changed in it, so that what expired leaves it, in seconds.
    package var rewriteSeconds = 7 * 86_400
    /// Whether somebody consumes the outbox. Without a consumer its records are trimmed at once; with one they stay
    /// until ``RocksDBBackend/trimOutbox(slot:through:)``, or until there are more than ``outboxLimitBytes``.
    package var keepsOutbox = false
    /// Files of the outbox in bytes, beyond which its oldest records go though nobody consumed them.
    package var outboxLimitBytes = 4 << 30
    /// How long the outbox keeps records that somebody may still want, in milliseconds; 0 is without end.
    package var outboxKeepMilliseconds: Int64 = 0
    /// Records of the outbox that are kept in memory as well, in bytes.
    package var outboxTailBytes = 32 << 20
    /// Records of one slot that come after the trim cursor's last persisted position at most, without a consumer.
    package var outboxTrimRecords = 16_384
    /// Whether a log that is damaged in the middle is cut there instead of refused: what was acknowledged behind the
    /// damage is given up.
    package var acceptsDamagedLog = false
    /// What this region is called, for the stream's records.
    package var region = ""
    /// What the pools are called, by their numbers, for the stream's records; a missing one is called by its number.
    package var poolNames: [String] = []
    /// Called before the outbox is rewritten, on the thread that does it. Replaced in tests only.
    package var willCompact: @Sendable () -> Void = {}
    /// Called before each commit and before each lookup of reads, on the threads that do them. Replaced in tests only.
    package var willCommit: @Sendable () -> Void = {}
    /// See ``willCommit``.
    package var willRead: @Sendable () -> Void = {}
    /// Milliseconds of Unix time. Replaced in tests only.
    package var now: @Sendable () -> Int64 = { Int64(Clock.realtimeNanoseconds() / 1_000_000) }

    /// The store in the directory `path`, with defaults.
    package init(path: String) { self.path = path }

    /// What is wrong with the settings, in words; nil when nothing is.
    package var complaint: String? {
        if path.isEmpty { return "storage.path is empty: name a directory" }
        if !(0...2_000).contains(groupWaitMicroseconds) { return "the group wait is 0 to 2000 microseconds" }
        if !(1...64).contains(readerThreads) { return "readers are 1 to 64 threads" }
        if blockCacheBytes < 1 << 20 { return "the block cache has at least 1 MiB" }
        if writeBufferBytes < 64 << 10 || outboxBufferBytes < 64 << 10 { return "a write buffer has at least 64 KiB" }
        if waitingReadLimit < 1 || waitingWriteLimit < 1 || commitLimit < 1 || readBatchLimit < 4 || scanLimit < 1 {
            return "queues, commits and scans hold at least 1, lookups 4"
        }
        if lookupRows < 1 { return "a lookup has at least 1 row" }
        if waitingMilliseconds < 1 { return "what waits for the disk waits at least 1 ms" }
        return nil
    }
}
