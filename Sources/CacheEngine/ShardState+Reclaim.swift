// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

extension ShardState {
    /// Items looked at ahead of the one at work, so that their index lines are there when needed.
    private static var lookahead: Int { 8 }

    /// Gives up one segment: the one with the most dead bytes if that is worth it, else the oldest of the queue whose
    /// turn it is. False when the shard has nothing to give. Source: S3-FIFO (SOSP 2023), on segments instead of items.
    mutating func reclaimOne(now: UInt32, force: Bool) -> Bool {
        relocations += 1
        let total = small.byteCount + main.byteCount
        if deadBytes * 8 > total, let slot = mostDead() {
            statistics.compactions += 1
            empty(slot, now: now, keepAll: true, force: false)
            return true
        }
        guard evicts else { return false }
        budget.charge(ghost.prepare(places: index.count))
        let fromSmall = small.head != 0 && (main.head == 0 || small.byteCount * 100 >= total * smallQueuePercent)
        let slot = fromSmall ? small.head : main.head
        guard slot != 0 else { return false }
        empty(slot, now: now, keepAll: false, force: force)
        return true
    }

    /// Of the next few segments, the one that would give most back when compacted; nil when none of them has a quarter
    /// of its bytes dead. Only a few, or every reclaim of a shard with many segments would look at all of them.
    private mutating func mostDead() -> UInt32? {
        var best = 0
        var bestDead = segmentBytes / 4
        for _ in 0..<min(segments.count - 1, compactionCandidatesMax) {
            compactionCursor = compactionCursor + 1 < segments.count ? compactionCursor + 1 : 1
            let segment = segments[compactionCursor]
            guard segment.place == .small || segment.place == .main else { continue }
            let dead = Int(segment.usedBytes - segment.liveBytes)
            if dead > bestDead, compactionCursor != Int(openSmall), compactionCursor != Int(openMain) {
                best = compactionCursor
                bestDead = dead
            }
        }
        return best == 0 ? nil : UInt32(best)
    }

    /// Moves what stays out of a segment, drops the rest, and frees it.
    private mutating func empty(_ slot: UInt32, now: UInt32, keepAll: Bool, force: Bool) {
        if slot == openSmall { openSmall = 0 }
        if slot == openMain { openMain = 0 }
        let isSmall = segments[Int(slot)].place == .small
        if segments[Int(slot)].isLarge {
            emptyLarge(slot, isSmall: isSmall, now: now, force: force)
            return
        }
        let block = segments[Int(slot)].block
        let used = Int(segments[Int(slot)].usedBytes)
        let base = slot << segmentShift
        var offset = 0
        var ahead = 0
        var hashes = InlineArray<8, UInt64>(repeating: 0)
        var hashed = 0
        var worked = 0
        while offset < used {
            while hashed - worked < Self.lookahead, ahead < used {
                let item = Item(block: block.slice(ahead, block.count - ahead), location: base | UInt32(ahead))
                if item.word & Item.Mark.dead == 0 {
                    let hash = hashKey(of: item)
                    index.prefetch(hash)
                    hashes[hashed & 7] = hash
                }
                hashed += 1
                ahead += item.size
            }
            let item = Item(block: block.slice(offset, block.count - offset), location: base | UInt32(offset))
            offset += item.size
            let hash = hashes[worked & 7]
            worked += 1
            if item.word & Item.Mark.dead != 0 { continue }
            settle(item, hash, isSmall: isSmall, now: now, keepAll: keepAll, force: force)
        }
        precondition(segments[Int(slot)].liveItems == 0, "a reclaimed segment still has items")
        release(slot)
    }

    /// Decides about one live item of a segment that is being emptied.
    private mutating func settle(
        _ item: Item, _ hash: UInt64, isSmall: Bool, now: UInt32, keepAll: Bool, force: Bool
    ) {
        guard let position = index.position(of: item.location, hash: hash) else {
            preconditionFailure("a live item is not in the index")
        }
        let isExpired = item.isOver(now: now, lingerSeconds)
        let stays = keepAll || (item.word & Item.Mark.reads != 0 && !force)
        if stays, !isExpired, let target = allocateForSurvivor(item.size, toMain: !(isSmall && keepAll)) {
            move(item, to: target, position, countsDown: !keepAll, resets: isSmall)
            return
        }
        index.remove(position, hash: hash)
        if isExpired {
            statistics.reclaimed += 1
            if !item.isFetched { statistics.expiredUnfetched += 1 }
        } else {
            noteEviction(item, hash, isSmall: isSmall, now: now)
        }
        forget(item)
    }

    private mutating func noteEviction(_ item: Item, _ hash: UInt64, isSmall: Bool, now: UInt32) {
        statistics.evictions += 1
        if !item.isFetched { statistics.evictedUnfetched += 1 }
        statistics.lastEvictedAge = item.secondsSinceAccess(now: now)
        let expires = item.expiry != 0
        if expires { statistics.evictedWithExpiry += 1 }
        if isSmall {
            ghost.insert(hash)
        } else {
            statistics.mainEvictions += 1
            if expires { statistics.mainEvictedWithExpiry += 1 }
        }
        if evictionLog.isOn { logEviction(item, isSmall: isSmall, now: now) }
    }

    @inline(never)
    private func logEviction(_ item: Item, isSmall: Bool, now: UInt32) {
        var key: [UInt8] = []
        item.block.slice(item.keyOffset, item.keyLength).withSpan { span in
            for index in span.indices { key.append(span[index]) }
        }
        evictionLog.add(
            Eviction(
                key: key, isFetched: item.isFetched, expiry: item.expiry,
                ageSeconds: item.secondsSinceAccess(now: now), queue: isSmall ? 1 : 2, valueLength: item.valueLength))
    }

    private mutating func move(
        _ item: Item, to target: UInt32, _ position: IndexPosition, countsDown: Bool, resets: Bool
    ) {
        let size = item.size
        var copy = self.item(at: target)
        copy.block.copy(item.block, from: 0, length: size, at: 0)
        var word = item.word
        if resets, countsDown {
            word &= ~Item.Mark.reads
            statistics.promotions += 1
        } else if countsDown {
            word -= Item.Mark.oneRead
            statistics.reinsertions += 1
        }
        copy.write(word)
        segments[slot(of: target)].noteExpiry(item.expiry)
        index.setLocation(target, at: position)
        leave(item)
    }

    private mutating func emptyLarge(_ slot: UInt32, isSmall: Bool, now: UInt32, force: Bool) {
        var item = self.item(at: slot << segmentShift)
        let isExpired = item.isOver(now: now, lingerSeconds)
        if item.word & Item.Mark.reads != 0, !force, !isExpired {
            // A read large item goes to the main queue's tail as it is.
            item.write(isSmall ? item.word & ~Item.Mark.reads : item.word - Item.Mark.oneRead)
            if isSmall { small.remove(slot, &segments) } else { main.remove(slot, &segments) }
            segments[Int(slot)].place = .main
            main.append(slot, &segments)
            if isSmall { statistics.promotions += 1 } else { statistics.reinsertions += 1 }
            return
        }
        let hash = hashKey(of: item)
        if isExpired {
            removeExpired(item, hash)
        } else {
            noteEviction(item, hash, isSmall: isSmall, now: now)
            remove(item, hash)
        }
    }

    func hashKey(of item: Item) -> UInt64 {
        item.block.slice(item.keyOffset, item.keyLength).withSpan { stableHash($0, seed: hashSeed) }
    }

    /// Drops a segment's expired items, when some can have expired. Moves nothing but frees what is empty.
    mutating func sweep(_ slot: Int, now: UInt32) {
        let segment = segments[slot]
        guard segment.place == .small || segment.place == .main else { return }
        guard segment.earliestExpiry != 0, segment.earliestExpiry <= now else { return }
        segments[slot].earliestExpiry = 0
        let before = statistics.reclaimed
        defer { statistics.swept &+= statistics.reclaimed &- before }
        var earliest: UInt32 = 0
        var offset = 0
        let base = UInt32(slot) << segmentShift
        let used = Int(segment.usedBytes)
        while offset < used {
            let item = Item(
                block: segment.block.slice(offset, segment.block.count - offset), location: base | UInt32(offset))
            offset += item.size
            if item.word & Item.Mark.dead != 0 { continue }
            let end = item.end(lingerSeconds)
            if end != 0, end <= now {
                let isLast = segments[slot].liveItems == 1
                removeExpired(item, hashKey(of: item))
                if isLast { return }
            } else if end != 0, earliest == 0 || end < earliest {
                earliest = end
            }
        }
        segments[slot].earliestExpiry = earliest
    }
}
