// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Telemetry

/// The families of prometheus/memcached_exporter that are about slab classes: class 1 is our queue of new items, class
/// 2 the main queue. See ``QueueClass`` for what a chunk and a page are.
extension Node {
    func appendSlabMetrics(_ reading: MetricsReading, to page: inout Exposition) {
        let withItems = reading.classes.filter { $0.queue.items > 0 }
        let withSegments = reading.classes.filter { $0.queue.segments > 0 }
        appendSlabItems(withItems, to: &page)
        appendSlabCounters(withItems, to: &page)
        appendSlabMoves(withItems, to: &page)
        appendSlabPages(withSegments, to: &page)
        appendSlabCommands(withSegments, to: &page)
    }

    /// One family with a sample for each class.
    private func slabs(
        _ page: inout Exposition, _ classes: [QueueClass], _ name: String, _ kind: Exposition.Kind, _ help: String,
        _ value: (QueueClass) -> UInt64
    ) {
        page.family("memcached_slab_\(name)", kind, help: help)
        for part in classes { page.sample(value(part), ("slab", String(part.number))) }
    }

    private func appendSlabItems(_ classes: [QueueClass], to page: inout Exposition) {
        slabs(&page, classes, "current_items", .gauge, "Items of the class.") { UInt64($0.queue.items) }
        slabs(&page, classes, "hot_items", .gauge, "Items of the queue of new items.") {
            $0.number == 1 ? UInt64($0.queue.items) : 0
        }
        slabs(&page, classes, "warm_items", .gauge, "Items of the main queue.") {
            $0.number == 2 ? UInt64($0.queue.items) : 0
        }
        slabs(&page, classes, "cold_items", .gauge, "Always 0: there is no cold queue.") { _ in 0 }
        slabs(&page, classes, "items_age_seconds", .gauge, "Seconds since the last access of the oldest item.") {
            UInt64($0.queue.oldestAge)
        }
        slabs(&page, classes, "hot_age_seconds", .gauge, "The same for the queue of new items.") {
            $0.number == 1 ? UInt64($0.queue.oldestAge) : 0
        }
        slabs(&page, classes, "warm_age_seconds", .gauge, "The same for the main queue.") {
            $0.number == 2 ? UInt64($0.queue.oldestAge) : 0
        }
        // The exporter calls this one a counter.
        slabs(&page, classes, "mem_requested_bytes", .counter, "Bytes of the items.") { UInt64($0.queue.itemBytes) }
    }

    private func appendSlabCounters(_ classes: [QueueClass], to page: inout Exposition) {
        slabs(&page, classes, "items_evicted_total", .counter, "Items evicted.") { $0.evictions }
        slabs(
            &page, classes, "items_evicted_nonzero_total", .counter, "Items evicted that would have expired some day."
        ) { $0.evictedWithExpiry }
        slabs(
            &page, classes, "items_evicted_time_seconds", .counter,
            "Seconds between the last access and the eviction of the item evicted last."
        ) { UInt64($0.lastEvictedAge) }
        slabs(&page, classes, "items_evicted_unfetched_total", .counter, "Items evicted that were never read.") {
            $0.evictedUnfetched
        }
        slabs(&page, classes, "items_expired_unfetched_total", .counter, "Items expired that were never read.") {
            $0.expiredUnfetched
        }
        slabs(&page, classes, "items_outofmemory_total", .counter, "Items that no memory was found for.") {
            $0.outOfMemory
        }
        slabs(&page, classes, "items_reclaimed_total", .counter, "Expired items whose memory was taken back.") {
            $0.reclaimed
        }
        slabs(
            &page, classes, "items_crawler_reclaimed_total", .counter, "Expired items dropped without being asked for."
        ) { $0.crawlerReclaimed }
        slabs(&page, classes, "items_tailrepairs_total", .counter, "Always 0: there is nothing to repair.") { _ in 0 }
    }

    private func appendSlabMoves(_ classes: [QueueClass], to page: inout Exposition) {
        slabs(&page, classes, "items_moves_to_cold", .counter, "Always 0: there is no cold queue.") { _ in 0 }
        slabs(&page, classes, "items_moves_to_warm", .counter, "Items promoted to the main queue.") { $0.promotions }
        slabs(
            &page, classes, "items_moves_within_lru", .counter, "Items that stayed in the main queue for another round."
        ) { $0.reinsertions }
        page.family("memcached_slab_lru_hits_total", .counter, help: "Hits, all told under hot.")
        for part in classes {
            let slab = String(part.number)
            page.sample(part.commands(.getHits), ("slab", slab), ("lru", "hot"))
            for lru in ["warm", "cold", "temporary"] { page.sample(UInt64(0), ("slab", slab), ("lru", lru)) }
        }
    }

    private func appendSlabPages(_ classes: [QueueClass], to page: inout Exposition) {
        slabs(&page, classes, "chunk_size_bytes", .gauge, "Bytes of an item on average.") { UInt64($0.chunkBytes) }
        slabs(&page, classes, "chunks_per_page", .gauge, "Items of average size in a segment.") {
            UInt64($0.chunksPerPage)
        }
        slabs(&page, classes, "current_pages", .gauge, "Segments.") { UInt64($0.queue.segments) }
        slabs(&page, classes, "current_chunks", .gauge, "Items of average size that the segments would hold.") {
            UInt64($0.chunks)
        }
        slabs(&page, classes, "chunks_used", .gauge, "Items.") { UInt64($0.queue.items) }
        slabs(&page, classes, "chunks_free", .gauge, "Items of average size that there is room for.") {
            UInt64($0.freeChunks)
        }
        slabs(&page, classes, "chunks_free_end", .gauge, "Always 0.") { _ in 0 }
    }

    private func appendSlabCommands(_ classes: [QueueClass], to page: inout Exposition) {
        page.family(
            "memcached_slab_commands_total", .counter,
            help: "Commands, all told under class 1: queues are not told apart.")
        let counters: [(String, String, NodeCounter)] = [
            ("get", "hit", .getHits), ("delete", "hit", .deleteHits), ("incr", "hit", .incrHits),
            ("decr", "hit", .decrHits), ("cas", "hit", .casHits), ("touch", "hit", .touchHits),
            ("cas", "badval", .casBadValue),
        ]
        for part in classes {
            let slab = String(part.number)
            for (command, status, counter) in counters {
                page.sample(part.commands(counter), ("slab", slab), ("command", command), ("status", status))
            }
            let sets = part.number == 1 ? part.figures.commands.plainSets : 0
            page.sample(sets, ("slab", slab), ("command", "set"), ("status", "hit"))
        }
    }
}
