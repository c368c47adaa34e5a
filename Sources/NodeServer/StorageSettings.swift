// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Hosting
package import Overload
package import Storage

/// The store behind a node, as configured.
package struct StorageSettings: Sendable, Equatable {
    /// Which store.
    package enum Backend: String, Sendable, CaseIterable {
        /// None: a plain cache.
        case none
        /// Rows in this process's memory, gone with it: for trying things out.
        case memory
        /// RocksDB in this process.
        case rocksdb
        /// A server that speaks PostgreSQL's protocol.
        case postgres
        /// The home region's nodes: for nodes of a replica region.
        case region

        /// What OpenTelemetry calls it; nil where there is none. Source: semantic conventions, db.system.name.
        var systemName: String? {
            switch self {
            case .none: nil
            case .memory: "martlet.memory"
            case .rocksdb: "rocksdb"
            case .postgres: "postgresql"
            case .region: "memcached"
            }
        }
    }

    /// When a write is acked.
    package enum Durability: String, Sendable, CaseIterable {
        /// When it is on disk; writes that wait together share an fsync.
        case sync
        /// The same, after waiting a little for more writes to share it.
        case group
        /// When it is with the operating system: a crash of the machine loses the last moments.
        case async
    }

    /// Which store.
    package var backend = Backend.none
    /// RocksDB's directory.
    package var path = "data"
    /// When a write is acked.
    package var durability = Durability.sync
    /// How long `group` waits for more writes, in microseconds.
    package var groupWaitMicroseconds = 1000
    /// Bytes for RocksDB's block cache.
    package var blockCacheBytes = 64 << 20
    /// Whether a damaged log is cut rather than refused.
    package var acceptsDamagedLog = false
    /// Threads that read.
    package var readers = 2
    /// PostgreSQL: a connection string or URL; secret.
    package var url: String?
    /// The region's own standby of home's PostgreSQL: a connection string or URL; secret.
    package var standbyURL: String?
    /// What the node needs where another region may become home; nil where none may, or it has no such store.
    package var promotion: Promotion?
    /// PostgreSQL: what names this node to the database; nil for the host's name and `address`.
    package var instance: String?
    /// Where the node listens first: what tells the nodes of a host apart.
    package var address = ""
    /// PostgreSQL, and the home region: connections at most.
    package var connections = 8
    /// PostgreSQL: whether nodes that share the database agree in it on who owns which key.
    package var isShared = false
    /// How long a client waits for the store at most, in milliseconds.
    package var timeoutMilliseconds = 2000
    /// How long a backend may take, in milliseconds: less than its client is given, which then learns that nothing was
    /// done where nothing was.
    package var backendMilliseconds: Int { max(1, timeoutMilliseconds * 3 / 4) }
    /// How long commands may queue behind others for the store until more are refused, in nanoseconds: three eighths of
    /// ``timeoutMilliseconds`` at most; 0 is as long as they may wait at all.
    package var queueTargetNanoseconds = UInt64.max
    /// From how long on a command is logged as slow, in milliseconds; 0 is never.
    package var slowMilliseconds = 250
    /// Bytes of rows that may wait for clients who do not read, on the whole node.
    package var waitingRowBytes = 128 << 20
    /// The largest item that clients may store, in bytes.
    package var itemBytes = 1 << 20
    /// How many rows the embedded store may be asked for at once: their size is not known before they are there, and
    /// the largest are to have at most 128 MiB together.
    package var lookupRows: Int { max(1, min(128, (128 << 20) / max(1, itemBytes))) }
    /// How long tombstones are kept, in seconds.
    package var tombstoneSeconds = 86_400
    /// What is kept of changes for those who follow them; nil where nobody does.
    package var changes: Changes?
    /// The home region, for nodes of a replica region that read and write there; nil for others.
    package var home: Home?
    /// Where the nodes of a replica region agree on who owns which key; nil where each serves every key.
    package var authority: Authority?
    /// Whether it is spoken to over TLS.
    package var usesTLS = false
    /// The name in its certificates; nil for the host of each address.
    package var serverName: String?
    /// The pools by prefix.
    package var pools: [PoolSettings] = []

    /// The home region, as a replica region's node reads and writes there.
    package struct Home: Sendable, Equatable {
        /// Its name.
        package var region: String
        /// Its routers or nodes.
        package var endpoints: [AdminEndpoint]
        /// Whether it is spoken to over TLS.
        package var usesTLS: Bool
        /// Our certificate.
        package var certificatePath: String?
        /// Its key, where that is in another file.
        package var keyPath: String?
        /// Who signs the home region's.
        package var authorityPath: String?
        /// Which of those are revoked.
        package var revocationPath: String?
        /// The name in its certificates; nil for the host of each address.
        package var serverName: String?
    }

    /// Where the nodes of a replica region agree.
    package struct Authority: Sendable, Equatable {
        /// `etcd://HOST:PORT/PREFIX`.
        package var place: String
        /// Certificates that etcd's is checked by; nil for the system's.
        package var caFile: String?
        /// How long leases last, in milliseconds.
        package var leaseMilliseconds: Int
    }

    /// What a node needs to go over to another home.
    package struct Promotion: Sendable, Equatable {
        /// Its own region.
        package var own: String
        /// Which region is home at first.
        package var first: String
        /// The regions that can be read from and written to when they are home.
        package var homes: [Home]
        /// The region's own database; nil where it has none.
        package var url: String?
        /// What it keeps of changes while it is home.
        package var changes: Changes
    }

    /// What is kept of changes for those who follow them.
    package struct Changes: Sendable, Equatable {
        /// The region that they are of.
        package var region: String
        /// For how long, in milliseconds.
        package var keepMilliseconds: Int64
        /// How many bytes at most, in the embedded store.
        package var keepBytes: Int
    }

    package init() {}
}

extension StorageSettings.Home {
    /// The home region of `regions`; nil where the node's store is another.
    init?(_ regions: RegionSettings, storage: StorageSettings) {
        guard storage.backend == .region, let home = regions.home else { return nil }
        self.init(home, regions, storage)
    }

    init(_ home: RegionSettings.Region, _ regions: RegionSettings, _ storage: StorageSettings) {
        self.init(
            region: home.name, endpoints: home.serves, usesTLS: storage.usesTLS,
            certificatePath: regions.certificatePath, keyPath: regions.keyPath, authorityPath: regions.authorityPath,
            revocationPath: regions.revocationPath, serverName: storage.serverName)
    }
}

extension StorageSettings.Promotion {
    /// What the settings say; nil where no other region can become home, the node has no such store, or
    /// a ring of nodes is kept in it.
    init?(_ regions: RegionSettings, storage: StorageSettings) {
        guard !regions.candidates.isEmpty, let home = regions.home, !storage.isShared,
            storage.backend == .region || storage.backend == .postgres
        else { return nil }
        var homes = regions.candidates.filter { !$0.serves.isEmpty }.map { StorageSettings.Home($0, regions, storage) }
        // A node of the home region is asked for no TLS towards itself; towards another one it is as with streams.
        if storage.backend == .postgres {
            for index in homes.indices { homes[index].usesTLS = regions.certificatePath != nil }
        }
        homes.removeAll { !$0.usesTLS && !$0.endpoints.allSatisfy { RegionSettings.isLoopback($0.host) } }
        self.init(
            own: regions.own, first: home.name, homes: homes,
            url: storage.backend == .postgres ? storage.url : storage.standbyURL,
            changes: StorageSettings.Changes(
                region: regions.own, keepMilliseconds: regions.keepMilliseconds, keepBytes: regions.keepBytes))
    }
}

extension StorageSettings.Promotion {
    /// The store that goes over to another home, made of those that `make` gives for settings without a promotion;
    /// `database` gives what a region is home with.
    package func store(
        _ settings: StorageSettings, make: @escaping @Sendable (StorageSettings) -> (any StorageBackend)?,
        database: (StorageSettings) -> any HomeDatabase
    ) -> SwitchedBackend {
        var own = settings
        (own.backend, own.url, own.changes, own.promotion) = (.postgres, url, changes, nil)
        let (mine, homes) = (own, homes)
        return SwitchedBackend(
            database: url == nil ? nil : database(own), settings.backend == .postgres ? .own : .home(first)
        ) { choice in
            var chosen = mine
            switch choice {
            case .own: return mine.url == nil ? nil : make(chosen)
            case .home(let region):
                chosen.backend = .region
                chosen.home = homes.first { $0.region == region }
                return chosen.home == nil ? nil : make(chosen)
            }
        }
    }
}

extension StorageSettings.Changes {
    /// What nodes of a region keep: those of the home region, and all who write to a shared database.
    init?(_ regions: RegionSettings, backend: StorageSettings.Backend) {
        let isFollowed = regions.listen != nil || regions.kafka != nil
        guard regions.isOn, backend == .postgres || (regions.isHome && isFollowed) else { return nil }
        self.init(region: regions.own, keepMilliseconds: regions.keepMilliseconds, keepBytes: regions.keepBytes)
    }
}

/// A part of the keys with rules of its own.
package struct PoolSettings: Sendable, Equatable {
    /// What statistics call it.
    package var name: String
    /// What its keys begin with; empty for all keys that no other pool's prefix matches.
    package var prefix: [UInt8]
    /// Whether its keys are in the store; if not, they are in the cache only.
    package var hasStorage = true
    /// How much its requests matter when not all can be served; nil when nobody said.
    package var requestClass: RequestClass?
    /// What becomes of its reads while the stream is further behind than its bound.
    package var lagPolicy = LagPolicy.revalidate
    /// What the contract leaves to the pool.
    package var policy = StoragePoolPolicy()

    /// A pool with storage and the policy of a pool that was told nothing.
    package init(name: String, prefix: [UInt8]) {
        self.name = name
        self.prefix = prefix
    }
}

/// What becomes of a pool's reads while the stream that a node follows is further behind than its bound:
/// docs/contract.md, 14.
package enum LagPolicy: String, Sendable, CaseIterable {
    /// No copy is shown: the store answers, and without one it is a miss.
    case revalidate
    /// A copy is shown, as one that is stale.
    case serveStale
    /// They fail.
    case fail
}
