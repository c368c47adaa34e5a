// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Entries that say that there is no item.
extension ShardState {
    /// Notes, in the place of whatever the cache holds of the key, that the store behind it has no such row until
    /// `expiry`, in the engine's seconds. False when there is no room; the key is forgotten then. May reclaim.
    package mutating func noteAbsent(_ hash: UInt64, key: Span<UInt8>, expiry: UInt32, now: UInt32) -> Bool {
        let old = find(hash, key, now: now)
        let shape = ItemShape(keyLength: key.count, valueLength: 0, clientFlags: 0, expiry: expiry)
        guard var item = create(hash, key: key, shape, version: 0, now: now, replacing: old) else {
            if let rest = find(hash, key, now: now) { remove(rest, hash) }
            return false
        }
        item.setAbsent()
        return true
    }
}
