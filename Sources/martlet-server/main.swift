// Martlet
// SPDX-License-Identifier: Apache-2.0

import Hosting
import NodeServer
import Platform
import Storage
import StoragePostgres
import StorageRegion
import StorageRocksDB

/// The store that the settings name; the one that goes over to another home is made of these.
func makeBackend(_ settings: StorageSettings, _ places: StreamPlaces) -> (any StorageBackend)? {
    if let promotion = settings.promotion {
        return promotion.store(settings, make: { makeBackend($0, places) }) { PostgresHome(PostgresConfiguration($0)) }
    }
    switch settings.backend {
    case .none: return nil
    case .memory: return MemoryBackend()
    case .rocksdb: return RocksDBBackend(RocksDBConfiguration(settings))
    case .postgres: return PostgresBackend(PostgresConfiguration(settings))
    case .region: return settings.home.map { RegionBackend(RegionConfiguration($0, settings), places: places) }
    }
}

extension RegionConfiguration {
    /// What the node's settings say about the home region.
    init(_ home: StorageSettings.Home, _ settings: StorageSettings) {
        self.init(home: home.region, endpoints: home.endpoints.map { Endpoint(host: $0.host, port: $0.port) })
        (connections, silenceMilliseconds) = (settings.connections, max(250, settings.backendMilliseconds))
        if let at = settings.authority {
            authority = Authority(at.place, caFile: at.caFile, leaseMilliseconds: at.leaseMilliseconds)
        }
        guard home.usesTLS else { return }
        security = Security(home.certificatePath, key: home.keyPath, authority: home.authorityPath, home.serverName)
        security?.revocationPath = home.revocationPath
    }
}

extension PostgresConfiguration {
    /// What the node's settings say about the database; its connections are shared out between writers and readers.
    init(_ settings: StorageSettings) {
        self.init(url: settings.url ?? "")
        writers = max(1, min(32, settings.connections / 2))
        readers = max(1, min(64, settings.connections - writers))
        (tombstoneMilliseconds, poolNames) = (Int64(settings.tombstoneSeconds) * 1000, settings.pools.map(\.name))
        if let changes = settings.changes {
            (keepsOutbox, region, streamKeepMilliseconds) = (true, changes.region, changes.keepMilliseconds)
            streamKeepBytes = changes.keepBytes
        }
        statementTimeoutMilliseconds = max(500, settings.backendMilliseconds)
        connectTimeoutMilliseconds = min(5000, max(2000, settings.timeoutMilliseconds))
        waitingMilliseconds = settings.backendMilliseconds
        queueTargetNanoseconds = settings.queueTargetNanoseconds
        (isShared, hasLargeRows) = (settings.isShared, settings.itemBytes > 1 << 20)
        instance = settings.instance ?? PostgresConfiguration.instance(ProcessControl.hostName + ":" + settings.address)
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
        (groupWaitMicroseconds, blockCacheBytes) = (settings.groupWaitMicroseconds, settings.blockCacheBytes)
        acceptsDamagedLog = settings.acceptsDamagedLog
        (readerThreads, waitingMilliseconds) = (settings.readers, settings.backendMilliseconds)
        (lookupRows, queueTargetNanoseconds) = (settings.lookupRows, settings.queueTargetNanoseconds)
        (tombstoneMilliseconds, poolNames) = (Int64(settings.tombstoneSeconds) * 1000, settings.pools.map(\.name))
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
