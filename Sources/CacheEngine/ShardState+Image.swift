// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// A shard's segments on their way to an image and back.
extension ShardState {
    /// Calls `body` for each segment that has items, each queue's oldest first: whether it is in the main queue,
    /// whether it is a large item's, how many items live, and its bytes.
    func forEachImageSegment<E: Error>(
        _ body: (_ isMain: Bool, _ isLarge: Bool, _ liveItems: UInt32, MemoryBlock) throws(E) -> Void
    ) throws(E) {
        for (queue, isMain) in [(small, false), (main, true)] {
            var slot = queue.head
            while slot != 0 {
                let segment = segments[Int(slot)]
                if segment.liveItems > 0 {
                    let block = segment.block.slice(0, Int(segment.usedBytes))
                    try body(isMain, segment.isLarge, segment.liveItems, block)
                }
                slot = segment.next
            }
        }
    }

    /// Memory for a segment of an image; nil when it cannot be one of this shard, or there is none left.
    func blockForImage(_ segment: ImageSegment) -> MemoryBlock? {
        let used = Int(segment.usedBytes)
        guard used >= 16, hasFreeSlot else { return nil }
        if segment.isLarge { return used <= itemSizeMax + 1024 ? memory.allocateLarge(memory.largeSize(used)) : nil }
        return used <= segmentBytes ? memory.allocate() : nil
    }

    /// Takes a segment of an image in: at the tail of its queue, its living items in the index. False when its bytes
    /// are not what they should be; the shard must be emptied then. The block is the shard's in any case.
    mutating func adoptImage(_ segment: ImageSegment, _ block: MemoryBlock, isOwn: (UInt64) -> Bool) -> Bool {
        budget.charge(block.count)
        let slot = adopt(block, isLarge: segment.isLarge, place: segment.isMain ? .main : .small)
        let index = Int(slot)
        let used = Int(segment.usedBytes)
        segments[index].usedBytes = segment.usedBytes
        let indexBytes = self.index.byteCount
        var offset = 0
        while offset < used {
            guard used - offset >= 16 else { break }
            let location = slot << segmentShift | UInt32(truncatingIfNeeded: offset)
            let item = Item(block: block.slice(offset, used - offset), location: location)
            let header = Item.headerSize(item.word)
            guard header <= used - offset, item.keyLength > 0, item.size <= used - offset,
                !segment.isLarge || offset == 0
            else { break }
            if item.word & Item.Mark.dead != 0 {
                deadBytes += item.size
            } else {
                let hash = hashKey(of: item)
                guard isOwn(hash) else { break }
                self.index.insert(hash, location)
                segments[index].liveItems += 1
                segments[index].liveBytes += UInt32(item.size)
                segments[index].noteExpiry(item.expiry)
                statistics.items += 1
                statistics.itemBytes += item.size
            }
            offset += item.size
        }
        // Of a damaged one nobody knows what is in the rest.
        deadBytes += used - offset
        budget.chargeIndex(self.index.byteCount - indexBytes)
        return offset == used && segments[index].liveItems == segment.liveItems
    }
}
