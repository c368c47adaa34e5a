// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// What can be set about a store behind the PostgreSQL protocol, with its limits.
package struct PostgresConfiguration: Sendable {
    /// Where the database is: a libpq URL or connection string. May hold a password; it is never put in a message.
    package var url: String
    /// What names this node to the database, the same over restarts: the sessions of its earlier processes are found by
    /// it, and ended. Printable ASCII without spaces.
    package var instance = "node"
    /// Connections that write: 1 to 32. A key's writes go over one of them, in their order.
    package var writers = 2
    /// Connections that read: 1 to 64.
    package var readers = 2
    /// How long the server may work on a statement, in milliseconds.
    package var statementTimeoutMilliseconds = 5_000
    /// How long a connection may take to be made, in milliseconds.
    package var connectTimeoutMilliseconds = 5_000
    /// How long a read or a write waits for a connection at most, in milliseconds; then it is answered `notSent`. Below
    /// the time after which those who asked give up.
    package var waitingMilliseconds = 3_750
    /// How long reads and writes may queue behind others, in nanoseconds, until more are answered `notSent`: half of
    /// ``waitingMilliseconds`` at most; 0 for as long as they may wait at all.
    package var queueTargetNanoseconds = UInt64.max
    /// Between the first attempts to connect, in milliseconds; doubled from one to the next.
    package var firstRetryMilliseconds = 50
    /// Between attempts to connect at most, in milliseconds.
    package var lastRetryMilliseconds = 2_000
    /// Reads that wait at most; beyond it they are answered `notSent`.
    package var waitingReadLimit = 65_536
    /// Writes that wait at most for each writer; beyond it they are answered `notSent`.
    package var waitingWriteLimit = 270_336
    /// Keys and values of the writes that wait for each writer, in bytes at most.
    package var waitingWriteBytes = 128 << 20
    /// Writes in one transaction at most.
    package var commitLimit = 1_024
    /// Keys and values of one transaction in bytes, after which it takes no more.
    package var commitBytes = 4 << 20
    /// Keys that one statement reads at most.
    package var readBatchLimit = 128
    /// About how many bytes of rows one statement reads: fewer keys where rows are large, but never below 4.
    package var readBatchBytes = 8 << 20
    /// Whether rows may have more than 1 MiB. Then one statement brings no more than ``readBatchBytes`` and one row,
    /// and the rest is asked for by others.
    package var hasLargeRows = false
    /// How often a transaction is tried that others got in the way of.
    package var conflictTries = 10
    /// How long a deleted key is remembered, in milliseconds.
    package var tombstoneMilliseconds: Int64 = 24 * 3_600 * 1_000
    /// How long a start waits for the sessions of earlier processes to end; then it goes on, and caches nothing until
    /// they are gone, in milliseconds.
    package var earlierSessionsMilliseconds = 2_000
    /// Between deletions of what is over, in milliseconds; the next one comes sooner while there is more of it.
    package var reapMilliseconds = 30_000
    /// Expired rows, and tombstones, that are deleted at once.
    package var reapLimit = 1_000
    /// For how long a refusal of writes counts, after the last one, where a write of nothing is done since, in
    /// milliseconds.
    package var refusalMilliseconds = 10_000
    /// How long the session that dumps and warming read by is kept after the last page, in milliseconds.
    package var scanIdleMilliseconds = 10_000
    /// Whether somebody consumes the outbox; without a consumer nothing is put in it.
    package var keepsOutbox = false
    /// Whether nodes that share the database agree in it on who owns what: writes then go by a `WriteFence`.
    package var isShared = false
    /// Whether a standby will do, which can only be read from.
    package var allowsStandby = false
    /// How long records of the stream are kept, in milliseconds.
    package var streamKeepMilliseconds: Int64 = 3_600_000
    /// About how many bytes of records are kept at most, however young they are.
    package var streamKeepBytes = 4 << 30
    /// Records of the stream that are kept in memory, in bytes.
    package var streamTailBytes = 32 << 20
    /// Records that are published at once.
    package var publishLimit = 4_096
    /// Records of the stream that are let go at once.
    package var trimLimit = 4_096
    /// Between looks for records to publish while there are some, in milliseconds.
    package var publishMilliseconds = 5
    /// The same while there are none.
    package var publishIdleMilliseconds = 20
    /// What this region is called, for the stream's records.
    package var region = ""
    /// What the pools are called, by their numbers, for the stream's records; a missing one is called by its number.
    package var poolNames: [String] = []
    /// Milliseconds of Unix time. Replaced in tests only.
    package var now: @Sendable () -> Int64 = { Int64(Clock.realtimeNanoseconds() / 1_000_000) }

    /// The store at `url`, with defaults.
    package init(url: String) { self.url = url }

    /// What a node at an address is called: of a unix socket it is a path, which may hold what a name may not.
    package static func instance(_ address: String) -> String {
        String(decoding: address.utf8.map { isNameByte($0) ? $0 : UInt8(ascii: "_") }, as: UTF8.self)
    }

    /// Whether a node's name may hold a byte. A space ends the name in that of a session.
    package static func isNameByte(_ byte: UInt8) -> Bool { (33...126).contains(byte) }

    /// What is wrong with the settings, in words; nil when nothing is.
    package var complaint: String? {
        if url.isEmpty { return "storage.url is empty: postgresql://user@host/database" }
        if instance.isEmpty || !instance.utf8.allSatisfy(Self.isNameByte) {
            return "storage.instance: expected printable ASCII without spaces"
        }
        if !(1...32).contains(writers) { return "writers are 1 to 32 connections" }
        if !(1...64).contains(readers) { return "readers are 1 to 64 connections" }
        if statementTimeoutMilliseconds < 1 || connectTimeoutMilliseconds < 1 || waitingMilliseconds < 1 {
            return "timeouts are at least 1 ms"
        }
        if waitingReadLimit < 1 || waitingWriteLimit < 1 || commitLimit < 1 || readBatchLimit < 1 {
            return "queues and batches hold at least 1"
        }
        return nil
    }
}
