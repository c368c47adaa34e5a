// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting

extension MemcachedOptions {
    /// Takes `-o`: sub-options with commas between them, each a name or `name=value`.
    mutating func takeExtended(_ text: String) throws(StartRefusal) {
        var rest = Substring(text)
        while !rest.isEmpty {
            let option = rest.prefix { $0 != "," }
            rest = rest.dropFirst(option.count + 1)
            let name = String(option.prefix { $0 != "=" })
            let value = name.count < option.count ? String(option.dropFirst(name.count + 1)) : nil
            if takeWord(name) { continue }
            if try takeSlab(name, value) { continue }
            if try takeLRU(name, value) { continue }
            if try takeBuffer(name, value) { continue }
            if try takeTLS(name, value) { continue }
            if try takeExternalStorage(name, value) { continue }
            throw Self.failure("Illegal suboption \"\(option)\"")
        }
    }

    /// The sub-options that need no value.
    private mutating func takeWord(_ name: String) -> Bool {
        switch name {
        case "maxconns_fast": edit { $0.configuration.refusesBeyondLimit = true }
        case "no_maxconns_fast": edit { $0.configuration.refusesBeyondLimit = false }
        case "track_sizes": edit { $0.configuration.tuning.tracksSizes = true }
        case "ssl_session_cache": edit { $0.tls.cachesSessions = true }
        case "ssl_kernel_tls": edit { $0.tls.usesKernelTLS = true }
        case "lru_crawler": edit { $0.configuration.tuning.runsCrawler = true }
        case "no_lru_crawler": edit { $0.configuration.tuning.runsCrawler = false }
        case "modern", "inline_ascii_resp", "no_inline_ascii_resp", "relaxed_privileges", "sock_cookie_id": break
        case "no_hashexpand": effectless(name) { $0.expandsHash = false }
        case "slab_reassign": effectless(name) { $0.reassignsSlabs = true }
        case "no_slab_reassign": effectless(name) { $0.reassignsSlabs = false }
        case "no_slab_automove": effectless(name) { $0.slabAutomove = 0 }
        case "no_chunked_items": effectless(name) { $0.slabChunkMaximum = 1 << 20 }
        case "lru_maintainer":
            effectless(name) {
                $0.maintainsLRU = true
                $0.isSegmentedLRU = true
            }
        case "no_lru_maintainer":
            effectless(name) {
                $0.maintainsLRU = false
                $0.isSegmentedLRU = false
            }
        case "drop_privileges": effectless(name) { $0.dropsPrivileges = true }
        case "no_drop_privileges": effectless(name) { $0.dropsPrivileges = false }
        case "no_modern":
            edit {
                $0.configuration.refusesBeyondLimit = false
                if !$0.hasSlabChunkMaximum { $0.configuration.tuning.slabChunkMaximum = 1 << 20 }
            }
            effectless(name) {
                $0.reassignsSlabs = false
                $0.slabAutomove = 0
                $0.isSegmentedLRU = false
                $0.hashAlgorithm = "jenkins"
                $0.runsCrawler = false
                $0.maintainsLRU = false
            }
        case "resp_obj_mem_limit":
            edit { $0.warnings.append("resp_obj_mem_limit has no effect any more; see read_buf_mem_limit") }
        default: return false
        }
        return true
    }

    private mutating func takeSlab(_ name: String, _ value: String?) throws(StartRefusal) -> Bool {
        switch name {
        case "hashpower":
            let power = cInteger(try needed(value, "Missing numeric argument for hashpower"))
            try refuse("Initial hashtable multiplier of \(power) is too low", unless: power >= 12)
            let hint = "Choose a value based on \"STAT hash_power_level\" from a running instance"
            try refuse("Initial hashtable multiplier of \(power) is too high\n\(hint)", unless: power <= 32)
            effectless(name) { $0.hashPower = Int(power) }
        case "slab_automove":
            let mode = value.map(cInteger) ?? 1
            try refuse("slab_automove must be between 0 and 2", unless: (0...2).contains(mode))
            effectless(name) { $0.slabAutomove = Int(mode) }
        case "slab_automove_ratio":
            let ratio = cDouble(try needed(value, "Missing slab_automove_ratio argument"))
            try refuse("slab_automove_ratio must be > 0 and < 1", unless: ratio > 0 && ratio <= 1)
            effectless(name) { $0.slabAutomoveRatio = ratio }
        case "slab_automove_window":
            let window = cInteger(try needed(value, "Missing slab_automove_window argument"))
            try refuse("slab_automove_window must be > 2 and < 1800", unless: (3...1800).contains(window))
            effectless(name) { $0.slabAutomoveWindow = Int(window) }
        case "slab_chunk_max":
            let text = try needed(value, "Missing slab_chunk_max argument")
            guard let kilobytes = strictInteger(text) else { throw Self.unreadable(name) }
            try refuse("slab_chunk_max must be >= 0", unless: kilobytes > 0)
            try refuse("slab_chunk_max must be specified in kilobytes.", unless: kilobytes <= 1024)
            edit { $0.hasSlabChunkMaximum = true }
            effectless(name) { $0.slabChunkMaximum = Int(kilobytes) << 10 }
        case "slab_sizes":
            let sizes = try needed(value, "Missing slab_sizes argument")
            edit { $0.slabSizes = sizes }
            ignore(name)
        case "hash_algorithm":
            let algorithm = try needed(value, "Missing hash_algorithm argument")
            let known = ["jenkins", "murmur3", "xxh3"].contains(algorithm)
            try refuse("Unknown hash_algorithm option (jenkins, murmur3, xxh3)", unless: known)
            effectless(name) { $0.hashAlgorithm = algorithm }
        case "tail_repair_time":
            let seconds = cInteger(try needed(value, "Missing numeric argument for tail_repair_time"))
            try refuse("Cannot set tail_repair_time to less than 10 seconds", unless: seconds >= 10)
            effectless(name) { $0.tailRepairTime = Int(seconds) }
        default: return false
        }
        return true
    }

    private mutating func takeLRU(_ name: String, _ value: String?) throws(StartRefusal) -> Bool {
        switch name {
        case "lru_crawler_sleep":
            let sleep = cInteger(try needed(value, "Missing lru_crawler_sleep value"))
            try refuse("LRU crawler sleep must be between 0 and 1 second", unless: (0...1_000_000).contains(sleep))
            effectless(name) { $0.crawlerSleepMicroseconds = Int(sleep) }
        case "lru_crawler_tocrawl":
            let text = try needed(value, "Missing lru_crawler_tocrawl value")
            guard let count = strictUnsigned(text) else {
                throw Self.failure("lru_crawler_tocrawl takes a numeric 32bit value")
            }
            effectless(name) { $0.crawlerToCrawl = Int(count) }
        case "hot_lru_pct":
            let percent = cInteger(try needed(value, "Missing hot_lru_pct argument"))
            try refuse("hot_lru_pct must be > 1 and < 80", unless: (1..<80).contains(percent))
            effectless(name) { $0.hotPercent = Int(percent) }
        case "warm_lru_pct":
            let percent = cInteger(try needed(value, "Missing warm_lru_pct argument"))
            try refuse("warm_lru_pct must be > 1 and < 80", unless: (1..<80).contains(percent))
            effectless(name) { $0.warmPercent = Int(percent) }
        case "hot_max_factor":
            let factor = cDouble(try needed(value, "Missing hot_max_factor argument"))
            try refuse("hot_max_factor must be > 0", unless: factor > 0)
            effectless(name) { $0.hotMaximumFactor = factor }
        case "warm_max_factor":
            let factor = cDouble(try needed(value, "Missing warm_max_factor argument"))
            try refuse("warm_max_factor must be > 0", unless: factor > 0)
            effectless(name) { $0.warmMaximumFactor = factor }
        case "temporary_ttl":
            let seconds = cInteger(try needed(value, "Missing temporary_ttl argument"))
            effectless(name) {
                $0.hasTemporaryLRU = true
                $0.temporaryTTL = Int(UInt32(bitPattern: seconds))
            }
        default: return false
        }
        return true
    }

    private mutating func takeBuffer(_ name: String, _ value: String?) throws(StartRefusal) -> Bool {
        switch name {
        case "idle_timeout":
            let seconds = cInteger(try needed(value, "Missing numeric argument for idle_timeout"))
            edit { $0.configuration.idleTimeoutSeconds = max(0, Int(seconds)) }
        case "watcher_logbuf_size":
            let kilobytes = try unsigned(name, value)
            edit { $0.configuration.watcherBufferBytes = kilobytes << 10 }
        case "worker_logbuf_size":
            let kilobytes = try unsigned(name, value)
            edit { $0.configuration.workerLogBufferBytes = kilobytes << 10 }
        case "read_buf_mem_limit":
            let megabytes = try unsigned(name, value)
            effectless(name) { $0.readBufferLimitBytes = megabytes << 20 }
        default: return false
        }
        return true
    }

    private mutating func takeTLS(_ name: String, _ value: String?) throws(StartRefusal) -> Bool {
        switch name {
        case "ssl_chain_cert":
            let path = try needed(value, "Missing \(name) argument")
            edit { $0.tls.certificatePath = path }
        case "ssl_key":
            let path = try needed(value, "Missing \(name) argument")
            edit { $0.tls.keyPath = path }
        case "ssl_ca_cert":
            let path = try needed(value, "Missing \(name) argument")
            edit { $0.tls.authorityPath = path }
        case "ssl_ciphers":
            let list = try needed(value, "Missing \(name) argument")
            edit { $0.tls.ciphers = list }
        case "ssl_wbuf_size":
            let kilobytes = try unsigned(name, value)
            edit { $0.tls.writeBufferBytes = kilobytes << 10 }
        case "ssl_keyformat":
            // OpenSSL's numbers for PEM and ASN.1; the words, too, because memcached's help speaks of them.
            let text = try needed(value, "Missing \(name) argument")
            guard let isDER = ["1": false, "PEM": false, "2": true, "DER": true][text] else {
                throw Self.unreadable(name)
            }
            edit { $0.tls.isKeyDER = isDER }
        case "ssl_verify_mode":
            guard let number = strictInteger(try needed(value, "Missing \(name) argument")) else {
                throw Self.unreadable(name)
            }
            guard let mode = ServerTLS.Verification(rawValue: Int(number)) else {
                throw Self.failure("Invalid ssl_verify_mode. Use help to see valid options.")
            }
            edit { $0.tls.verification = mode }
        case "ssl_min_version":
            guard let number = strictInteger(try needed(value, "Missing \(name) argument")) else {
                throw Self.unreadable(name)
            }
            guard let version = ServerTLS.Version(rawValue: Int(number)) else {
                throw Self.failure("Invalid ssl_min_version. Use help to see valid options.")
            }
            edit { $0.tls.minimumVersion = version }
        default: return false
        }
        return true
    }

    /// memcached's external storage, which is accepted and does nothing: a node without it still is a cache.
    private mutating func takeExternalStorage(_ name: String, _ value: String?) throws(StartRefusal) -> Bool {
        switch name {
        case "ext_page_size", "ext_wbuf_size", "ext_threads", "ext_io_depth", "ext_item_size", "ext_item_age",
            "ext_low_ttl", "ext_recache_rate", "ext_compact_under", "ext_drop_under", "ext_max_sleep":
            _ = try unsigned(name, value)
        case "ext_max_frag", "slab_automove_freeratio":
            let text = try needed(value, "Missing \(name) argument")
            guard strictDouble(text) != nil else { throw Self.unreadable(name) }
        case "ext_drop_unread": break
        case "ext_path":
            let path = try needed(value, "missing argument to ext_path, ie: ext_path=/d/file:5G")
            let hint = "must supply size to ext_path, ie: ext_path=/f/e:64m (M|G|T|P supported)"
            try refuse("\(hint)\nfailed to parse ext_path argument", unless: path.contains(":"))
        default: return false
        }
        ignore(name)
        return true
    }

    /// Records a value that `stats settings` shows and nothing else uses.
    private mutating func effectless(_ name: String, _ change: @escaping (inout MemcachedTuning) -> Void) {
        edit { change(&$0.configuration.tuning) }
        ignore(name)
    }

    private func needed(_ value: String?, _ message: String) throws(StartRefusal) -> String {
        guard let value else { throw Self.failure(message) }
        return value
    }

    private func unsigned(_ name: String, _ value: String?) throws(StartRefusal) -> Int {
        guard let number = strictUnsigned(try needed(value, "Missing \(name) argument")) else {
            throw Self.unreadable(name)
        }
        return Int(number)
    }

    private static func unreadable(_ name: String) -> StartRefusal {
        failure("could not parse argument to \(name)")
    }
}
