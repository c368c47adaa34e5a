// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage
internal import Telemetry

/// What the thread at the door is told of an embedded store: the disk may hold its threads up for as long as it likes.
extension BackendCore: StoreBehindDoor {
    var writeQueues: [SubmissionQueue<Waiting<SubmittedWrite>>] { [writes] }
    var waitingMilliseconds: Int { configuration.waitingMilliseconds }
    var slowReason: String { WorkUnderWay.slow }

    func outage(writes index: Int, nowNanoseconds: UInt64) -> String? {
        work.outageOfCommitter(nowNanoseconds, outageNanoseconds)
    }

    func outageOfReads(nowNanoseconds: UInt64) -> String? {
        work.outageOfReaders(nowNanoseconds, outageNanoseconds)
    }

    func countRefused(reads: Int, writes: Int) {
        counters.readsRefused.add(reads)
        counters.writesRefused.add(writes)
    }
}

/// Since when the threads that use the disk have been at what they are at.
final class WorkUnderWay: Sendable {
    static let slow = "the disk takes too long"

    /// In monotonic nanoseconds; 0 is at nothing. The committer, then the readers.
    private let since: Guarded<[UInt64]>

    init(readers: Int) { since = Guarded([UInt64](repeating: 0, count: 1 + readers)) }

    /// Says that a thread begins something with the disk. Readers count from 0, the committer is -1.
    func begin(_ thread: Int) { since.withLock { $0[thread + 1] = max(1, Clock.monotonicNanoseconds()) } }

    /// Says that it is done.
    func end(_ thread: Int) { since.withLock { $0[thread + 1] = 0 } }

    /// Why what waits for the committer waits in vain: it has been at one commit for longer than `limit`.
    func outageOfCommitter(_ now: UInt64, _ limit: UInt64) -> String? {
        since.withLock { Self.isLong($0[0], now, limit) ? Self.slow : nil }
    }

    /// The same of reads, which any reader may do.
    func outageOfReaders(_ now: UInt64, _ limit: UInt64) -> String? {
        since.withLock { since in since.dropFirst().allSatisfy { Self.isLong($0, now, limit) } ? Self.slow : nil }
    }

    private static func isLong(_ since: UInt64, _ now: UInt64, _ limit: UInt64) -> Bool {
        since > 0 && now > since && now - since > limit
    }
}
