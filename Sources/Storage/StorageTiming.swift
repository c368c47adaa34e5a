// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a backend spent on a batch of reads or writes, in monotonic nanoseconds: who asked tells from it what of the
/// time went by in the queue, at the disk or the server, and in the log.
package struct StorageTiming: BitwiseCopyable, Sendable, Equatable {
    /// When the batch was taken out of the queue.
    package var takenNanoseconds: UInt64
    /// When what the batch is for began: the commit, or the look-up; 0 where nothing was to be done.
    package var beganNanoseconds: UInt64
    /// When it was over.
    package var endedNanoseconds: UInt64
    /// How much of that, from its beginning on, was writing and syncing the log; 0 where nobody knows.
    package var logNanoseconds: UInt64
    /// How many reads or writes had it in common.
    package var count: UInt32
    /// Whether it was a batch of writes.
    package var isCommit: Bool

    /// The times of a batch.
    package init(taken: UInt64, began: UInt64, ended: UInt64, log: UInt64 = 0, count: Int, isCommit: Bool) {
        self.isCommit = isCommit
        takenNanoseconds = taken
        beganNanoseconds = began
        endedNanoseconds = ended
        logNanoseconds = log
        self.count = UInt32(clamping: count)
    }
}
