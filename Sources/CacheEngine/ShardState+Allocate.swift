// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

extension ShardState {
    /// Room for `size` bytes at the tail of a queue: the location, or nil when the shard cannot make room by itself.
    ///
    /// May reclaim: items found before may have moved or gone when `relocations` changed.
    mutating func allocate(_ size: Int, toMain: Bool, now: UInt32) -> UInt32? {
        if size >= largeItemBytes { return allocateLarge(size, toMain: toMain, now: now) }
        let open = toMain ? openMain : openSmall
        if open != 0, let location = take(size, from: open) { return location }
        return allocateInFresh(size, toMain: toMain, now: now)
    }

    private mutating func take(_ size: Int, from slot: UInt32) -> UInt32? {
        let used = Int(segments[Int(slot)].usedBytes)
        guard used + size <= segmentBytes else { return nil }
        segments[Int(slot)].usedBytes = UInt32(used + size)
        segments[Int(slot)].liveBytes += UInt32(size)
        segments[Int(slot)].liveItems += 1
        return slot << segmentShift | UInt32(used)
    }

    private mutating func allocateInFresh(_ size: Int, toMain: Bool, now: UInt32) -> UInt32? {
        var attempts = 0
        while true {
            // Reclaiming may have opened a segment for what it kept: its room comes first.
            let open = toMain ? openMain : openSmall
            if open != 0 {
                if let location = take(size, from: open) { return location }
                if toMain { openMain = 0 } else { openSmall = 0 }
                close(open)
            }
            // Index and ghost may have grown past the budget meanwhile: then the spare goes back first.
            if spare != nil, budget.isExceeded { dropSpare() }
            if hasFreeSlot, spare != nil || budget.tryCharge(segmentBytes) {
                guard let block = takeSegmentBlock() else {
                    budget.charge(-segmentBytes)
                    return nil
                }
                let slot = adopt(block, isLarge: false, place: toMain ? .main : .small)
                if toMain { openMain = slot } else { openSmall = slot }
                return take(size, from: slot)
            }
            attempts += 1
            guard reclaimOne(now: now, force: attempts > reclaimAttemptsMax) else { return nil }
        }
    }

    /// Memory for a segment that is charged already.
    private mutating func takeSegmentBlock() -> MemoryBlock? {
        defer { spare = nil }
        return spare ?? memory.allocate()
    }

    /// A segment that is no longer written to is released as soon as nothing in it lives.
    private mutating func close(_ slot: UInt32) {
        guard slot != 0, segments[Int(slot)].liveItems == 0 else { return }
        release(slot)
    }

    private mutating func allocateLarge(_ size: Int, toMain: Bool, now: UInt32) -> UInt32? {
        guard let block = acquire(memory.largeSize(size), now: now) else { return nil }
        return adoptLarge(block, size: size, toMain: toMain)
    }

    /// Makes a block that holds one large item a segment of this shard.
    mutating func adoptLarge(_ block: MemoryBlock, size: Int, toMain: Bool) -> UInt32 {
        let slot = adopt(block, isLarge: true, place: toMain ? .main : .small)
        segments[Int(slot)].usedBytes = UInt32(size)
        segments[Int(slot)].liveBytes = UInt32(size)
        segments[Int(slot)].liveItems = 1
        return slot << segmentShift
    }

    /// Memory within the budget, for which the shard gives up its own oldest segments when it must.
    private mutating func acquire(_ bytes: Int, now: UInt32) -> MemoryBlock? {
        var attempts = 0
        while !hasFreeSlot || !budget.tryCharge(bytes) {
            attempts += 1
            if dropSpare() { continue }
            guard reclaimOne(now: now, force: attempts > reclaimAttemptsMax) else { return nil }
        }
        guard let block = memory.allocateLarge(bytes) else {
            budget.charge(-bytes)
            return nil
        }
        return block
    }

    /// Room for an item that a reclaim keeps. Goes past the budget for the moment: the reclaimed segment follows.
    mutating func allocateForSurvivor(_ size: Int, toMain: Bool) -> UInt32? {
        let open = toMain ? openMain : openSmall
        if open != 0, let location = take(size, from: open) { return location }
        guard hasFreeSlot else { return nil }
        let isCharged = spare != nil
        guard let block = takeSegmentBlock() else { return nil }
        if !isCharged { budget.charge(segmentBytes) }
        let slot = adopt(block, isLarge: false, place: toMain ? .main : .small)
        if toMain { openMain = slot } else { openSmall = slot }
        return take(size, from: slot)
    }
}
