// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A change of a row that another log of the database tells of: perhaps another program's.
package struct LoggedChange: Sendable, Equatable {
    /// What was done: set, delete, or flush for all rows.
    package var operation: OutboxRecord.Operation
    /// The key; empty for flush.
    package var key: [UInt8]
    /// The row's version behind it, which copies are to show; of a row that is gone, one above its last.
    package var version: Int64
    /// When the row expires, in milliseconds of Unix time; 0 is never.
    package var expiryMilliseconds: Int64
    /// When it was committed, in milliseconds of Unix time.
    package var timeMilliseconds: Int64
    /// Whether it acts whatever version a copy has: the row's version did not grow with it.
    package var isUnconditional: Bool

    /// A change of a key; an empty one for all rows.
    package init(
        _ operation: OutboxRecord.Operation, key: [UInt8], version: Int64, expiryMilliseconds: Int64 = 0,
        timeMilliseconds: Int64, isUnconditional: Bool
    ) {
        self.operation = operation
        self.key = key
        self.version = version
        self.expiryMilliseconds = expiryMilliseconds
        self.timeMilliseconds = timeMilliseconds
        self.isUnconditional = isUnconditional
    }
}

/// Where changes are put that another log of the database tells of, so that the store's own stream has them; and where
/// in that log whoever reads it is. Both are in the database, and change together: no change is passed over, and none
/// comes twice, whichever node reads. Safe to use from any thread; everything blocks.
package protocol ChangeIntake: AnyObject, Sendable {
    /// By partition of a log, the next message to be read; none where nobody read any yet.
    func places(of log: String) throws(StorageFailure) -> [Int: Int64]
    /// Takes the changes of a partition's messages from `place` on, behind which `next` is to be read; nil where nobody
    /// read any yet. Whether it did: not where the place is another one, as another node has read on.
    func take(
        _ changes: [LoggedChange], of log: String, partition: Int, from place: Int64?, to next: Int64
    ) throws(StorageFailure) -> Bool
}
