// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import Platform
internal import Reactor
internal import Telemetry

/// Plain `stats`: memcached 1.6.45's names in its order. What this cache has nothing of is 0.
extension Node {
    func generalStatistics() -> StatisticsList {
        let figures = figuresSinceReset()
        var list = StatisticsList()
        addProcess(to: &list)
        addConnections(figures, to: &list)
        addCommands(figures, to: &list)
        addNetwork(figures, to: &list)
        addTable(figures, to: &list)
        addThreads(figures, to: &list)
        addTLS(figures, to: &list)
        list.addZeros("unexpected_napi_ids", "round_robin_fallback")
        addItems(figures, to: &list)
        return list
    }

    private func addProcess(to list: inout StatisticsList) {
        let now = clock.now()
        let usage = ProcessUsage.current()
        list.add("pid", ProcessControl.identifier)
        list.add("uptime", clock.uptime(at: now))
        list.add("time", Int64(now) + clock.epoch)
        list.add("version", ProductVersion.memcached)
        list.add("libevent", "martlet-\(ProductVersion.martlet)-epoll")
        list.add("pointer_size", Int.bitWidth)
        list.add("rusage_user", microseconds: usage.userMicroseconds)
        list.add("rusage_system", microseconds: usage.systemMicroseconds)
    }

    private func addConnections(_ figures: NodeFigures, to list: inout StatisticsList) {
        let now = group?.connectionCount ?? 0
        list.add("max_connections", configuration.connectionLimit)
        list.add("curr_connections", now)
        list.add("total_connections", figures.network[.connectionsTotal])
        if configuration.refusesBeyondLimit { list.add("rejected_connections", figures.network[.connectionsRejected]) }
        list.add("connection_structures", now)
        list.addZeros(
            "response_obj_oom", "response_obj_count", "response_obj_bytes", "read_buf_count", "read_buf_bytes",
            "read_buf_bytes_free", "read_buf_oom", "reserved_fds")
    }

    private func addCommands(_ figures: NodeFigures, to list: inout StatisticsList) {
        let names: [(String, NodeCounter)] = [
            ("cmd_get", .cmdGet), ("cmd_set", .cmdSet), ("cmd_flush", .cmdFlush), ("cmd_touch", .cmdTouch),
            ("cmd_meta", .cmdMeta), ("get_hits", .getHits), ("get_misses", .getMisses),
        ]
        for (name, counter) in names { list.add(name, figures.commands[counter]) }
        list.add("get_expired", figures.engine.expiredOnAccess)
        list.addZeros("get_flushed")
        let rest: [(String, NodeCounter)] = [
            ("delete_misses", .deleteMisses), ("delete_hits", .deleteHits), ("incr_misses", .incrMisses),
            ("incr_hits", .incrHits), ("decr_misses", .decrMisses), ("decr_hits", .decrHits),
            ("cas_misses", .casMisses), ("cas_hits", .casHits), ("cas_badval", .casBadValue),
            ("touch_hits", .touchHits), ("touch_misses", .touchMisses), ("store_too_large", .storeTooLarge),
            ("store_no_memory", .storeNoMemory), ("auth_cmds", .authCommands), ("auth_errors", .authErrors),
        ]
        for (name, counter) in rest { list.add(name, figures.commands[counter]) }
    }

    private func addNetwork(_ figures: NodeFigures, to list: inout StatisticsList) {
        if configuration.idleTimeoutSeconds > 0 { list.add("idle_kicks", figures.network[.idleKicks]) }
        list.add("bytes_read", figures.network[.bytesRead])
        list.add("bytes_written", figures.network[.bytesWritten])
        list.add("limit_maxbytes", engine.limitBytes)
        list.add("accepting_conns", group?.isAccepting ?? true ? 1 : 0)
        list.add("listen_disabled_num", figures.network[.listenDisabled])
        list.add("time_in_listen_disabled_us", figures.network[.listenDisabledMicroseconds])
        list.add("threads", configuration.threads)
        list.add("conn_yields", figures.network[.yields])
    }

    /// The hash table, and the slab mover that there is not.
    private func addTable(_ figures: NodeFigures, to list: inout StatisticsList) {
        let buckets = max(figures.engine.buckets, 1)
        list.add("hash_power_level", Int.bitWidth - 1 - buckets.leadingZeroBitCount)
        list.add("hash_bytes", figures.engine.indexBytes)
        list.addZeros("hash_is_expanding")
        guard configuration.tuning.reassignsSlabs else { return }
        list.addZeros(
            "slab_reassign_rescues", "slab_reassign_chunk_rescues", "slab_reassign_inline_reclaim",
            "slab_reassign_busy_items", "slab_reassign_busy_deletes", "slab_reassign_busy_nomem")
        list.add("slab_reassign_last_busy_status", "none")
        list.addZeros("slab_reassign_running", "slabs_moved")
    }

    private func addThreads(_ figures: NodeFigures, to list: inout StatisticsList) {
        if isCrawlerOn {
            list.add("lru_crawler_running", baseline.crawler.isRunning ? 1 : 0)
            list.add("lru_crawler_starts", figures.crawler.starts)
        }
        if configuration.tuning.maintainsLRU { list.addZeros("lru_maintainer_juggles") }
        list.addZeros("malloc_fails", "log_worker_dropped")
        list.add("log_worker_written", figures.watching.written)
        list.add("log_watcher_skipped", figures.watching.skipped)
        list.add("log_watcher_sent", figures.watching.sent)
        list.add("log_watchers", figures.watching.watchers)
    }

    private func addTLS(_ figures: NodeFigures, to list: inout StatisticsList) {
        guard let tls = configuration.tls else { return }
        if tls.cachesSessions { list.add("ssl_new_sessions", figures.network[.newSessions]) }
        list.add("ssl_handshake_errors", figures.network[.handshakeErrors])
        list.add("ssl_proto_errors", figures.network[.protocolErrors])
        let loaded = certificatesLoaded ?? 0
        list.add("time_since_server_cert_refresh", (Clock.monotonicNanoseconds() &- loaded) / 1_000_000_000)
    }

    private func addItems(_ figures: NodeFigures, to list: inout StatisticsList) {
        let engine = figures.engine
        let hasMaintainer = configuration.tuning.maintainsLRU
        list.add("bytes", engine.itemBytes)
        list.add("curr_items", engine.items)
        list.add("total_items", engine.totalItems)
        list.addZeros("slab_global_page_pool")
        list.add("expired_unfetched", engine.expiredUnfetched)
        list.add("evicted_unfetched", engine.evictedUnfetched)
        if hasMaintainer { list.addZeros("evicted_active") }
        list.add("evictions", engine.evictions)
        list.add("reclaimed", engine.reclaimed &- engine.swept)
        list.add("crawler_reclaimed", engine.swept)
        list.add("crawler_items_checked", figures.crawler.checked)
        list.addZeros("lrutail_reflocked")
        guard hasMaintainer else { return }
        list.addZeros("moves_to_cold")
        list.add("moves_to_warm", engine.promotions)
        list.add("moves_within_lru", engine.reinsertions)
        // Whoever stores makes the room for it.
        list.add("direct_reclaims", engine.evictions)
        list.addZeros("lru_bumps_dropped")
    }
}
