// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage

/// Whose heartbeats count for who follows a stream through a broker.
package enum BrokerHome: Sendable, Equatable {
    /// The home region is always the same: those of the newest numbering.
    case fixed
    /// Nobody's: the node is between two homes.
    case none
    /// Those that name this promotion, which the node has turned to.
    case term(HomeTerm)
}

/// What a heartbeat through a broker says of the home that it is of, and what that has of its slot's numbering before.
package struct HeartbeatHome: Sendable, Equatable {
    /// Which region is home, and since when.
    package var term: HomeTerm
    /// The epoch that its own follows; nil where no promotion lies between.
    package var previous: Int64?
    /// The last number of that epoch that was taken over.
    package var included: Int64 = 0
    /// Whether nothing was acknowledged that was not.
    package var isWhole = true

    /// What the home of `term` says in a slot.
    package init(_ term: HomeTerm, _ succession: StreamSuccession?, slot: Int) {
        self.term = term
        guard let succession else { return }
        (previous, included, isWhole) = (succession.previous, succession.included[slot], succession.isWhole)
    }

    /// What a heartbeat says; nil where it says nothing of that.
    package init?(_ record: OutboxRecord) {
        let parts = record.position.split(separator: ".", omittingEmptySubsequences: false).map { Int64($0) }
        guard let epoch = parts.first ?? nil, epoch >= 0 else { return nil }
        term = HomeTerm(epoch: epoch, region: record.region)
        if parts.count == 1 { return }
        guard parts.count == 4, let previous = parts[1], let included = parts[2], let whole = parts[3], previous >= 0,
            (0...OutboxRecord.sequenceMax).contains(included), whole == 0 || whole == 1
        else { return nil }
        (self.previous, self.included, isWhole) = (previous, included, whole == 1)
    }

    /// What stands in the heartbeat's `position`, beside the region in its own field.
    package var position: String {
        previous.map { "\(term.epoch).\($0).\(included).\(isWhole ? 1 : 0)" } ?? "\(term.epoch)"
    }
}
