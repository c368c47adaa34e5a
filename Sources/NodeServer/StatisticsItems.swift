// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import Telemetry

/// A queue of the engine as memcached's tools see it: a slab class. Class 1 is the queue of new items, class 2 the main
/// queue, where items go that were read in time.
struct QueueClass: Sendable {
    let number: Int
    let queue: QueueStatistics
    let figures: NodeFigures
    /// Bytes of a segment, which stands for memcached's page.
    let segmentBytes: Int

    private var isNew: Bool { number == 1 }

    var evictions: UInt64 {
        isNew ? figures.engine.evictions &- figures.engine.mainEvictions : figures.engine.mainEvictions
    }
    var evictedWithExpiry: UInt64 {
        let main = figures.engine.mainEvictedWithExpiry
        return isNew ? figures.engine.evictedWithExpiry &- main : main
    }
    var lastEvictedAge: UInt32 { evictions > 0 ? figures.engine.lastEvictedAge : 0 }

    // Counted for the engine as a whole, and told for the class of new items, where nearly all of it happens: an item
    // that nobody read is in no other queue, and what finds no memory is new.
    var evictedUnfetched: UInt64 { isNew ? figures.engine.evictedUnfetched : 0 }
    var expiredUnfetched: UInt64 { isNew ? figures.engine.expiredUnfetched : 0 }
    var outOfMemory: UInt64 { isNew ? figures.engine.outOfMemory : 0 }
    var reclaimed: UInt64 { isNew ? figures.engine.reclaimed &- figures.engine.swept : 0 }
    var crawlerReclaimed: UInt64 { isNew ? figures.engine.swept : 0 }
    var crawlerChecked: UInt64 { isNew ? figures.crawler.checked : 0 }
    func commands(_ counter: NodeCounter) -> UInt64 { isNew ? figures.commands[counter] : 0 }

    /// Items that went from here to the main queue, and those that were kept in it another round.
    var promotions: UInt64 { isNew ? figures.engine.promotions : 0 }
    var reinsertions: UInt64 { isNew ? 0 : figures.engine.reinsertions }

    /// Bytes of an item on average: there are no chunks of a size.
    var chunkBytes: Int { queue.items > 0 ? (queue.itemBytes + queue.items - 1) / queue.items : 0 }
    var chunksPerPage: Int { chunkBytes > 0 ? max(segmentBytes / chunkBytes, 1) : 0 }
    /// Items that the segments would hold if all were of average size.
    var chunks: Int { chunkBytes > 0 ? max(queue.segmentBytes / chunkBytes, queue.items) : 0 }
    var freeChunks: Int { chunks - queue.items }
}

/// `stats items`, `stats slabs` and `stats sizes`, of our own model in memcached's words.
extension Node {
    /// Both classes, from the same moment as `figures`.
    func queueClasses(_ figures: NodeFigures) -> [QueueClass] {
        let (new, main) = engine.queueStatistics(now: clock.now())
        return [
            QueueClass(number: 1, queue: new, figures: figures, segmentBytes: engine.segmentBytes),
            QueueClass(number: 2, queue: main, figures: figures, segmentBytes: engine.segmentBytes),
        ]
    }

    func itemStatistics() -> StatisticsList {
        var list = StatisticsList()
        for part in queueClasses(figuresSinceReset()) where part.queue.items > 0 {
            addItems(part, hasMaintainer: configuration.tuning.maintainsLRU, to: &list)
        }
        return list
    }

    private func addItems(_ part: QueueClass, hasMaintainer: Bool, to list: inout StatisticsList) {
        let start = "items:\(part.number):"
        let isNew = part.number == 1
        list.add(start + "number", part.queue.items)
        if hasMaintainer {
            list.add(start + "number_hot", isNew ? part.queue.items : 0)
            list.add(start + "number_warm", isNew ? 0 : part.queue.items)
            list.add(start + "number_cold", 0)
            if configuration.tuning.hasTemporaryLRU { list.add(start + "number_temp", 0) }
            list.add(start + "age_hot", isNew ? part.queue.oldestAge : 0)
            list.add(start + "age_warm", isNew ? 0 : part.queue.oldestAge)
        }
        list.add(start + "age", part.queue.oldestAge)
        list.add(start + "mem_requested", part.queue.itemBytes)
        list.add(start + "evicted", part.evictions)
        list.add(start + "evicted_nonzero", part.evictedWithExpiry)
        list.add(start + "evicted_time", part.lastEvictedAge)
        list.add(start + "outofmemory", part.outOfMemory)
        list.add(start + "tailrepairs", 0)
        list.add(start + "reclaimed", part.reclaimed)
        list.add(start + "expired_unfetched", part.expiredUnfetched)
        list.add(start + "evicted_unfetched", part.evictedUnfetched)
        if hasMaintainer { list.add(start + "evicted_active", 0) }
        list.add(start + "crawler_reclaimed", part.crawlerReclaimed)
        list.add(start + "crawler_items_checked", part.crawlerChecked)
        list.add(start + "lrutail_reflocked", 0)
        guard hasMaintainer else { return }
        list.add(start + "moves_to_cold", 0)
        list.add(start + "moves_to_warm", part.promotions)
        list.add(start + "moves_within_lru", part.reinsertions)
        list.add(start + "direct_reclaims", part.evictions)
        list.add(start + "hits_to_hot", part.commands(.getHits))
        for name in ["hits_to_warm", "hits_to_cold", "hits_to_temp"] { list.add(start + name, 0) }
    }

    func slabStatistics() -> StatisticsList {
        var list = StatisticsList()
        var active = 0
        var bytes = 0
        for part in queueClasses(figuresSinceReset()) where part.queue.segments > 0 {
            let start = "\(part.number):"
            list.add(start + "chunk_size", part.chunkBytes)
            list.add(start + "chunks_per_page", part.chunksPerPage)
            list.add(start + "total_pages", part.queue.segments)
            list.add(start + "total_chunks", part.chunks)
            list.add(start + "used_chunks", part.queue.items)
            list.add(start + "free_chunks", part.freeChunks)
            list.add(start + "free_chunks_end", 0)
            let names: [(String, NodeCounter)] = [
                ("get_hits", .getHits), ("cmd_set", .cmdSet), ("delete_hits", .deleteHits), ("incr_hits", .incrHits),
                ("decr_hits", .decrHits), ("cas_hits", .casHits), ("cas_badval", .casBadValue),
                ("touch_hits", .touchHits),
            ]
            for (name, counter) in names { list.add(start + name, part.commands(counter)) }
            active += 1
            bytes += part.queue.segmentBytes
        }
        list.add("active_slabs", active)
        list.add("total_malloced", bytes)
        return list
    }
}
