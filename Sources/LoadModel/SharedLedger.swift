// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// What all threads of a run know of their writes and deletes: whichever of them wrote a value, any of them can tell
/// that it is stale. Each call takes a short lock that calls for other keys rarely want.
package final class SharedLedger: Sendable {
    private static let shardCount = 64

    private let shards: [Guarded<WriteLedger>]
    /// Whose values its versions are of: another number in each run.
    package let writer: UInt32

    /// An empty one for about `limit` keys.
    package init(writer: UInt32, limit: Int = 1 << 22) {
        self.writer = writer
        shards = (0..<Self.shardCount).map { _ in Guarded(WriteLedger(limit: max(1, limit / Self.shardCount))) }
    }

    private func shard(_ key: UInt64) -> Guarded<WriteLedger> { shards[Int(key >> 32) & (Self.shardCount - 1)] }

    /// A write or a delete of `key` is about to be sent: see ``WriteLedger/send(_:at:)``.
    package func send(_ key: UInt64, at time: UInt64) -> (version: UInt32, supersedes: SupersededVersions) {
        shard(key).withLock { $0.send(key, at: time) }
    }

    /// It took effect.
    package func acknowledge(_ key: UInt64, version: UInt32, supersedes: SupersededVersions, at time: UInt64) {
        shard(key).withLock { $0.acknowledge(key, version: version, supersedes: supersedes, at: time) }
    }

    /// It was answered, and did not take effect.
    package func settle(_ key: UInt64, version: UInt32, at time: UInt64) {
        shard(key).withLock { $0.settle(key, version: version, at: time) }
    }

    /// The versions of `key` that a read sent now must not see any more.
    package func superseded(_ key: UInt64) -> SupersededVersions { shard(key).withLock { $0.superseded(key) } }

    /// What is known of `key`, for a message, with times from `start` on.
    package func history(_ key: UInt64, since start: UInt64) -> String {
        shard(key).withLock { $0.history(key, since: start) }
    }
}
