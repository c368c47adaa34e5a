// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Entries that say that there is no item. Those that a client was told to replace are leases: they may outlive what is
/// known of the absence, whose end is where other items have their flags.
extension Item {
    /// What a lease has for the end of what is known, where nothing is.
    package static var unknownAbsence: UInt32 { 1 }

    /// Whether it says at `now` that the store has no such row: a lease may have forgotten.
    package func saysAbsent(now: UInt32) -> Bool {
        guard isAbsent else { return false }
        let end = clientFlags
        return end == 0 || end > now
    }

    /// Until when it says so, in the engine's seconds.
    package var absenceEnd: UInt32 { clientFlags == 0 ? expiry : clientFlags }

    /// Whether a client was told to replace it.
    package var isLease: Bool { isAbsent && isTokenSent && word & Mark.hasFlags != 0 }

    /// Gives a lease another end of what is known.
    package func setAbsence(until end: UInt32) {
        precondition(word & Mark.hasFlags != 0, "an entry without a field for it")
        block.store(end, at: word & Mark.hasExpiry != 0 ? 20 : 16)
    }
}

extension ShardState {
    /// Notes, in the place of whatever the cache holds of the key, that the store behind it has no such row until
    /// `expiry`, in the engine's seconds. A lease goes on, and knows that too. False when there is no room; the key is
    /// forgotten then. May reclaim.
    package mutating func noteAbsent(_ hash: UInt64, key: Span<UInt8>, expiry: UInt32, now: UInt32) -> Bool {
        let old = find(hash, key, now: now)
        if let old, old.isLease {
            old.setAbsence(until: expiry)
            return true
        }
        let shape = ItemShape(keyLength: key.count, valueLength: 0, clientFlags: 0, expiry: expiry)
        guard var item = create(hash, key: key, shape, version: 0, now: now, replacing: old) else {
            if let rest = find(hash, key, now: now) { remove(rest, hash) }
            return false
        }
        item.setAbsent()
        return true
    }

    /// Forgets the key, but for a lease, which forgets that there is no row.
    package mutating func forgetRow(_ hash: UInt64, key: Span<UInt8>, now: UInt32) {
        guard let item = find(hash, key, now: now) else { return }
        if item.isLease {
            item.setAbsence(until: Item.unknownAbsence)
        } else {
            remove(item, hash)
        }
    }
}
