// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage

/// Whose cached copies a stream keeps fresh. Called on the stream's thread, one call at a time.
package protocol StreamConsumer: AnyObject, Sendable {
    /// Records up to a position are about to be applied, or their slots to be quarantined. Of the slots of `ahead` more
    /// has been applied than that, or is about to be.
    func reaching(_ position: StreamPosition, ahead: UInt64)
    /// The same of one slot, where slots have numberings of their own; nil where no place shows all that.
    func reaching(_ place: StreamPlace?, slot: Int)
    /// Records up to a position were applied, or their slots quarantined.
    func reached(_ position: StreamPosition)
    /// A key changed: see ``FollowerAction/apply(_:)``.
    func apply(_ record: OutboxRecord)
    /// What is cached of the slots of the mask may be stale: see ``FollowerAction/quarantine(_:)``.
    func quarantine(_ mask: UInt64)
    /// The stream was complete at a reading of the monotonic clock.
    func proved(_ nanoseconds: UInt64)
    /// What is cached of keys, as clients would see it, a report for each; with what is remembered of them where
    /// `explains` says so.
    func look(_ keys: [[UInt8]], explains: Bool) -> [CopyReport]
    /// What was cached since a reading of that clock may be of what a promotion has lost; everything, where nil.
    func doubt(since nanoseconds: UInt64?)
}

/// A stream that cannot be started, and why.
package struct StreamStartError: Error, Sendable, CustomStringConvertible {
    package let description: String

    /// An error in words that name the setting it is about.
    package init(description: String) { self.description = description }
}

/// What comes of asking a source for records that a broker does not have any more.
package enum RepairItem: Sendable, Equatable {
    /// The source goes on behind this position, which is what was asked for where it still has that.
    case began(StreamPosition)
    /// A record.
    case record(OutboxRecord)
    /// The records of a slot up to a number are gone.
    case lost(slot: Int, through: Int64)
    /// There is no answer, for this reason; it is tried again.
    case failed(String)
}

/// Gets records from their source itself. Safe to use from any thread.
package protocol StreamRepairer: AnyObject, Sendable {
    /// Asks the source for what follows a position, in place of what was asked for before; nil asks for nothing more.
    func repair(_ position: StreamPosition?)
    /// How far the consumer is, by slot: the epoch, and the last number up to which it has everything; nil where that
    /// is not known. For those who ask what it has cached.
    func reached(_ places: [(epoch: Int64, sequence: Int64)?])
    /// What came since the last call, of the position that was asked for last.
    func takeRepaired() -> [RepairItem]
}
