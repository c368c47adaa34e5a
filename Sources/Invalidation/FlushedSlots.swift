// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// What is removed when records come that empty caches. Such a record is in each slot, as slots are not ordered among
/// each other: the first removes everything, and that of each other slot what was cached of the slot since by records
/// that are from before it. Pure.
package struct FlushedSlots: Sendable {
    /// What is to be removed.
    package enum Removal: Sendable, Equatable {
        /// Everything.
        case everything
        /// The copies of these keys.
        case keys([[UInt8]])
    }

    private let keysMax: Int
    /// The version of the last that came.
    private var version: UInt64?
    /// Slots of which it did not come yet.
    private var pending: UInt64 = 0
    /// Keys of these slots that records' values were cached of since.
    private var cached: [Int: [[UInt8]]] = [:]
    private var count = 0
    /// There were more of them.
    private var isOver = false

    /// Nothing came yet. At most `keysMax` keys are remembered: where there are more, everything is removed once more.
    package init(keysMax: Int = 10_000) { self.keysMax = keysMax }

    /// Slots of which the last such record did not come yet.
    package var waiting: UInt64 { pending }

    /// The record of a slot came.
    package mutating func flushed(_ slot: Int, version: UInt64) -> Removal {
        let mask = StreamSlots.mask(slot)
        guard self.version == version, pending & mask != 0 else {
            (self.version, pending) = (version, StreamSlots.all & ~mask)
            forget()
            return .everything
        }
        pending &= ~mask
        if isOver {
            forget()
            return .everything
        }
        let keys = cached.removeValue(forKey: slot) ?? []
        count -= keys.count
        return .keys(keys)
    }

    /// A record's value is about to be cached.
    package mutating func willCache(_ key: [UInt8], slot: Int) {
        guard pending & StreamSlots.mask(slot) != 0, !isOver else { return }
        guard count < keysMax else {
            forget()
            isOver = true
            return
        }
        count += 1
        cached[slot, default: []].append(key)
    }

    /// All copies of the slots of a mask were given up for another reason, and their records may never come. Those that
    /// do come remove everything.
    package mutating func passedOver(_ mask: UInt64) {
        pending &= ~mask
        for slot in Array(cached.keys) where mask & StreamSlots.mask(slot) != 0 {
            count -= cached.removeValue(forKey: slot)?.count ?? 0
        }
    }

    private mutating func forget() { (cached, count, isOver) = ([:], 0, false) }
}
