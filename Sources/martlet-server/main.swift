// Martlet
// SPDX-License-Identifier: Apache-2.0

import Hosting
import NodeServer
import Platform
import Storage
import StoragePostgres
import StorageRegion
import StorageRocksDB

/// The store that the settings name.
func makeBackend(_ settings: StorageSettings) throws(StorageStartError) -> (any StorageBackend)? {
    switch settings.backend {
    case .none: return nil
    case .memory: return MemoryBackend()
    case .rocksdb: return RocksDBBackend(RocksDBConfiguration(settings))
    case .postgres: return PostgresBackend(PostgresConfiguration(settings))
    case .region:
        guard let home = settings.home else { throw StorageStartError("storage.backend: region needs `regions`") }
        return RegionBackend(RegionConfiguration(home, settings))
    }
}

extension RegionConfiguration {
    /// What the node's settings say about the home region.
    init(_ home: StorageSettings.Home, _ settings: StorageSettings) {
        self.init(home: home.region, endpoints: home.endpoints.map { Endpoint(host: $0.host, port: $0.port) })
        connections = settings.connections
        silenceMilliseconds = max(250, settings.backendMilliseconds)
        guard home.usesTLS else { return }
        security = Security(home.certificatePath, key: home.keyPath, authority: home.authorityPath, home.serverName)
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
        statementTimeoutMilliseconds = max(500, settings.backendMilliseconds)
        connectTimeoutMilliseconds = min(5000, max(2000, settings.timeoutMilliseconds))
        waitingMilliseconds = settings.backendMilliseconds
        queueTargetNanoseconds = settings.queueTargetNanoseconds
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
        waitingMilliseconds = settings.backendMilliseconds
        queueTargetNanoseconds = settings.queueTargetNanoseconds
        tombstoneMilliseconds = Int64(settings.tombstoneSeconds) * 1000
        poolNames = settings.pools.map(\.name)
        if let changes = settings.changes {
            (keepsOutbox, region) = (true, changes.region)
            (outboxKeepMilliseconds, outboxLimitBytes) = (changes.keepMilliseconds, changes.keepBytes)
        }
    }
}

let arguments = programArguments()
let commandLine = NodeCommandLine(
    program: arguments.first ?? "martlet-server", arguments: Array(arguments.dropFirst()),
    environment: Environment.all()
) { path in
    do throws(SystemError) {
        return .success(try readFile(path, limitBytes: 4 << 20))
    } catch {
        return .failure(NodeCommandLine.FileProblem(error.reason))
    }
}

do throws(StartRefusal) {
    try NodeProgram(commandLine, backend: makeBackend).run()
} catch {
    writeWhole(Array(error.output.utf8), to: 1)
    writeWhole(Array(error.errors.utf8), to: 2)
    exitProcess(error.code)
}
