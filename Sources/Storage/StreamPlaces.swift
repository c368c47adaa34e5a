// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform

/// A place in one slot of a stream.
package struct StreamPlace: Sendable, Equatable, BitwiseCopyable {
    /// What tells a source's epoch from all others.
    package var numbering: UInt64
    /// The last sequence number.
    package var sequence: Int64

    /// A place by these numbers.
    package init(numbering: UInt64, sequence: Int64) {
        self.numbering = numbering
        self.sequence = sequence
    }

    /// The place behind a sequence number of a source's epoch.
    package init(source: String, epoch: Int64, sequence: Int64) {
        numbering = stableHash(Array(source.utf8).span, seed: UInt64(bitPattern: epoch))
        self.sequence = sequence
    }

    /// Whether whoever came this far has all that is up to `other`.
    package func covers(_ other: StreamPlace) -> Bool {
        numbering == other.numbering && sequence >= other.sequence
    }
}

/// How far a node has followed the stream, by slot: what it was told of, before that acts on copies, and what has acted
/// on them (docs/contract.md, 12). Safe to use from any thread.
///
/// What a node reads at home says how far it was told, and is answered from a copy only where home's node has done as
/// much: a fill that is sent behind a record's action finds what the record is about.
package final class StreamPlaces: Sendable {
    private let state = Guarded(State())

    private struct State {
        var told = [StreamPlace?](repeating: nil, count: StreamSlots.count)
        var done = [StreamPlace?](repeating: nil, count: StreamSlots.count)
        /// Slots of which something has acted that was not told of in them yet.
        var held: UInt64 = 0
    }

    /// Nothing was told yet.
    package init() {}

    /// Records up to a position are about to act, or were passed over. Of the slots of `ahead` more has acted than
    /// that, or is about to: they have no place.
    package func tell(_ position: StreamPosition, ahead: UInt64 = 0) {
        var places = Self.places(position)
        for slot in StreamSlots.each(ahead) { places[slot] = nil }
        state.withLock { [places] in $0.told = places }
    }

    /// The same of one slot; nil where its place is not known.
    package func tell(_ place: StreamPlace?, slot: Int) { state.withLock { $0.told[slot] = place } }

    /// Records up to a position have acted.
    package func did(_ position: StreamPosition) {
        let places = Self.places(position)
        state.withLock { $0.done = places }
    }

    /// Of these slots, and no others, something has acted that their places do not show.
    package func hold(_ slots: UInt64) { state.withLock { $0.held = slots } }

    /// How far the node was told in a key's slot; nil where that is not known, or does not show all that acted.
    package func told(of key: Span<UInt8>) -> StreamPlace? {
        let slot = StreamSlots.slot(keyHash: stableHash(key))
        return state.withLock { $0.held & StreamSlots.mask(slot) == 0 ? $0.told[slot] : nil }
    }

    /// Whether all that is up to a place in a key's slot has acted here.
    package func hasDone(_ place: StreamPlace, of key: Span<UInt8>) -> Bool {
        let slot = StreamSlots.slot(keyHash: stableHash(key))
        return state.withLock { $0.done[slot] }?.covers(place) ?? false
    }

    private static func places(_ position: StreamPosition) -> [StreamPlace?] {
        let first = StreamPlace(source: position.source, epoch: position.epoch, sequence: 0)
        return position.sequences.map { StreamPlace(numbering: first.numbering, sequence: $0) }
    }
}
