// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Hosting
package import Telemetry
package import Tracing

/// Everything that a cache node is told before it starts: memcached's options and our own, checked and merged.
///
/// Made by ``NodeCommandLine``. A plain value: nothing in it refers to the system.
package struct NodeConfiguration: Sendable, Equatable {
    // MARK: Where it listens

    /// TCP listeners; empty when TCP is off or a unix socket takes its place.
    package var listeners: [ServerListener] = []
    /// UDP listeners; empty unless `-U` turns them on.
    package var datagramListeners: [ServerListener] = []
    /// The unix socket that replaces the network (`-s`).
    package var unixSocketPath: String?
    /// Its access mask (`-a`).
    package var unixSocketMode: UInt32 = 0o700
    /// `-l` as it was given, for `stats settings`; nil when nobody gave it, and loopback is the default.
    package var interfaceText: String?
    /// `-p`: 0 is off, -1 is a port of the kernel's choice.
    package var port = 11211
    /// `-U`: 0 is off.
    package var datagramPort = 0
    /// The file that gets the ports (MEMCACHED_PORT_FILENAME).
    package var portFilePath: String?
    /// The length of the queue of connections not accepted yet (`-b`).
    package var backlog = 1024
    /// What connections speak unless their listener says otherwise (`-B`).
    package var restriction = ProtocolRestriction.automatic

    // MARK: Threads and connections

    /// Reactor threads (`-t`).
    package var threads = 4
    /// Connections at once (`-c`).
    package var connectionLimit = 1024
    /// Whether a connection beyond the limit is told so and closed, rather than left waiting (`-o maxconns_fast`).
    package var refusesBeyondLimit = true
    /// Seconds without a request after which a connection is closed; 0 is never (`-o idle_timeout`).
    package var idleTimeoutSeconds = 0
    /// Requests of one connection before the others get their turn (`-R`).
    package var requestsPerTurn = 20
    /// Reply bytes that may wait for one connection that does not read them.
    package var outputLimitBytes = 64 << 20

    // MARK: The cache

    /// Bytes for items and index (`-m`).
    package var memoryBytes = 64 << 20
    /// The largest item (`-I`).
    package var maximumItemBytes = 1 << 20
    /// Whether full memory evicts rather than refuses (`-M` refuses).
    package var evicts = true
    /// Whether items have CAS values (`-C` turns them off).
    package var usesCAS = true
    /// Whether huge pages map memory that is wholly in use.
    package var usesHugePages = true

    /// How old items may be that a memory file (`-e`) brings back, in milliseconds.
    package var memoryFileAgeMilliseconds: Int64 = 600_000

    // MARK: The store behind the cache

    /// The store; its backend is `none` for a plain cache.
    package var storage = StorageSettings()

    // MARK: Regions

    /// The regions, and the stream between them.
    package var regions = RegionSettings()

    // MARK: Overload

    /// What it does when more is asked of it than it can serve in time.
    package var overload = OverloadSettings()

    // MARK: What clients may ask

    /// Whether `flush_all` is allowed (`-F` forbids).
    package var allowsFlush = true
    /// Whether dumps of keys are allowed (`-X` forbids).
    package var allowsDump = true
    /// Whether `watch` is allowed (`-W` forbids).
    package var allowsWatch = true
    /// Whether `debugtime` moves the node's clock: for tests of expiry (MARTLET_TEST_CLOCK=1 in the environment).
    package var allowsClockChanges = false
    /// Whether `shutdown` is allowed (`-A`).
    package var allowsShutdown = false
    /// The file of users and passwords (`-Y`); nil when nobody must log in.
    package var authenticationPath: String?
    /// Who may do what; empty when everybody may do everything.
    package var tenants: [TenantSettings] = []

    // MARK: Statistics

    /// What ends a key's prefix (`-D`).
    package var prefixDelimiter = UInt8(ascii: ":")
    /// Whether statistics by prefix are collected from the start (`-D`).
    package var collectsPrefixStatistics = false
    /// Whether hot keys are counted.
    package var countsHotKeys = true
    /// Whether hot keys are shown as they are, rather than hashed.
    package var showsHotKeys = false
    /// How many hot keys are shown.
    package var hotKeysShown = 20
    /// Bytes of a watcher's buffer (`-o watcher_logbuf_size`).
    package var watcherBufferBytes = 256 << 10
    /// Bytes of a worker's buffer of log entries for watchers (`-o worker_logbuf_size`).
    package var workerLogBufferBytes = 64 << 10
    /// The admin server; nil when it is off.
    package var admin: AdminEndpoint? = AdminEndpoint()
    /// The file whose first line opens the admin server's guarded pages; nil leaves them closed.
    package var adminTokenPath: String?
    /// `-v`, counted.
    package var verbosity = 0
    /// The spelling of log lines.
    package var logFormat = Log.Format.json
    /// The least level of log lines.
    package var logLevel = Log.Level.info
    /// Whether and how requests are traced.
    package var tracing = NodeConfiguration.standardTracing

    // MARK: The fleet

    /// The cluster's name.
    package var clusterName = "main"
    /// The cluster's nodes, for `config get cluster`; empty when only this one is known.
    package var members: [ClusterMember] = []
    /// Where they are looked up, and where the node registers.
    package var fleet = FleetSettings()
    /// How nodes that share the store agree on who owns what.
    package var ownership = OwnershipSettings()
    /// How it fetches its share of the keys when it joins.
    package var warmUp = WarmUpSettings()
    /// The version of that list, which must grow when it changes; 0 lets the time of loading count.
    package var membersVersion = 0

    // MARK: TLS and the process

    /// How it takes its leave.
    package var drain = DrainConfiguration()

    /// TLS; nil when it is off (`-Z` turns it on).
    package var tls: ServerTLS?
    /// How the process itself runs.
    package var process = ProcessOptions()
    /// What memcached's options say about things that do not exist here, for `stats settings`.
    package var tuning = MemcachedTuning()
    /// What the operator ought to be told at start.
    package var notes: [String] = []
    /// All of this in short.
    package var summary = ConfigurationSummary()

    package init() {}

    private static var standardTracing: TracingConfiguration {
        var tracing = TracingConfiguration()
        tracing.serviceName = "martlet-server"
        tracing.version = ProductVersion.martlet
        return tracing
    }
}

/// A node of the cluster, as `config get cluster` tells it.
package struct ClusterMember: Sendable, Equatable {
    /// Its name.
    package var host: String
    /// May be empty.
    package var address: String
    /// Its port.
    package var port: UInt16
}
