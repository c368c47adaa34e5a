// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import Memory
internal import Platform
internal import Reactor
internal import Synchronization
internal import Telemetry

/// The families that memcached's exporter does not have.
extension Node {
    /// Prefixes that /metrics shows at most: those with the most reads. `stats detail dump` shows them all.
    private static var prefixLimit: Int { 1000 }

    func appendProcessMetrics(_ reading: MetricsReading, to page: inout Exposition) {
        page.family("martlet_build_info", .gauge, help: "What runs, and for which cluster: always 1.")
        page.sample(
            UInt64(1), ("version", ProductVersion.martlet), ("memcached", ProductVersion.memcached),
            ("cluster", configuration.clusterName))
        page.counter(
            "process_cpu_seconds_total", "Processor time of the process.",
            microseconds: reading.usage.userMicroseconds + reading.usage.systemMicroseconds)
        page.gauge("process_resident_memory_bytes", "Memory of the process in use.", reading.usage.residentBytes)
        page.gauge("process_virtual_memory_bytes", "Memory of the process mapped.", reading.usage.virtualBytes)
        page.gauge(
            "process_start_time_seconds", "The Unix time at which the process started.",
            Int64(reading.now) + clock.epoch - Int64(clock.uptime(at: reading.now)))
    }

    func appendLatencyMetrics(to page: inout Exposition) {
        page.family(
            "martlet_command_duration_seconds", .histogram,
            help: "Time from when a command's input was ready to its reply, by kind of command.")
        for kind in CommandKind.allCases { page.sample(latency(of: kind), ("command", kind.label)) }
    }

    func appendEngineMetrics(_ reading: MetricsReading, to page: inout Exposition) {
        let engine = reading.figures.engine
        let queues = reading.classes.map { ($0.number == 1 ? "new" : "main", $0) }
        page.family("martlet_queue_items", .gauge, help: "Items by queue.")
        for (name, part) in queues { page.sample(UInt64(part.queue.items), ("queue", name)) }
        page.family("martlet_queue_bytes", .gauge, help: "Bytes of segments by queue.")
        for (name, part) in queues { page.sample(UInt64(part.queue.segmentBytes), ("queue", name)) }
        page.family("martlet_queue_evictions_total", .counter, help: "Items evicted, by queue.")
        for (name, part) in queues { page.sample(part.evictions, ("queue", name)) }
        page.gauge(
            "martlet_restored_items", "Items that a memory file brought back at the start.",
            restoredItems.load(ordering: .relaxed))
        if let warmUp {
            page.gauge(
                "martlet_warming_up", "Whether the node fetches its share of the keys, and is not read from.",
                warmUp.isWarming ? 1 : 0)
            page.counter(
                "martlet_warm_up_stored_total", "Keys that the node fetched from others when it joined.",
                warmUp.counters.stored.load(ordering: .relaxed))
            page.counter(
                "martlet_warm_up_left_out_total", "Keys that it did not keep: written meanwhile, or gone.",
                warmUp.counters.leftOut.load(ordering: .relaxed))
            page.counter(
                "martlet_warm_up_failures_total", "Nodes that it could not fetch all keys from.",
                warmUp.counters.failures.load(ordering: .relaxed))
        }
        page.gauge("martlet_engine_used_bytes", "Bytes that items and index take, of the limit.", engine.usedBytes)
        page.gauge("martlet_engine_dead_bytes", "Bytes in segments that no item uses.", engine.deadBytes)
        page.gauge("martlet_engine_index_bytes", "Bytes of the index.", engine.indexBytes)
        page.gauge("martlet_engine_ghost_bytes", "Bytes that remember evicted keys.", engine.ghostBytes)
        page.gauge("martlet_engine_shards", "Shards, each behind a lock.", self.engine.shardCount)
        page.gauge("martlet_engine_segments", "Segments in use.", engine.segments)
        page.gauge("martlet_engine_large_items", "Items with a segment of their own.", engine.largeItems)
        page.counter("martlet_engine_promotions_total", "Items promoted to the main queue.", engine.promotions)
        page.counter(
            "martlet_engine_reinsertions_total", "Items that stayed in the main queue for another round.",
            engine.reinsertions)
        page.counter("martlet_engine_ghost_hits_total", "Items stored again soon after eviction.", engine.ghostHits)
        page.counter("martlet_engine_compactions_total", "Segments rewritten for their dead bytes.", engine.compactions)
        page.counter("martlet_engine_expired_total", "Expired items dropped.", engine.reclaimed)
        page.counter("martlet_engine_out_of_memory_total", "Stores that no memory was found for.", engine.outOfMemory)
    }

    func appendMemoryMetrics(to page: inout Exposition) {
        let memory = AllocatorStatistics.current()
        page.family("martlet_jemalloc_bytes", .gauge, help: "Bytes of memory as jemalloc knows it, by kind.")
        let kinds = [
            ("allocated", memory.allocatedBytes), ("active", memory.activeBytes), ("metadata", memory.metadataBytes),
            ("resident", memory.residentBytes), ("mapped", memory.mappedBytes), ("retained", memory.retainedBytes),
        ]
        for (kind, bytes) in kinds { page.sample(UInt64(clamping: bytes), ("kind", kind)) }
        page.gauge(
            "martlet_huge_page_bytes", "Bytes of items and index that huge pages map.", UInt64(engine.hugePageBytes))
        page.family("martlet_arena_bytes", .gauge, help: "Bytes of the arenas for items and for the index, by kind.")
        for (name, arena) in [("items", engine.itemArena), ("index", engine.indexArena)] {
            let statistics = arena.statistics
            let kinds = [
                ("allocated", statistics.allocatedBytes), ("active", statistics.activeBytes),
                ("dirty", statistics.dirtyBytes),
            ]
            for (kind, bytes) in kinds { page.sample(UInt64(clamping: bytes), ("arena", name), ("kind", kind)) }
        }
    }

    func appendReactorMetrics(_ reading: MetricsReading, to page: inout Exposition) {
        let counters: [(String, String, ReactorCounter)] = [
            ("read_calls", "Calls of read, over TLS of OpenSSL's.", .readCalls),
            ("write_calls", "Calls of write, over TLS of OpenSSL's.", .writeCalls),
            ("partial_writes", "Writes that the socket did not take whole.", .partialWrites),
            ("idle_kicks", "Connections closed for idling.", .idleKicks),
            ("slow_readers", "Connections closed because too much output waited for them.", .slowReaders),
            ("input_limits", "Connections closed for too much input without a request.", .inputLimits),
            ("accept_errors", "Connections that could not be accepted.", .acceptErrors),
            ("messages", "Messages from other threads.", .messages),
            ("tls_handshake_errors", "TLS handshakes that failed.", .handshakeErrors),
            ("tls_protocol_errors", "TLS failures after the handshake.", .protocolErrors),
            ("tls_new_sessions", "TLS sessions that were not resumed.", .newSessions),
            ("datagrams_read", "Request datagrams.", .datagramsRead),
            ("datagrams_written", "Reply datagrams.", .datagramsWritten),
            ("datagrams_dropped", "Reply datagrams dropped.", .datagramsDropped),
        ]
        for (name, help, counter) in counters {
            page.counter("martlet_reactor_\(name)_total", help, reading.figures.network[counter])
        }
        guard let group else { return }
        page.family("martlet_reactor_turns_total", .counter, help: "Turns of the event loop, by reactor.")
        for reactor in group.reactors {
            page.sample(reactor.counters.load(.turns), ("reactor", String(reactor.index)))
        }
        page.family("martlet_reactor_connections", .gauge, help: "Connections open now, by reactor.")
        for reactor in group.reactors {
            page.sample(reactor.counters.load(.connections), ("reactor", String(reactor.index)))
        }
    }

    /// Counts by key prefix, while they are collected.
    func appendPrefixMetrics(to page: inout Exposition) {
        var all = prefixes.all()
        if all.count > Self.prefixLimit {
            all = Array(all.sorted { $0.counts.gets > $1.counts.gets }.prefix(Self.prefixLimit))
        }
        page.family(
            "martlet_prefix_commands_total", .counter,
            help: "Commands by key prefix, command and outcome; while `stats detail` is on.")
        for (prefix, counts) in all {
            let name = PercentEncoding.encoded(prefix.span)
            page.sample(counts.hits, ("prefix", name), ("command", "get"), ("status", "hit"))
            page.sample(counts.gets &- counts.hits, ("prefix", name), ("command", "get"), ("status", "miss"))
            page.sample(counts.sets, ("prefix", name), ("command", "set"), ("status", "any"))
            page.sample(counts.deletes, ("prefix", name), ("command", "delete"), ("status", "any"))
        }
    }

    /// The hottest keys, as hashes unless the node shows keys.
    func appendHotKeyMetrics(to page: inout Exposition) {
        guard hotKeys.isOn else { return }
        let keys = shownHotKeys()
        page.family("martlet_hot_key_reads", .gauge, help: "Reads of the hottest keys, estimated; keys are hashed.")
        for key in keys { page.sample(key.count, ("key", key.name)) }
        page.family("martlet_hot_key_error", .gauge, help: "By how much the estimate may be too high, at most.")
        for key in keys { page.sample(key.error, ("key", key.name)) }
    }
}
