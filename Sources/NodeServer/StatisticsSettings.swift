// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import Synchronization

/// `stats settings`: memcached 1.6.45's names in its order, from the node's configuration. Settings of parts that are
/// not here are told back as given, and those of storage on disk as they are where it is off.
extension Node {
    func settingsStatistics() -> StatisticsList {
        var list = StatisticsList()
        addNetworkSettings(to: &list)
        addProtocolSettings(to: &list)
        addMemorySettings(to: &list)
        addQueueSettings(to: &list)
        addExternalStorageSettings(to: &list)
        addTLSSettings(to: &list)
        list.add("num_napi_ids", configuration.tuning.napiIDs)
        list.add("memory_file", configuration.tuning.memoryFilePath ?? "(null)")
        list.add("client_flags_size", 4)
        return list
    }

    private func addNetworkSettings(to list: inout StatisticsList) {
        list.add("maxbytes", engine.limitBytes)
        list.add("maxconns", configuration.connectionLimit)
        list.add("tcpport", configuration.port)
        list.add("udpport", configuration.datagramPort)
        list.add("inter", configuration.interfaceText ?? "NULL")
        list.add("verbosity", verbosity.load(ordering: .relaxed))
        list.add("oldest", 0)
        list.add("evictions", configuration.evicts ? "on" : "off")
        list.add("domain_socket", configuration.unixSocketPath ?? "NULL")
        list.add("umask", String(configuration.unixSocketMode, radix: 8))
        list.add("shutdown_command", configuration.allowsShutdown)
    }

    private func addProtocolSettings(to list: inout StatisticsList) {
        let tuning = configuration.tuning
        list.add("growth_factor", tuning.growthFactor, decimals: 2)
        list.add("chunk_size", tuning.chunkSize)
        list.add("num_threads", configuration.threads)
        list.add("num_threads_per_udp", configuration.threads)
        list.add("stat_key_prefix", String(Unicode.Scalar(configuration.prefixDelimiter)))
        list.add("detail_enabled", prefixes.isOn)
        list.add("reqs_per_event", configuration.requestsPerTurn)
        list.add("cas_enabled", configuration.usesCAS)
        list.add("tcp_backlog", configuration.backlog)
        let binding =
            switch configuration.restriction {
            case .automatic: "auto-negotiate"
            case .ascii: "ascii"
            case .binary: "binary"
            }
        list.add("binding_protocol", binding)
        list.add("auth_enabled_sasl", false)
        list.add("auth_enabled_ascii", configuration.authenticationPath ?? "no")
        list.add("item_size_max", configuration.maximumItemBytes)
        list.add("maxconns_fast", configuration.refusesBeyondLimit)
    }

    private func addMemorySettings(to list: inout StatisticsList) {
        let tuning = configuration.tuning
        let choices = baseline.crawler.choices
        list.add("hashpower_init", tuning.hashPower)
        list.add("slab_reassign", tuning.reassignsSlabs)
        list.add("slab_automove", tuning.slabAutomove)
        list.add("slab_automove_ratio", tuning.slabAutomoveRatio, decimals: 2)
        list.add("slab_automove_window", tuning.slabAutomoveWindow)
        list.add("slab_chunk_max", tuning.slabChunkMaximum)
        list.add("lru_crawler", isCrawlerOn)
        list.add("lru_crawler_sleep", choices.sleepMicroseconds.map(Int.init) ?? tuning.crawlerSleepMicroseconds)
        list.add("lru_crawler_tocrawl", choices.toCrawl.map(Int.init) ?? tuning.crawlerToCrawl)
        list.add("tail_repair_time", tuning.tailRepairTime)
        list.add("flush_enabled", configuration.allowsFlush)
        list.add("dump_enabled", configuration.allowsDump)
        list.add("hash_algorithm", tuning.hashAlgorithm)
    }

    private func addQueueSettings(to list: inout StatisticsList) {
        let tuning = configuration.tuning
        list.add("lru_maintainer_thread", tuning.maintainsLRU)
        list.add("lru_segmented", tuning.isSegmentedLRU)
        list.add("hot_lru_pct", tuning.hotPercent)
        list.add("warm_lru_pct", tuning.warmPercent)
        list.add("hot_max_factor", tuning.hotMaximumFactor, decimals: 2)
        list.add("warm_max_factor", tuning.warmMaximumFactor, decimals: 2)
        list.add("temp_lru", tuning.hasTemporaryLRU)
        list.add("temporary_ttl", tuning.temporaryTTL)
        list.add("idle_timeout", configuration.idleTimeoutSeconds)
        list.add("watcher_logbuf_size", configuration.watcherBufferBytes)
        list.add("worker_logbuf_size", configuration.workerLogBufferBytes)
        list.add("read_buf_mem_limit", tuning.readBufferLimitBytes)
        list.add("track_sizes", tuning.tracksSizes)
        list.add("inline_ascii_response", false)
    }

    private func addExternalStorageSettings(to list: inout StatisticsList) {
        list.add("ext_item_size", 512)
        list.add("ext_item_age", UInt32.max)
        list.add("ext_low_ttl", 0)
        list.add("ext_recache_rate", 2000)
        list.add("ext_wbuf_size", 4 << 20)
        list.add("ext_compact_under", 0)
        list.add("ext_drop_under", 0)
        list.add("ext_max_sleep", 1_000_000)
        list.add("ext_max_frag", 0.8, decimals: 2)
        list.add("slab_automove_freeratio", 0.01, decimals: 3)
        list.add("ext_drop_unread", false)
    }

    private func addTLSSettings(to list: inout StatisticsList) {
        let tls = configuration.tls ?? ServerTLS()
        let hasTLS = configuration.tls != nil
        list.add("ssl_enabled", hasTLS)
        list.add("ssl_chain_cert", hasTLS ? tls.certificatePath : "(null)")
        list.add("ssl_key", tls.keyPath ?? "(null)")
        list.add("ssl_verify_mode", tls.verification.rawValue)
        // OpenSSL's numbers: 1 is PEM, 2 is DER.
        list.add("ssl_keyformat", tls.isKeyDER ? 2 : 1)
        list.add("ssl_ciphers", tls.ciphers ?? "NULL")
        list.add("ssl_ca_cert", tls.authorityPath ?? "NULL")
        list.add("ssl_wbuf_size", tls.writeBufferBytes)
        list.add("ssl_session_cache", tls.cachesSessions)
        list.add("ssl_kernel_tls", tls.usesKernelTLS)
        let version =
            switch tls.minimumVersion {
            case .tls10: "tlsv1.0"
            case .tls11: "tlsv1.1"
            case .tls12: "tlsv1.2"
            case .tls13: "tlsv1.3"
            }
        list.add("ssl_min_version", version)
    }
}
