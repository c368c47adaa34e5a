// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
package import Hosting
internal import Invalidation
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
package import Storage
internal import StreamDirect
internal import StreamKafka
internal import Synchronization
internal import Telemetry
package import Tracing

/// A cache node: what its reactors share. Safe to use from any thread.
package final class Node: Sendable {
    /// The version that clients and tools are told: the memcached that this node behaves as.
    static let protocolVersion: StaticString = "1.6.45"

    /// What it was made from.
    package let configuration: NodeConfiguration
    let engine: CacheEngine
    let clock: NodeClock
    /// Keeps the items across a restart; nil where nobody asked for it.
    let memoryFile: MemoryFile?
    /// Items that it brought at the start.
    let restoredItems = Atomic<Int>(0)
    /// The store behind the cache; nil for a plain cache.
    let storage: NodeStorage?
    /// What a followed stream does to the cache; nil where none is followed.
    let stream: NodeStream?
    /// Whether its region is home.
    let isHome: Atomic<Bool>
    /// When copies of each slot were cached last; nil where no other region can become home.
    let fills: SlotTimes?
    /// Which keys are the node's; nil where it is the only one with its store.
    let ownership: NodeOwnership?
    /// What fetches its share of the keys when it joins a fleet; nil where nothing is fetched.
    let warmUp: PeerWarmUp?
    /// What operators do with it; nil without one.
    let operations: StorageOperations?
    /// What is traced of requests.
    package let tracing: Tracing
    /// What it was made from in short, and what was read since.
    let configurationRecord: ConfigurationRecord
    /// `verbosity`; log lines of level debug are written from 2 on.
    let verbosity: Atomic<Int>
    /// When a delayed `flush_all` happens, in the clock's seconds; 0 when none waits.
    private let flushSecond = Atomic<UInt32>(0)
    /// What each reactor counts, by its number.
    let counters: [ReactorCounters]
    /// What each reactor refuses, and how far behind it is.
    let overload: [OverloadFigures]
    let prefixes: PrefixStatistics
    let watchers: WatchHub
    let hotKeys: HotKeys
    /// Whether `lru_crawler disable` was said; dumps refuse then.
    let crawlerDisabled = Atomic<Bool>(false)
    /// Figures at the last `stats reset`.
    let baseline = StatisticsBaseline()
    /// The network side, once it is there, and what the process does when a client says `shutdown`.
    private let late = Guarded(Late())
    /// The cluster's nodes, for `config get cluster`.
    private let members: Guarded<Members>
    /// Users and passwords of `-Y`; nil when nobody must log in.
    let authentication: AuthenticationStore?
    /// Who may do what; without tenants, everybody everything.
    let tenants: TenantDirectory

    /// Makes a node's cache, in front of `backend` if there is one. It answers nobody yet: see ``NodeService``.
    convenience package init(
        _ configuration: NodeConfiguration, backend: (any StorageBackend)? = nil
    ) throws(AuthenticationFileError) {
        try self.init(configuration, backend: backend, memoryFile: nil)
    }

    /// The same, with the file that keeps its items.
    init(
        _ configuration: NodeConfiguration, backend: (any StorageBackend)?, memoryFile: MemoryFile?,
        places: StreamPlaces = StreamPlaces()
    ) throws(AuthenticationFileError) {
        self.configuration = configuration
        configurationRecord = ConfigurationRecord(configuration.summary)
        self.memoryFile = memoryFile
        // One thread for each reactor, and the stream's.
        let tracing = Tracing(configuration.tracing, threads: configuration.threads + 1)
        self.tracing = tracing
        // Items that come back keep their places and their times: they need the seed and the clock that gave them.
        let before = memoryFile?.header
        let clock = NodeClock(epoch: before?.numbers[MemoryFile.epoch])
        self.clock = clock
        members = Guarded(Members(list: configuration.members, version: configuration.membersVersion))
        let seed = before?.hashSeed ?? UInt64.random(in: .min ... .max)
        var engine = EngineConfiguration(limitBytes: configuration.memoryBytes, hashSeed: seed)
        engine.evicts = configuration.evicts
        engine.itemSizeMax = configuration.maximumItemBytes
        if backend != nil { engine.lingerSeconds = StoragePools(configuration.storage.pools).lingerSecondsMax }
        let cache = CacheEngine(engine)
        self.engine = cache
        let regions = configuration.regions
        let isFollower = regions.isOn && (!regions.isHome || configuration.storage.backend == .postgres)
        let trace = isFollower && regions.monitorRate > 0 ? ChangeTrace() : nil
        isHome = Atomic(regions.isHome)
        let fills = regions.candidates.isEmpty || backend == nil ? nil : SlotTimes()
        self.fills = fills
        let storage = backend.map { backend in
            NodeStorage(
                configuration.storage, backend: backend, engine: cache, clock: clock, reactors: configuration.threads,
                followsChanges: isFollower, sharesKeys: configuration.ownership.hash != nil, fills: fills, trace: trace)
        }
        self.storage = storage
        warmUp = PeerWarmUp(configuration, lagNanoseconds: isFollower ? regions.lagBoundNanoseconds : 0)
        stream =
            isFollower
            ? NodeStream(
                regions, engine: cache, clock: clock, storage: storage,
                pools: StoragePools(configuration.storage.pools), places: places, warming: warmUp?.keys,
                tracer: SharedTracer(tracing, thread: configuration.threads), fills: fills, trace: trace) : nil
        if let own = configuration.fleet.ownMember, configuration.ownership.hash != nil,
            let shared = backend as? any SharedStore
        {
            let ownership = NodeOwnership(configuration.ownership, own: own, store: shared)
            ownership.want(configuration.members.map { RingMember($0) })
            shared.setFence(ownership)
            self.ownership = ownership
        } else {
            ownership = nil
        }
        operations = storage.map { [ownership] in StorageOperations($0, ownership, hashSeed: cache.hashSeed) }
        tenants = TenantDirectory(configuration.tenants, reactors: configuration.threads)
        verbosity = Atomic(configuration.verbosity)
        counters = (0..<configuration.threads).map { _ in ReactorCounters(isTraced: configuration.tracing.isOn) }
        overload = (0..<configuration.threads).map { _ in OverloadFigures() }
        prefixes = PrefixStatistics(
            delimiter: configuration.prefixDelimiter, isOn: configuration.collectsPrefixStatistics)
        watchers = WatchHub(bufferBytes: configuration.watcherBufferBytes)
        hotKeys = HotKeys(
            reactors: configuration.threads, isOn: configuration.countsHotKeys)
        if let path = configuration.authenticationPath {
            authentication = try AuthenticationStore(path: path)
        } else {
            authentication = nil
        }
    }

    private struct Members {
        var list: [ClusterMember]
        var version: Int
    }

    private struct Late {
        var group: ReactorGroup?
        var tls: TLSContext?
        var stop: (@Sendable (Bool) -> Void)?
        var streams: StreamService?
        var monitor: NodeMonitor?
        var home: NodeHome?
        var kafka: KafkaService?
        var debezium: DebeziumInput?
    }

    /// Who knows which region is home; nil where that is fixed.
    var home: NodeHome? { late.withLock { $0.home } }

    /// Tells the node who knows it, at start.
    func attach(_ home: NodeHome) { late.withLock { $0.home = home } }

    /// Its region is home, or is not, from now on.
    func setHome(_ isOwn: Bool) { isHome.store(isOwn, ordering: .releasing) }

    /// Who follows a stream for the node; nil where nobody does.
    var streamFollowing: (any StreamFollowing)? {
        guard stream != nil else { return nil }
        return late.withLock { late in
            if let kafka = late.kafka, kafka.isFollowing { return kafka }
            return late.streams
        }
    }

    /// What the consistency monitor has found; nil where the node has none.
    var monitorFigures: NodeMonitor.Figures? { late.withLock { $0.monitor }?.figures }

    /// How the stream goes, whichever way it comes; nil where there is none.
    var streamFigures: StreamFigures? {
        guard var figures = late.withLock({ $0.streams })?.figures else { return nil }
        if let kafka = kafkaFigures, let followed = kafka.follower {
            figures.home = home?.term.region ?? configuration.regions.home?.name
            figures.peer = followed.isConnected ? "kafka \(kafka.topic)" : ""
            figures.reason = followed.reason
            figures.damaged += followed.damaged
            (figures.backlog, figures.missingSlots) = (followed.backlog, followed.missingSlots)
            figures.follower = followed.counts
        }
        return figures
    }

    /// How the Kafka transport goes; nil where there is none.
    var kafkaFigures: KafkaFigures? { late.withLock { $0.kafka }?.figures }

    /// How the reading of a Debezium connector's topic goes; nil where nobody reads one.
    var debeziumFigures: DebeziumFigures? { late.withLock { $0.debezium }?.figures }

    /// Tells the node who carries its stream, and who monitors it, at start.
    func attach(_ streams: StreamService, _ kafka: KafkaService?, _ debezium: DebeziumInput?, _ monitor: NodeMonitor?) {
        late.withLock { late in
            (late.streams, late.kafka, late.debezium, late.monitor) = (streams, kafka, debezium, monitor)
        }
    }

    /// The reactors and listeners; nil before the start.
    var group: ReactorGroup? { late.withLock { $0.group } }

    /// Tells the node its network side, at start.
    func attach(_ group: ReactorGroup, tls: TLSContext?, stop: @escaping @Sendable (_ isGraceful: Bool) -> Void) {
        late.withLock { late in
            (late.group, late.tls, late.stop) = (group, tls, stop)
        }
    }

    /// Ends the process, as `shutdown` asks for.
    func requestShutdown(isGraceful: Bool) { late.withLock { $0.stop }?(isGraceful) }

    /// What became of reading the certificates again.
    enum CertificateRefresh {
        case notConfigured, done
        case failed(String)
    }

    /// Reads TLS certificates, key and revocation lists again; connections go on with the old ones, but for those of
    /// clients that are revoked.
    func refreshCertificates() -> CertificateRefresh {
        let (loaded, group) = late.withLock { ($0.tls, $0.group) }
        guard let tls = loaded else { return .notConfigured }
        defer { group?.closeRevoked() }
        do throws(TLSError) {
            try tls.reload()
            return .done
        } catch {
            return .failed(error.description)
        }
    }

    /// When the certificates were read last, in monotonic nanoseconds; nil without TLS.
    var certificatesLoaded: UInt64? { late.withLock { $0.tls }?.loadedNanoseconds }

    /// The nodes of the cluster as ElastiCache's clients read them: a version, and `host|address|port` for each. nil as
    /// long as they are looked up and none was found: clients keep to the nodes they know.
    func clusterText() -> [UInt8]? {
        let (members, listVersion) = members.withLock { ($0.list, $0.version) }
        var nodes = members.map { "\($0.host)|\($0.address)|\($0.port)" }
        if nodes.isEmpty {
            guard configuration.fleet.source.isEmpty else { return nil }
            let port =
                group?.listeners.first { !$0.isUnix && !$0.isDatagram }?.port ?? UInt16(clamping: configuration.port)
            nodes = ["localhost|127.0.0.1|\(port)"]
        }
        let version = listVersion > 0 ? listVersion : Int(clock.startedAt)
        return Array("\(version)\n\(nodes.joined(separator: " "))\n".utf8)
    }

    /// The cluster's nodes, as far as anybody said who they are.
    var clusterMembers: [ClusterMember] { members.withLock { $0.list } }

    /// Replaces the cluster's nodes. A version of 0 becomes the time of the change, so that it grows.
    func setMembers(_ list: [ClusterMember], version: Int) {
        members.withLock { current in
            guard current.list != list || version > current.version else { return }
            let now = Int(Clock.realtimeNanoseconds() / 1_000_000_000)
            current = Members(list: list, version: version > 0 ? version : max(current.version + 1, now))
        }
    }

    /// A version for an item about to be stored; 0 where CAS is switched off (`-C`).
    func newVersion() -> UInt64 { configuration.usesCAS ? engine.newVersion() : 0 }

    /// Drops everything, now or at a second to come. Source: memcached's `flush_all`.
    func flush(exptime: Int64, now: UInt32) {
        guard exptime > 0 else { return flushNow() }
        let second = clock.expiry(exptime, now: now) &- 1
        if second <= now, second > 0 { return flushNow() }
        flushSecond.store(second, ordering: .relaxed)
    }

    /// The second of a flush to come, as ``setPendingFlush(_:)`` takes it.
    var pendingFlush: UInt32 { flushSecond.load(ordering: .relaxed) }

    /// Lets a flush come that an earlier process was told of.
    func setPendingFlush(_ second: UInt32) { flushSecond.store(second, ordering: .relaxed) }

    /// Marks a delayed flush that goes on until the second begins. Seconds count from the start: the bit is free.
    private static var secondPass: UInt32 { 1 << 31 }

    private func flushNow() {
        flushSecond.store(0, ordering: .relaxed)
        removeAll()
    }

    /// Empties the cache; the store is not touched, but nothing that was read from it before is cached any more.
    private func removeAll() {
        storage?.tier.noteFlush()
        engine.removeAll()
        storage?.tier.noteFlush()
    }

    /// The same for what came in since, which is little.
    private func removeAgain() {
        storage?.tier.noteFlush()
        engine.removeItems()
        storage?.tier.noteFlush()
    }

    /// Carries a delayed flush out when its time has come. A load where there is none.
    func flushIfDue(now: UInt32) {
        let due = flushSecond.load(ordering: .relaxed)
        guard due != 0 else { return }
        // What is stored later in that second goes as well, before anybody reads it, as in memcached.
        if due & Self.secondPass != 0, now < due & ~Self.secondPass { return removeAgain() }
        guard now >= due & ~Self.secondPass else { return }
        let isOver = due & Self.secondPass != 0 || now > due
        let next = isOver ? 0 : (due + 1) | Self.secondPass
        if flushSecond.compareExchange(expected: due, desired: next, ordering: .relaxed).exchanged {
            removeAll()
        }
    }
}

/// One reactor's counters and histograms.
final class ReactorCounters: Sendable {
    let commands = CounterSet<NodeCounter>()
    /// Time from a batch's readiness to its replies, by kind of command; indexed by `CommandKind`.
    let latencies = FixedArray<LatencyHistogram>(count: CommandKind.allCases.count) { _ in LatencyHistogram() }
    /// The last traced command of each of their buckets.
    let exemplars: FixedArray<ExemplarCells>

    init(isTraced: Bool) {
        exemplars = FixedArray(count: CommandKind.allCases.count) { _ in ExemplarCells(isOn: isTraced) }
    }
}
