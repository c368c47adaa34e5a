// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Names a connection of a ``ReactorGroup``: reactor, slot and generation. Never reused while the process lives, short
/// of 2^32 connections in one slot, so a late message cannot reach a stranger.
@usableFromInline
package struct ConnectionID: Hashable, Sendable, BitwiseCopyable {
    /// Reactor in the top 8 bits, slot in the next 24, generation in the low 32; the user word of epoll.
    @usableFromInline package let rawValue: UInt64

    /// How many connections a reactor can hold.
    package static var slotLimit: Int { 1 << 24 }
    /// How many reactors a group can have; the highest value marks the loop's own descriptors.
    package static var reactorLimit: Int { 255 }

    /// The name in a user word of epoll.
    @inlinable @inline(__always)
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The name of a slot's connection.
    @inlinable @inline(__always)
    package init(reactor: Int, slot: Int, generation: UInt32) {
        rawValue =
            UInt64(truncatingIfNeeded: reactor) &<< 56 | UInt64(truncatingIfNeeded: slot) &<< 32
            | UInt64(generation)
    }

    /// The index of the reactor whose connection it is.
    @inlinable package var reactor: Int { @inline(__always) get { Int(truncatingIfNeeded: rawValue &>> 56) } }
    /// A small number, dense from 0, that no other open connection of the same reactor has.
    @inlinable package var slot: Int {
        @inline(__always) get { Int(truncatingIfNeeded: (rawValue &>> 32) & 0xFF_FFFF) }
    }
    /// How often the slot was used before.
    @inlinable package var generation: UInt32 { @inline(__always) get { UInt32(truncatingIfNeeded: rawValue) } }
}
