// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// What dumps and statistics read of an item, under its shard's lock.
extension Item {
    /// Whether the item's bytes are there and the item is not: it was overwritten, deleted or moved.
    var isDead: Bool { word & Mark.dead != 0 }

    /// Whether the item's time is over at `now`, in the engine's seconds.
    package func isExpired(now: UInt32) -> Bool {
        let expiry = expiry
        return expiry != 0 && expiry <= now
    }

    /// Runs `body` with the item's key.
    package func withKey<R>(_ body: (Span<UInt8>) -> R) -> R {
        bytes.slice(keyOffset, keyLength).withSpan(body)
    }
}
