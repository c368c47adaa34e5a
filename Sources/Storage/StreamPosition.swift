// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The partitions of a stream: a key's slot is its stable hash modulo 64, in every region.
package enum StreamSlots {
    /// How many there are.
    package static let count = 64
    /// A mask of all of them.
    package static let all = UInt64.max

    /// The slot of a key whose stable hash is `keyHash`.
    package static func slot(keyHash: UInt64) -> Int { Int(truncatingIfNeeded: keyHash % UInt64(count)) }

    /// The mask of one slot.
    package static func mask(_ slot: Int) -> UInt64 { 1 << UInt64(slot) }

    /// The slots of a mask, lowest first. Allocates nothing.
    package static func each(_ mask: UInt64) -> Members { Members(rest: mask) }

    /// Slots of a mask that are still to come.
    package struct Members: Sequence, IteratorProtocol, Sendable {
        fileprivate var rest: UInt64

        /// The next of them.
        package mutating func next() -> Int? {
            guard rest != 0 else { return nil }
            defer { rest &= rest &- 1 }
            return rest.trailingZeroBitCount
        }
    }
}

/// How far a stream was followed, or goes: for each slot of one epoch of one source, the last sequence number.
package struct StreamPosition: Sendable, Equatable {
    /// The outbox that the numbers belong to.
    package var source: String
    /// Which of its numberings; grows when the source cannot go on where it was.
    package var epoch: Int64
    /// By slot; 0 before the first record.
    package var sequences: [Int64]

    /// A position in an epoch of a source. There are as many numbers as slots.
    package init(source: String, epoch: Int64, sequences: [Int64]) {
        precondition(sequences.count == StreamSlots.count, "a position has a number for each slot")
        self.source = source
        self.epoch = epoch
        self.sequences = sequences
    }

    /// Whether the numbers of both mean the same: they are of one epoch of one source.
    package func isNumbered(as other: StreamPosition) -> Bool { source == other.source && epoch == other.epoch }

    /// Whether it says more of the same source than `other`, in any slot or by its epoch.
    package func isAhead(of other: StreamPosition) -> Bool {
        guard source == other.source, epoch == other.epoch else {
            return source == other.source && epoch > other.epoch
        }
        return (0..<StreamSlots.count).contains { sequences[$0] > other.sequences[$0] }
    }
}
