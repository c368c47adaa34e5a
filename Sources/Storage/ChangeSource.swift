// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A store whose changes can be followed.
package protocol FollowedStore: StorageBackend {
    /// Its changes; nil where it was not told to keep any.
    var changes: (any ChangeSource)? { get }
}

/// The committed changes of a store, in their order within each slot. Safe to use from any thread; only
/// ``records(slot:after:limitBytes:)`` and ``rows(_:limitBytes:valueMax:)`` block.
package protocol ChangeSource: AnyObject, Sendable {
    /// The source, its epoch, and the last number of each slot, as far as is known; nil before the store is open.
    var position: StreamPosition? { get }
    /// The newest changes, in memory.
    var tail: ChangeTail { get }
    /// By slot, the number that the first kept record follows.
    var keptSequences: [Int64] { get }
    /// Begins to find out what is committed by now; ``proof(_:)`` tells.
    func beginProof() -> UInt64
    /// The last numbers of all slots at a moment behind the call that gave `ticket`: everything that was committed
    /// before that call is among them, and in the tail. Nil when that is not known yet.
    func proof(_ ticket: UInt64) -> [Int64]?
    /// Records of a slot behind `sequence`, as far as they are kept. Blocks.
    func records(slot: Int, after sequence: Int64, limitBytes: Int) throws(StorageFailure) -> ChangeSlice
    /// The rows of keys as they are now, live or not; nil for a key that has none. One with a value of more than
    /// `valueMax` bytes comes without it: ``StoredRow/partialLength`` says how long it is. They are those of the first
    /// keys, until their values have `limitBytes` together: of one key at least. Blocks.
    func rows(_ keys: [[UInt8]], limitBytes: Int, valueMax: Int) throws(StorageFailure) -> [StoredRow?]
    /// Nobody needs records up to these numbers any more; they may go.
    func release(through sequences: [Int64])
    /// What the epoch has of the one before it, where a promotion lies between the two.
    var succession: StreamSuccession? { get }
    /// What the last promotion took over, also where the epoch is not the one that it began any more.
    var takeover: StreamSuccession? { get }
}

extension ChangeSource {
    /// A source that does not say otherwise begins anew with each epoch.
    package var succession: StreamSuccession? { nil }
    /// What was taken over is what the epoch goes on behind, where the source does not say otherwise.
    package var takeover: StreamSuccession? { succession }
}

/// Records of one slot, as they stand in the outbox.
package struct ChangeSlice: Sendable {
    /// In their order; the first does not follow what was asked for where that is not kept any more.
    package var records: [ChangeTail.Entry]
    /// Whether there are no more.
    package var isLast: Bool

    /// Records, and whether they are all.
    package init(records: [ChangeTail.Entry], isLast: Bool) {
        self.records = records
        self.isLast = isLast
    }
}
