// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import Memory
internal import Platform
internal import Reactor
internal import Synchronization
internal import Telemetry

/// `stats martlet` and `stats hotkeys`: what memcached has no words for.
extension Node {
    func internalStatistics() -> StatisticsList {
        let figures = figuresSinceReset()
        var list = StatisticsList()
        list.add("martlet_version", ProductVersion.martlet)
        addEngine(figures, to: &list)
        if let warmUp {
            list.add("warm_up", warmUp.phaseText)
            list.add("warm_up_stored", warmUp.counters.stored.load(ordering: .relaxed))
            list.add("warm_up_left_out", warmUp.counters.leftOut.load(ordering: .relaxed))
            list.add("warm_up_failures", warmUp.counters.failures.load(ordering: .relaxed))
        }
        addMemory(to: &list)
        addReactors(figures, to: &list)
        addLatencies(to: &list)
        return list
    }

    private func addEngine(_ figures: NodeFigures, to list: inout StatisticsList) {
        let engine = figures.engine
        list.add("restored_items", restoredItems.load(ordering: .relaxed))
        list.add("engine_shards", self.engine.shardCount)
        list.add("engine_segment_bytes", self.engine.segmentBytes)
        list.add("engine_segments", engine.segments)
        list.add("engine_large_items", engine.largeItems)
        list.add("engine_limit_bytes", engine.limitBytes)
        list.add("engine_used_bytes", engine.usedBytes)
        list.add("engine_item_bytes", engine.itemBytes)
        list.add("engine_dead_bytes", engine.deadBytes)
        list.add("engine_index_bytes", engine.indexBytes)
        list.add("engine_index_buckets", engine.buckets)
        list.add("engine_ghost_bytes", engine.ghostBytes)
        let (new, main) = self.engine.queueStatistics(now: clock.now())
        for (name, queue) in [("new", new), ("main", main)] {
            list.add("queue_\(name)_items", queue.items)
            list.add("queue_\(name)_item_bytes", queue.itemBytes)
            list.add("queue_\(name)_segments", queue.segments)
            list.add("queue_\(name)_bytes", queue.segmentBytes)
            list.add("queue_\(name)_oldest_seconds", queue.oldestAge)
        }
        list.add("evictions_new", engine.evictions &- engine.mainEvictions)
        list.add("evictions_main", engine.mainEvictions)
        list.add("promotions", engine.promotions)
        list.add("reinsertions", engine.reinsertions)
        list.add("ghost_hits", engine.ghostHits)
        list.add("compactions", engine.compactions)
        list.add("expired", engine.reclaimed)
        list.add("out_of_memory", engine.outOfMemory)
        list.add("last_evicted_age_seconds", engine.lastEvictedAge)
    }

    private func addMemory(to list: inout StatisticsList) {
        let memory = AllocatorStatistics.current()
        list.add("jemalloc_allocated_bytes", memory.allocatedBytes)
        list.add("jemalloc_active_bytes", memory.activeBytes)
        list.add("jemalloc_metadata_bytes", memory.metadataBytes)
        list.add("jemalloc_resident_bytes", memory.residentBytes)
        list.add("jemalloc_mapped_bytes", memory.mappedBytes)
        list.add("jemalloc_retained_bytes", memory.retainedBytes)
        list.add("huge_page_bytes", engine.hugePageBytes)
        for (name, arena) in [("items", engine.itemArena), ("index", engine.indexArena)] {
            let statistics = arena.statistics
            list.add("arena_\(name)_allocated_bytes", statistics.allocatedBytes)
            list.add("arena_\(name)_active_bytes", statistics.activeBytes)
            list.add("arena_\(name)_dirty_bytes", statistics.dirtyBytes)
        }
        list.add("process_resident_bytes", ProcessUsage.current().residentBytes)
    }

    private func addReactors(_ figures: NodeFigures, to list: inout StatisticsList) {
        let names: [(String, ReactorCounter)] = [
            ("reactor_turns", .turns), ("reactor_messages", .messages), ("reactor_read_calls", .readCalls),
            ("reactor_write_calls", .writeCalls), ("reactor_partial_writes", .partialWrites),
            ("reactor_slow_readers", .slowReaders), ("reactor_input_limits", .inputLimits),
            ("reactor_accept_errors", .acceptErrors), ("reactor_idle_kicks", .idleKicks),
            ("reactor_datagrams_read", .datagramsRead), ("reactor_datagrams_written", .datagramsWritten),
            ("reactor_datagrams_dropped", .datagramsDropped),
        ]
        for (name, counter) in names { list.add(name, figures.network[counter]) }
    }

    /// Counts and quantiles since the start; a quantile is the upper bound of its bucket, and left out above the last
    /// one.
    private func addLatencies(to list: inout StatisticsList) {
        for kind in CommandKind.allCases {
            let latency = latency(of: kind)
            list.add("latency_\(kind.label)_count", latency.count)
            for (name, fraction) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
                guard let bound = latency.bound(fraction: fraction) else { continue }
                list.add("latency_\(kind.label)_\(name)_us", bound / 1000)
            }
        }
    }

    /// The latencies of one kind of command, of all reactors together.
    func latency(of kind: CommandKind) -> HistogramSnapshot {
        var sum = HistogramSnapshot()
        for reactor in counters {
            sum.add(reactor.latencies[kind.rawValue])
            sum.add(reactor.exemplars[kind.rawValue])
        }
        return sum
    }

    func hotKeyStatistics() -> StatisticsList {
        var list = StatisticsList()
        guard hotKeys.isOn else {
            list.add("hotkeys_status", "disabled")
            return list
        }
        for (index, key) in shownHotKeys().enumerated() {
            list.add("hotkey:\(index + 1):key", key.name)
            list.add("hotkey:\(index + 1):count", key.count)
            list.add("hotkey:\(index + 1):error", key.error)
        }
        return list
    }

    /// What routers ask for: the keys that are read most now, always hashed, with reads a second.
    func hotRateStatistics() -> StatisticsList {
        var list = StatisticsList()
        for (hash, rate) in hotKeys.rates(configuration.hotKeysShown) { list.add(Hexadecimal.digits(hash), rate) }
        return list
    }

    /// A hot key as it may be shown.
    struct ShownHotKey: Sendable, Equatable {
        let name: String
        let count: UInt64
        let error: UInt64
    }

    /// The hottest keys, as many as are to be shown: hashed, or percent-encoded where they may be shown.
    func shownHotKeys() -> [ShownHotKey] {
        hotKeys.top(configuration.hotKeysShown).map { key in
            let name = configuration.showsHotKeys ? PercentEncoding.encoded(key.key.span) : hashedName(key.key.span)
            return ShownHotKey(name: name, count: key.count, error: key.error)
        }
    }
}

/// What stands for a key that must not be shown: 16 hexadecimal digits of its XXH3 hash, the same as in log lines.
func hashedName(_ key: Span<UInt8>) -> String { Hexadecimal.digits(stableHash(key)) }
