// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Overload
internal import Settings
internal import Storage

/// The settings of the store behind the cache, and of its pools.
extension NodeConfiguration {
    static let storageSettings: [Setting] = [
        Setting(
            "storage.backend", .enumeration(StorageSettings.Backend.allCases.map(\.rawValue)), default: "none",
            "The store behind the cache: none for a plain cache, memory for a trial, rocksdb in this process, "
                + "postgres, or the home region, from a replica region."),
        Setting("storage.path", .text, default: "data", "rocksdb: the directory of the data."),
        Setting(
            "storage.durability", .enumeration(StorageSettings.Durability.allCases.map(\.rawValue)), default: "sync",
            "rocksdb: when a write is acked: on disk (sync, group) or with the operating system (async)."),
        Setting(
            "storage.groupWait", .duration(0...2_000_000), default: "1ms",
            "rocksdb, group: how long to wait for more writes to share an fsync."),
        Setting("storage.blockCache", .size(1 << 20...1 << 40), default: "64MiB", "rocksdb: memory for blocks read."),
        Setting(
            "storage.acceptDamagedLog", .boolean, default: "false",
            "rocksdb: open a store whose log is damaged as it was before the damage, and give up what came later."),
        Setting("storage.readers", .integer(1...64), default: "2", "rocksdb: threads that read."),
        Setting(
            "storage.url", .text, secret: true, "postgres: connection string, postgresql://user@host:port/database."),
        Setting(
            "storage.standbyURL", .text, secret: true,
            "region: connection string of the region's own standby of home's PostgreSQL, with which it can be promoted."
        ),
        Setting(
            "storage.instance", .text,
            "postgres: what names this node to the database, the same over restarts; host name and port when absent."),
        Setting("storage.connections", .integer(2...64), default: "8", "postgres, region: connections at most."),
        Setting(
            "storage.tls", .boolean, default: "false",
            "region: whether the home region is spoken to over TLS, with stream.certificate, stream.key and stream.ca."
        ),
        Setting(
            "storage.tlsName", .text,
            "region, and postgres where another region may be home: the name in the certificates of home's listeners; "
                + "the host of each address when absent."),
        Setting(
            "storage.timeout", .duration(1_000_000...600_000_000_000), default: "2s",
            "How long a client waits for the store at most."),
        Setting(
            "storage.queueTarget", .duration(0...600_000_000_000),
            "How long commands may queue behind others for the store until more are refused; three eighths of "
                + "storage.timeout at most, and when absent. 0 never refuses for that."),
        Setting(
            "storage.slowLog", .duration(0...600_000_000_000), default: "250ms",
            "From how long on a command that waits for the store is logged, with its parts; 0 is never."),
        Setting(
            "storage.waitingRows", .size(1 << 20...1 << 40), default: "128MiB",
            "Rows that may wait for clients that do not read; beyond it, those who hold the most lose theirs. "
                + "As much may be on its way to the store."),
        Setting(
            "storage.tombstones", .duration(1_000_000_000...31_536_000_000_000_000), default: "1d",
            "How long deleted keys are remembered, in whole seconds."),
        Setting("pools", .mappings(poolFields), "Parts of the keys with rules of their own, by prefix."),
    ]

    private static let poolFields: [Setting] = [
        Setting("prefix", .text, required: true, "What the pool's keys begin with; \"\" is all other keys."),
        Setting("name", .text, "What statistics call it; the prefix when absent."),
        Setting("storage", .boolean, default: "true", "Whether its keys are in the store."),
        Setting(
            "cacheTTL", .duration(0...31_536_000_000_000_000), default: "0",
            "How old a cached copy may become, in whole seconds; 0 is as old as its row."),
        Setting(
            "staleIfError", .duration(0...31_536_000_000_000_000), default: "0",
            "How long behind cacheTTL a copy may answer, marked stale, when the store does not, in whole seconds; 0 is "
                + "never."),
        Setting(
            "staleWhileRevalidate", .duration(0...31_536_000_000_000_000), default: "0",
            "How long behind cacheTTL a copy answers at once, marked stale, while the store is asked; 0 is never."),
        Setting(
            "negativeTTL", .duration(0...86_400_000_000_000), default: "5s",
            "How long \"not there\" is cached, in whole seconds; 0 is not at all."),
        Setting(
            "lagPolicy", .enumeration(LagPolicy.allCases.map(\.rawValue)), default: "revalidate",
            "What becomes of reads while the stream is further behind than stream.lagBound: the store answers, or it "
                + "is a miss (revalidate); copies are shown, marked stale (serveStale); they fail (fail)."),
        Setting(
            "class", .enumeration(classNames), "How much its requests matter when not all can be served."),
        Setting(
            "valueLimit", .size(1...UInt64(StoragePoolPolicy.valueLimitMax)), default: "1GiB",
            "The largest value; the largest item bounds it as well."),
    ]
}

extension NodeConfigurationDraft {
    mutating func readStorage(_ values: SettingsValues, _ problems: inout [String]) {
        var storage = StorageSettings()
        storage.backend = values.text("storage.backend").flatMap(StorageSettings.Backend.init) ?? .none
        storage.path = values.text("storage.path") ?? "data"
        storage.durability = values.text("storage.durability").flatMap(StorageSettings.Durability.init) ?? .sync
        storage.groupWaitMicroseconds = Int(values.duration("storage.groupWait") / 1000)
        storage.blockCacheBytes = Int(values.size("storage.blockCache"))
        storage.acceptsDamagedLog = values.boolean("storage.acceptDamagedLog")
        storage.readers = values.integer("storage.readers")
        storage.url = values.text("storage.url")
        storage.standbyURL = values.text("storage.standbyURL")
        storage.instance = values.text("storage.instance")
        storage.connections = values.integer("storage.connections")
        storage.usesTLS = values.boolean("storage.tls")
        storage.serverName = values.text("storage.tlsName")
        storage.timeoutMilliseconds = Int(values.duration("storage.timeout") / 1_000_000)
        if values.isSet("storage.queueTarget") {
            storage.queueTargetNanoseconds = values.duration("storage.queueTarget")
        }
        storage.slowMilliseconds = Int(values.duration("storage.slowLog") / 1_000_000)
        storage.waitingRowBytes = Int(values.size("storage.waitingRows"))
        checkWholeSeconds("storage.tombstones", values, at: "storage.tombstones", &problems)
        storage.tombstoneSeconds = Int(values.duration("storage.tombstones") / 1_000_000_000)
        for mapping in values.mappings("pools") { readPool(mapping, &storage.pools, &problems) }
        if storage.backend == .none {
            checkLookAside(values.mappings("pools"), &storage.pools, &problems)
            // Whoever says where rows are means to have them.
            for (name, backend) in [
                ("storage.path", "rocksdb"), ("storage.durability", "rocksdb"), ("storage.url", "postgres"),
            ] where values.isSet(name) {
                problems.append("\(name): storage.backend is none, which keeps no rows; expected \(backend)")
            }
        }
        if storage.backend == .postgres, storage.url == nil {
            problems.append("storage.url: missing; storage.backend postgres needs one, such as postgresql://host/db")
        }
        if let name = storage.instance, name.isEmpty || !name.utf8.allSatisfy({ (33...126).contains($0) }) {
            problems.append(
                "storage.instance: \"\(name)\" is not valid; expected printable ASCII without spaces")
        }
        configuration.storage = storage
    }

    /// Copies and tombstones are counted in whole seconds: a fraction is refused rather than left out.
    private func checkWholeSeconds(
        _ name: String, _ values: SettingsValues, at place: String, _ problems: inout [String]
    ) {
        let duration = values.duration(name)
        guard duration % 1_000_000_000 != 0 else { return }
        problems.append("\(place): \(spell(duration: duration)) is not valid; expected whole seconds, such as 2s or 5m")
    }

    /// What a pool says of its rows.
    private static let storedOnly = ["cacheTTL", "staleIfError", "staleWhileRevalidate", "negativeTTL", "valueLimit"]

    /// Without a store, pools may say what is about the cache only.
    private func checkLookAside(
        _ mappings: [SettingsValues], _ pools: inout [PoolSettings], _ problems: inout [String]
    ) {
        for mapping in mappings where mapping.boolean("storage") {
            guard let name = (["storage"] + Self.storedOnly).first(where: { mapping.isSet($0) }) else { continue }
            problems.append(
                "\(mapping.place): \(name): storage.backend is none, which keeps no rows; expected rocksdb, postgres, "
                    + "region or memory")
        }
        for index in pools.indices { pools[index].hasStorage = false }
    }

    /// Where others change rows, too, something else says how long a copy may be shown.
    func checkSharing(_ problems: inout [String]) {
        guard configuration.storage.isShared || configuration.regions.isOn,
            configuration.storage.pools.contains(where: { $0.policy.staleWhileRevalidateMilliseconds > 0 })
        else { return }
        problems.append(
            "pools: staleWhileRevalidate: not with regions or ownership.hash, which say how long a copy may be shown")
    }

    /// What pools say of a stream that is behind, where there is one, and nobody takes what they show for fresh.
    func checkLagPolicies(_ values: SettingsValues, _ problems: inout [String]) {
        let pools = configuration.storage.pools
        for (mapping, pool) in zip(values.mappings("pools"), pools) where mapping.isSet("lagPolicy") {
            let place = "\(mapping.place): lagPolicy"
            if !configuration.regions.isOn {
                problems.append("\(place): there are no `regions`, and no stream that could be behind")
            } else if configuration.storage.backend != .none, !pool.hasStorage {
                problems.append("\(place): the pool has storage: false, and the stream does not tell of its keys")
            } else if pool.lagPolicy == .serveStale, configuration.warmUp.hash != nil {
                problems.append(
                    "\(place): serveStale; not with warmUp.hash, as nodes take what others show for fresh: revalidate "
                        + "or fail")
            }
        }
    }

    private func readPool(_ values: SettingsValues, _ pools: inout [PoolSettings], _ problems: inout [String]) {
        let prefix = values.text("prefix") ?? ""
        let bytes = Array(prefix.utf8)
        if bytes.count > 250 || bytes.contains(where: { $0 <= 32 || $0 == 127 }) {
            problems.append(
                "\(values.place): prefix: \"\(prefix)\" is not valid; expected up to 250 bytes of a key, no spaces")
        }
        if pools.contains(where: { $0.prefix == bytes }) {
            problems.append("\(values.place): prefix: \"\(prefix)\" is there twice")
        }
        var pool = PoolSettings(name: values.text("name") ?? (prefix.isEmpty ? "default" : prefix), prefix: bytes)
        pool.hasStorage = values.boolean("storage")
        if !pool.hasStorage, let name = Self.storedOnly.first(where: { values.isSet($0) }) {
            problems.append("\(values.place): \(name): is nothing in a pool without storage")
        }
        pool.requestClass = values.text("class").flatMap(RequestClass.init(label:))
        pool.lagPolicy = values.text("lagPolicy").flatMap(LagPolicy.init) ?? .revalidate
        func milliseconds(_ name: String) -> UInt64 {
            checkWholeSeconds(name, values, at: "\(values.place): \(name)", &problems)
            return values.duration(name) / 1_000_000
        }
        pool.policy.cacheTTLMilliseconds = milliseconds("cacheTTL")
        pool.policy.staleIfErrorMilliseconds = milliseconds("staleIfError")
        pool.policy.staleWhileRevalidateMilliseconds = milliseconds("staleWhileRevalidate")
        let (onError, meanwhile) = (
            pool.policy.staleIfErrorMilliseconds, pool.policy.staleWhileRevalidateMilliseconds
        )
        for (name, milliseconds) in [("staleIfError", onError), ("staleWhileRevalidate", meanwhile)]
        where milliseconds > 0 && pool.policy.cacheTTLMilliseconds == 0 {
            problems.append("\(values.place): \(name): needs a cacheTTL; without one, copies do not grow old")
        }
        pool.policy.negativeTTLMilliseconds = milliseconds("negativeTTL")
        pool.policy.valueLimitBytes = Int(values.size("valueLimit"))
        pools.append(pool)
    }
}
