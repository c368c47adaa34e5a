// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory
internal import Platform

/// One shard's items, index and queues. Everything here happens under the shard's lock.
///
/// New items go to the tail of the small queue's open segment. Reclaiming takes the oldest segment of a queue: items
/// read since move to the main queue, the others leave (see ShardState+Reclaim). An ``Item`` or position found earlier
/// is valid until the next call that may reclaim; those calls say so.
@usableFromInline
package struct ShardState: ~Copyable {
    @usableFromInline var index: Index
    @usableFromInline var segments: Table<Segment>
    /// Where the segments lie, for prefetching without the lock.
    @usableFromInline var segmentHints: AddressTable
    @usableFromInline let segmentShift: UInt32
    @usableFromInline let hashSeed: UInt64
    @usableFromInline package var statistics = ShardStatistics()

    let segmentBytes: Int
    let largeItemBytes: Int
    let number: Int
    let evicts: Bool
    let itemSizeMax: Int
    @usableFromInline let lingerSeconds: UInt32
    let smallQueuePercent: Int
    let reclaimAttemptsMax: Int
    let compactionCandidatesMax: Int
    /// The segment that was looked at last for compaction.
    var compactionCursor = 0
    let budget: Budget
    let evictionLog: EvictionLog
    /// Where a flush leaves its segments for a thread that may block.
    let dropped: Guarded<[SegmentMemory.Freed]>
    /// Whether segments are left there rather than freed.
    var leavesSegments = false
    let memory: SegmentMemory
    var ghost: Ghost
    var small = SegmentQueue()
    var main = SegmentQueue()
    /// The segments that new items are written to; 0 when none is open.
    var openSmall: UInt32 = 0
    var openMain: UInt32 = 0
    var freeSlots: UInt32 = 0
    /// A segment's memory between two uses.
    var spare: MemoryBlock?
    /// Bytes in segments that no live item uses.
    var deadBytes = 0
    /// Counts reclaims: an Item found before the count changed may have moved.
    var relocations: UInt64 = 0

    init(
        number: Int, configuration: EngineConfiguration, budget: Budget, evictionLog: EvictionLog,
        dropped: Guarded<[SegmentMemory.Freed]>, memory: SegmentMemory,
        indexArena: Arena, chunks: ChunkPool
    ) {
        self.evictionLog = evictionLog
        self.dropped = dropped
        self.number = number
        self.budget = budget
        self.memory = memory
        index = Index(chunks: chunks)
        ghost = Ghost(arena: indexArena)
        segmentBytes = configuration.effectiveSegmentBytes
        segmentShift = UInt32(segmentBytes.trailingZeroBitCount)
        largeItemBytes = min(segmentBytes / 4, 32 << 10)
        hashSeed = configuration.hashSeed
        evicts = configuration.evicts
        itemSizeMax = configuration.itemSizeMax
        lingerSeconds = configuration.lingerSeconds
        smallQueuePercent = configuration.smallQueuePercent
        reclaimAttemptsMax = configuration.reclaimAttemptsMax
        compactionCandidatesMax = configuration.compactionCandidatesMax
        segments = Table(capacity: 64)
        segmentHints = AddressTable(capacity: 64, blockBytes: segmentBytes)
        // Slot 0 stands for "none", and location 0 for an empty place in the index.
        segments.append(Segment(block: index.primary[0]))
        segmentHints.append(index.primary[0])
        budget.chargeIndex(index.byteCount)
    }

    /// Gives back what does not end with the pools, when the engine ends.
    func destroy() {
        ghost.destroy()
        for slot in 1..<segments.count where segments[slot].place != .free && segments[slot].isLarge {
            memory.free(SegmentMemory.Freed(block: segments[slot].block, isLarge: true))
        }
    }
}

/// What a shard counts, all since the start or the last reset unless said otherwise.
@usableFromInline
package struct ShardStatistics: BitwiseCopyable, Sendable {
    /// Items now.
    @usableFromInline package var items = 0
    /// Bytes of items now, headers included.
    @usableFromInline package var itemBytes = 0
    @usableFromInline package var totalItems: UInt64 = 0
    @usableFromInline package var evictions: UInt64 = 0
    /// Evictions from the main queue, a part of `evictions`.
    @usableFromInline package var mainEvictions: UInt64 = 0
    /// Evictions of items that would have expired some day.
    @usableFromInline package var evictedWithExpiry: UInt64 = 0
    /// Those of them from the main queue.
    @usableFromInline package var mainEvictedWithExpiry: UInt64 = 0
    @usableFromInline package var evictedUnfetched: UInt64 = 0
    @usableFromInline package var expiredUnfetched: UInt64 = 0
    /// Items that a command found expired.
    @usableFromInline package var expiredOnAccess: UInt64 = 0
    /// Expired items whose memory was taken back.
    @usableFromInline package var reclaimed: UInt64 = 0
    /// Those of them that nobody asked for: a sweep found them.
    @usableFromInline package var swept: UInt64 = 0
    @usableFromInline package var promotions: UInt64 = 0
    @usableFromInline package var reinsertions: UInt64 = 0
    @usableFromInline package var ghostHits: UInt64 = 0
    @usableFromInline package var compactions: UInt64 = 0
    @usableFromInline package var outOfMemory: UInt64 = 0
    /// Seconds since access of the item evicted last.
    @usableFromInline package var lastEvictedAge: UInt32 = 0
}

extension ShardState {
    @inlinable @inline(__always)
    func item(at location: UInt32) -> Item {
        let slot = Int(truncatingIfNeeded: location &>> segmentShift)
        let block = segmentHints.usualBlock(slot) ?? segments[slot].block
        let offset = Int(truncatingIfNeeded: location & ((1 &<< segmentShift) &- 1))
        return Item(block: block.slice(offset, block.count &- offset), location: location)
    }

    @inlinable @inline(__always)
    func slot(of location: UInt32) -> Int { Int(truncatingIfNeeded: location &>> segmentShift) }

    /// Asks the processor for the index line of `hash`. Needs no lock.
    @inlinable @inline(__always)
    func prefetchIndex(_ hash: UInt64) { index.prefetch(hash) }

    /// Asks the processor for the items in the line of `hash` whose tag matches, or else for the overflow line behind
    /// it. True in that case: ``prefetchOverflowItem(_:)`` is worth a call when the line has arrived. Needs no lock:
    /// what it reads may be outdated, and is only prefetched.
    @inlinable @inline(__always)
    func prefetchItem(_ hash: UInt64) -> Bool {
        let line = index.lineHint(hash)
        guard line != 0, !prefetchMatches(line, hash) else { return false }
        let overflow = index.overflowHint(after: line)
        guard overflow != 0 else { return false }
        prefetchHint(overflow)
        return true
    }

    /// Asks the processor for the items in the first overflow line of `hash`.
    @inlinable @inline(__always)
    func prefetchOverflowItem(_ hash: UInt64) {
        let line = index.lineHint(hash)
        guard line != 0 else { return }
        let overflow = index.overflowHint(after: line)
        if overflow != 0 { _ = prefetchMatches(overflow, hash) }
    }

    /// Prefetches the items of a line whose tag matches; false when there is none.
    @inlinable @inline(__always)
    func prefetchMatches(_ line: UInt64, _ hash: UInt64) -> Bool {
        let pattern = UInt64(Index.tag(hash)) &* 0x0001_0001_0001_0001
        var found = false
        var firstPlace: UInt64 = 0
        while firstPlace < 10 {
            let difference = loadHint64(line &+ firstPlace &* 2) ^ pattern
            var matches = (difference &- 0x0001_0001_0001_0001) & ~difference & 0x8000_8000_8000_8000
            if firstPlace == 8 { matches &= 0x8000_8000 }
            while matches != 0 {
                let place = firstPlace &+ UInt64(truncatingIfNeeded: matches.trailingZeroBitCount >> 4)
                let location = loadHint32(line &+ 24 &+ place &* 4)
                if location != 0 {
                    found = true
                    let segment = segmentHints.hint(Int(truncatingIfNeeded: location &>> segmentShift))
                    let item = segment &+ UInt64(location & ((1 &<< segmentShift) &- 1))
                    prefetchHint(item)
                    prefetchHint(item &+ 64)
                    prefetchHint(item &+ 128)
                }
                matches &= matches &- 1
            }
            firstPlace &+= 4
        }
        return found
    }

    /// The item of `key`, or nil when there is none; an expired one is removed and counts as none.
    @inlinable @inline(__always)
    package mutating func find(_ hash: UInt64, _ key: Span<UInt8>, now: UInt32) -> Item? {
        guard let item = search(hash, key) else { return nil }
        let expiry = item.expiry
        if expiry != 0 && expiry <= now {
            statistics.expiredOnAccess &+= 1
            removeExpired(item, hash)
            return nil
        }
        return item
    }

    /// As ``find(_:_:now:)``, for who only reads: an expired item that lingers counts as none and stays.
    @inlinable @inline(__always)
    package mutating func findToRead(_ hash: UInt64, _ key: Span<UInt8>, now: UInt32) -> Item? {
        guard let item = search(hash, key) else { return nil }
        let expiry = item.expiry
        if expiry != 0 && expiry <= now {
            passOver(item, hash, now: now)
            return nil
        }
        return item
    }

    /// The item of `key` though it may have expired, as long as it lingers: see ``Item/linger()``.
    package mutating func findLingering(_ hash: UInt64, _ key: Span<UInt8>, now: UInt32) -> Item? {
        guard let item = search(hash, key) else { return nil }
        return item.isOver(now: now, lingerSeconds) ? nil : item
    }

    @inlinable @inline(__always)
    func search(_ hash: UInt64, _ key: Span<UInt8>) -> Item? {
        var found: Item?
        _ = index.search(hash) { location in
            let item = self.item(at: location)
            guard item.hasKey(key) else { return false }
            found = item
            return true
        }
        return found
    }

    @usableFromInline @inline(never)
    mutating func passOver(_ item: Item, _ hash: UInt64, now: UInt32) {
        guard item.isOver(now: now, lingerSeconds) else { return }
        statistics.expiredOnAccess &+= 1
        removeExpired(item, hash)
    }

    @usableFromInline @inline(never)
    mutating func removeExpired(_ item: Item, _ hash: UInt64) {
        statistics.reclaimed &+= 1
        if !item.isFetched { statistics.expiredUnfetched += 1 }
        remove(item, hash)
    }

    /// Removes an item found under this lock. Other items stay where they are.
    package mutating func remove(_ item: Item, _ hash: UInt64) {
        guard let position = index.position(of: item.location, hash: hash) else {
            preconditionFailure("an item is not in the index")
        }
        index.remove(position, hash: hash)
        kill(item)
    }

    /// Marks an item's bytes dead; its index entry is gone or points elsewhere already.
    mutating func kill(_ item: Item) {
        var item = item
        item.write(item.word | Item.Mark.dead)
        forget(item)
        let slot = slot(of: item.location)
        if segments[slot].liveItems == 0, slot != Int(openSmall), slot != Int(openMain) { release(UInt32(slot)) }
    }

    /// Takes an item out of its segment's and the shard's accounts without releasing the segment.
    mutating func forget(_ item: Item) {
        statistics.items -= 1
        statistics.itemBytes -= item.size
        leave(item)
    }

    /// Turns an item's bytes into dead ones of its segment: the item goes, or lies elsewhere from now on.
    mutating func leave(_ item: Item) {
        let size = item.size
        let slot = slot(of: item.location)
        segments[slot].liveBytes -= UInt32(size)
        segments[slot].liveItems -= 1
        deadBytes += size
    }

    /// Takes a segment without live items out of its queue and frees it, or leaves it to whoever still sends from it.
    mutating func release(_ slot: UInt32) {
        let index = Int(slot)
        if segments[index].place == .small { small.remove(slot, &segments) } else { main.remove(slot, &segments) }
        if slot == openSmall { openSmall = 0 }
        if slot == openMain { openMain = 0 }
        deadBytes -= Int(segments[index].usedBytes - segments[index].liveBytes)
        if segments[index].pins > 0 {
            segments[index].place = .detached
        } else {
            freeSegment(slot)
        }
    }

    mutating func freeSegment(_ slot: UInt32) {
        let index = Int(slot)
        if spare == nil, !segments[index].isLarge {
            // Kept, and still charged, for the next segment: a reclaim is followed by one nearly always.
            spare = segments[index].block
        } else {
            let freed = SegmentMemory.Freed(block: segments[index].block, isLarge: segments[index].isLarge)
            budget.charge(-freed.block.count)
            if leavesSegments { dropped.withLock { $0.append(freed) } } else { memory.free(freed) }
        }
        segments[index].place = .free
        segments[index].next = freeSlots
        freeSlots = slot
    }

    /// Gives the spare segment back. True if there was one.
    @discardableResult
    mutating func dropSpare() -> Bool {
        guard let block = spare else { return false }
        spare = nil
        budget.charge(-block.count)
        memory.free(SegmentMemory.Freed(block: block, isLarge: false))
        return true
    }

    /// Segment numbers, 0 included: what a 32-bit location has left beside the offset.
    var slotLimit: Int { 1 << (32 - Int(segmentShift)) }

    /// Whether another segment can be numbered.
    var hasFreeSlot: Bool { freeSlots != 0 || segments.count < slotLimit }

    /// Bytes that the shard's segments hold of the budget.
    var chargedBytes: Int { small.byteCount + main.byteCount + (spare?.count ?? 0) }

    /// Puts a fresh block into a slot, at the tail of a queue.
    mutating func adopt(_ block: MemoryBlock, isLarge: Bool, place: Segment.Place) -> UInt32 {
        var segment = Segment(block: block)
        segment.isLarge = isLarge
        segment.place = place
        let slot: UInt32
        if freeSlots != 0 {
            slot = freeSlots
            freeSlots = segments[Int(slot)].next
            segments[Int(slot)] = segment
            segmentHints.set(Int(slot), block)
        } else {
            slot = UInt32(segments.count)
            precondition(segments.count < slotLimit, "a segment without a number")
            segments.append(segment)
            segmentHints.append(block)
        }
        if place == .small { small.append(slot, &segments) } else { main.append(slot, &segments) }
        return slot
    }

    /// Which of the two queues the item is in: 1 for new items, 2 for items that were read. Stands for memcached's slab
    /// class in dumps and statistics.
    package func queueNumber(of item: Item) -> Int { segments[slot(of: item.location)].place == .main ? 2 : 1 }

    /// Keeps the segment of a large item alive for a sender. Returns the token to give to `unpin`.
    package mutating func pin(_ item: Item) -> UInt64 {
        let slot = slot(of: item.location)
        segments[slot].pins += 1
        return UInt64(number) << 32 | UInt64(slot)
    }

    mutating func unpin(slot: Int) {
        precondition(segments[slot].pins > 0, "unpinned more often than pinned")
        segments[slot].pins -= 1
        if segments[slot].pins == 0, segments[slot].place == .detached { freeSegment(UInt32(slot)) }
    }

    /// Whether the item has a segment of its own, and so may be pinned and sent without copying.
    package func isLarge(_ item: Item) -> Bool { segments[slot(of: item.location)].isLarge }

    /// Drops every item.
    package mutating func removeAll() {
        leavesSegments = true
        defer { leavesSegments = false }
        relocations += 1
        let before = index.byteCount + ghost.byteCount
        for queue in [small, main] {
            var slot = queue.head
            while slot != 0 {
                let next = segments[Int(slot)].next
                let segment = segments[Int(slot)]
                statistics.items -= Int(segment.liveItems)
                statistics.itemBytes -= Int(segment.liveBytes)
                segments[Int(slot)].liveItems = 0
                deadBytes += Int(segment.liveBytes)
                segments[Int(slot)].liveBytes = 0
                release(slot)
                slot = next
            }
        }
        index.removeAll()
        ghost.removeAll()
        dropSpare()
        budget.charge(index.byteCount + ghost.byteCount - before)
    }
}
