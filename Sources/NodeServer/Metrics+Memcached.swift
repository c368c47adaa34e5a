// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import Platform
internal import Reactor
internal import Telemetry

/// The families of prometheus/memcached_exporter that are about the server as a whole.
extension Node {
    func appendServerMetrics(_ reading: MetricsReading, to page: inout Exposition) {
        page.gauge("memcached_up", "Whether the server answers.", 1)
        page.counter(
            "memcached_uptime_seconds", "Seconds since the server started.", UInt64(clock.uptime(at: reading.now)))
        page.gauge("memcached_time_seconds", "The server's Unix time.", Int64(reading.now) + clock.epoch)
        page.family("memcached_version", .gauge, help: "The version of memcached that the server behaves as.")
        page.sample(UInt64(1), ("version", ProductVersion.memcached))
        page.counter(
            "memcached_process_user_cpu_seconds_total", "Processor time of the process in user mode.",
            microseconds: reading.usage.userMicroseconds)
        page.counter(
            "memcached_process_system_cpu_seconds_total", "Processor time of the process in the kernel.",
            microseconds: reading.usage.systemMicroseconds)
        page.counter("memcached_read_bytes_total", "Bytes read from the network.", reading.figures.network[.bytesRead])
        page.counter(
            "memcached_written_bytes_total", "Bytes written to the network.", reading.figures.network[.bytesWritten])
    }

    func appendConnectionMetrics(_ reading: MetricsReading, to page: inout Exposition) {
        let network = reading.figures.network
        page.gauge("memcached_current_connections", "Connections open now.", group?.connectionCount ?? 0)
        page.gauge("memcached_max_connections", "Connections allowed at once.", configuration.connectionLimit)
        page.counter("memcached_connections_total", "Connections accepted.", network[.connectionsTotal])
        if configuration.refusesBeyondLimit {
            page.counter(
                "memcached_connections_rejected_total", "Connections refused because there were too many.",
                network[.connectionsRejected])
        }
        page.counter(
            "memcached_connections_yielded_total", "Turns of connections that ended to let others go on.",
            network[.yields])
        page.counter(
            "memcached_connections_listener_disabled_total",
            "How often listening stopped because there were too many connections.", network[.listenDisabled])
        page.gauge(
            "memcached_accepting_connections", "Whether new connections are accepted.",
            group?.isAccepting ?? true ? 1 : 0)
    }

    func appendCommandMetrics(_ reading: MetricsReading, to page: inout Exposition) {
        let commands = reading.figures.commands
        page.family("memcached_commands_total", .counter, help: "Commands, by command and outcome.")
        let pairs: [(String, NodeCounter, NodeCounter)] = [
            ("get", .getHits, .getMisses), ("delete", .deleteHits, .deleteMisses), ("incr", .incrHits, .incrMisses),
            ("decr", .decrHits, .decrMisses), ("cas", .casHits, .casMisses), ("touch", .touchHits, .touchMisses),
        ]
        for (command, hits, misses) in pairs {
            page.sample(commands[hits], ("command", command), ("status", "hit"))
            page.sample(commands[misses], ("command", command), ("status", "miss"))
        }
        page.sample(commands[.casBadValue], ("command", "cas"), ("status", "badval"))
        page.sample(commands[.cmdFlush], ("command", "flush"), ("status", "hit"))
        page.sample(commands.plainSets, ("command", "set"), ("status", "hit"))
    }

    func appendItemMetrics(_ reading: MetricsReading, to page: inout Exposition) {
        let engine = reading.figures.engine
        page.gauge("memcached_current_bytes", "Bytes of items now.", engine.itemBytes)
        page.gauge("memcached_limit_bytes", "Bytes that items and their index may take.", engine.limitBytes)
        page.gauge(
            "memcached_malloced_bytes", "Bytes of memory that items lie in.",
            reading.classes.reduce(0) { $0 + $1.queue.segmentBytes })
        page.gauge("memcached_current_items", "Items now.", engine.items)
        page.counter("memcached_items_total", "Items stored.", engine.totalItems)
        page.counter("memcached_items_evicted_total", "Items evicted to make room.", engine.evictions)
        page.counter(
            "memcached_items_reclaimed_total", "Expired items whose memory was taken back.",
            engine.reclaimed &- engine.swept)
        page.counter(
            "memcached_item_too_large_total", "Items refused for their size.", reading.figures.commands[.storeTooLarge])
        page.counter(
            "memcached_item_no_memory_total", "Items refused for want of memory.",
            reading.figures.commands[.storeNoMemory])
        page.counter(
            "memcached_direct_reclaims_total", "Items evicted by the thread that needed the room.", engine.evictions)
    }

    /// memcached's LRU crawler: what `lru_crawler` did, and what the start options say about it.
    func appendCrawlerMetrics(_ reading: MetricsReading, to page: inout Exposition) {
        let engine = reading.figures.engine
        let crawler = reading.figures.crawler
        page.counter("memcached_lru_crawler_starts_total", "Crawls and dumps that clients started.", crawler.starts)
        page.counter(
            "memcached_lru_crawler_reclaimed_total", "Expired items dropped without being asked for.", engine.swept)
        page.counter(
            "memcached_lru_crawler_items_checked_total", "Items that crawls and dumps looked at.", crawler.checked)
        page.counter("memcached_lru_crawler_moves_to_cold_total", "Always 0: there is no cold queue.", 0)
        page.counter(
            "memcached_lru_crawler_moves_to_warm_total", "Items promoted to the main queue.", engine.promotions)
        page.counter(
            "memcached_lru_crawler_moves_within_lru_total", "Items that stayed in the main queue for another round.",
            engine.reinsertions)
        guard isCrawlerOn else { return }
        let tuning = configuration.tuning
        let choices = baseline.crawler.choices
        page.gauge("memcached_lru_crawler_enabled", "Whether crawls and dumps are allowed.", 1)
        page.gauge(
            "memcached_lru_crawler_sleep", "The setting of that name, which has no effect.",
            choices.sleepMicroseconds.map(Int.init) ?? tuning.crawlerSleepMicroseconds)
        page.gauge(
            "memcached_lru_crawler_to_crawl", "The setting of that name, which has no effect.",
            choices.toCrawl.map(Int.init) ?? tuning.crawlerToCrawl)
        page.gauge(
            "memcached_lru_crawler_maintainer_thread", "The setting of that name, which has no effect.",
            tuning.maintainsLRU ? 1 : 0)
        page.gauge(
            "memcached_lru_crawler_hot_percent", "The setting of that name, which has no effect.", tuning.hotPercent)
        page.gauge(
            "memcached_lru_crawler_warm_percent", "The setting of that name, which has no effect.", tuning.warmPercent)
        page.family(
            "memcached_lru_crawler_hot_max_factor", .gauge, help: "The setting of that name, which has no effect.")
        page.sample(tuning.hotMaximumFactor)
        page.family(
            "memcached_lru_crawler_warm_max_factor", .gauge, help: "The setting of that name, which has no effect.")
        page.sample(tuning.warmMaximumFactor)
    }
}

extension CounterTotals<NodeCounter> {
    /// Sets that did not compare: memcached counts `cas` among the sets.
    var plainSets: UInt64 {
        let compared = self[.casHits] &+ self[.casMisses] &+ self[.casBadValue]
        return self[.cmdSet] > compared ? self[.cmdSet] - compared : 0
    }
}
