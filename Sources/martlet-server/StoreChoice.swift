// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import NodeServer
internal import Platform
internal import Storage
internal import StoragePostgres
internal import StorageRegion
internal import StorageRocksDB

/// The store that the settings name.
func makeBackend(_ settings: StorageSettings) throws(StorageStartError) -> (any StorageBackend)? {
    switch settings.backend {
    case .none: return nil
    case .memory: return MemoryBackend()
    case .rocksdb: return RocksDBBackend(RocksDBConfiguration(settings))
    case .postgres: return PostgresBackend(PostgresConfiguration(settings))
    case .region:
        guard let configuration = RegionConfiguration(settings) else {
            throw StorageStartError("storage.backend: region needs `regions` with a home that has `serve`")
        }
        return RegionBackend(configuration)
    }
}

extension RegionConfiguration {
    /// What the node's settings say about the home region; nil where they do not name one.
    init?(_ settings: StorageSettings) {
        guard let home = settings.home, !home.endpoints.isEmpty else { return nil }
        self.init(home: home.region, endpoints: home.endpoints.map { Endpoint(host: $0.host, port: $0.port) })
        connections = settings.connections
        // Before the client gives up, so that it learns that nothing was done where nothing was sent.
        silenceMilliseconds = max(250, settings.timeoutMilliseconds * 3 / 4)
        guard home.usesTLS else { return }
        var security = Security()
        security.certificatePath = home.certificatePath
        security.keyPath = home.keyPath
        security.authorityPath = home.authorityPath
        security.serverName = home.serverName
        self.security = security
    }
}

extension PostgresConfiguration {
    /// What the node's settings say about the database; its connections are shared out between writers and readers.
    init(_ settings: StorageSettings) {
        self.init(url: settings.url ?? "")
        writers = max(1, min(32, settings.connections / 2))
        readers = max(1, min(64, settings.connections - writers))
        tombstoneMilliseconds = Int64(settings.tombstoneSeconds) * 1000
        poolNames = settings.pools.map(\.name)
        if let changes = settings.changes {
            (keepsOutbox, region, streamKeepMilliseconds) = (true, changes.region, changes.keepMilliseconds)
        }
        // Before the client gives up, so that it learns that nothing was done.
        statementTimeoutMilliseconds = max(500, settings.timeoutMilliseconds * 3 / 4)
        connectTimeoutMilliseconds = min(5000, max(2000, settings.timeoutMilliseconds))
        waitingMilliseconds = max(1, settings.timeoutMilliseconds * 3 / 4)
        isShared = settings.isShared
        instance = settings.instance ?? ProcessControl.hostName + ":" + settings.address
    }
}

extension RocksDBConfiguration {
    /// What the node's settings say about the embedded store.
    init(_ settings: StorageSettings) {
        self.init(path: settings.path)
        durability =
            switch settings.durability {
            case .sync: .sync
            case .group: .group
            case .async: .async
            }
        groupWaitMicroseconds = settings.groupWaitMicroseconds
        blockCacheBytes = settings.blockCacheBytes
        acceptsDamagedLog = settings.acceptsDamagedLog
        readerThreads = settings.readers
        // Before the client gives up, so that it learns that nothing was done.
        waitingMilliseconds = max(1, settings.timeoutMilliseconds * 3 / 4)
        tombstoneMilliseconds = Int64(settings.tombstoneSeconds) * 1000
        poolNames = settings.pools.map(\.name)
        if let changes = settings.changes {
            (keepsOutbox, region) = (true, changes.region)
            (outboxKeepMilliseconds, outboxLimitBytes) = (changes.keepMilliseconds, changes.keepBytes)
        }
    }
}
