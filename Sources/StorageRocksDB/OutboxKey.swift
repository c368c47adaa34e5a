// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// The key of a record in the column family `outbox`: the slot, then the sequence number with its highest byte first,
/// so that the records of a slot lie in their order.
enum OutboxKey {
    /// How many slots the stream has: docs/contract.md, slot.
    static let slots = 64
    /// Bytes in a key.
    static let bytes = 9

    /// The slot of a key whose stable hash is `keyHash`.
    static func slot(keyHash: UInt64) -> Int { Int(truncatingIfNeeded: keyHash % UInt64(slots)) }

    /// The key of record `sequence` of `slot`, in place of what is in `key`.
    static func encode(slot: Int, sequence: UInt64, into key: inout [UInt8]) {
        key.removeAll(keepingCapacity: true)
        key.append(UInt8(truncatingIfNeeded: slot))
        for shift in stride(from: 56, through: 0, by: -8) {
            key.append(UInt8(truncatingIfNeeded: sequence >> UInt64(shift)))
        }
    }

    /// The slot and the sequence number of a key; nil when it is none.
    static func decode(_ key: Span<UInt8>) -> (slot: Int, sequence: UInt64)? {
        guard key.count == bytes, key[0] < UInt8(slots) else { return nil }
        return (Int(key[0]), key.bigEndian(at: 1, as: UInt64.self))
    }
}

/// The stable hash of a key, which gives its slot and ties its row's checksum to it.
func hash(of key: [UInt8]) -> UInt64 { stableHash(key.span) }
