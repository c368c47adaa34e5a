// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
internal import Synchronization
internal import Telemetry

/// A cache node: what its reactors share. Safe to use from any thread.
package final class Node: Sendable {
    /// The version that clients and tools are told: the memcached that this node behaves as.
    static let protocolVersion: StaticString = "1.6.45"

    /// What it was made from.
    package let configuration: NodeConfiguration
    let engine: CacheEngine
    let clock = NodeClock()
    /// `verbosity`; log lines of level debug are written from 2 on.
    let verbosity: Atomic<Int>
    /// When a delayed `flush_all` happens, in the clock's seconds; 0 when none waits.
    private let flushSecond = Atomic<UInt32>(0)
    /// What each reactor counts, by its number.
    let counters: [ReactorCounters]
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

    /// Makes a node's cache. It answers nobody yet: see ``NodeService``.
    package init(_ configuration: NodeConfiguration) throws(AuthenticationFileError) {
        self.configuration = configuration
        members = Guarded(Members(list: configuration.members, version: configuration.membersVersion))
        var engine = EngineConfiguration(
            limitBytes: configuration.memoryBytes, hashSeed: UInt64.random(in: .min ... .max))
        engine.evicts = configuration.evicts
        engine.itemSizeMax = configuration.maximumItemBytes
        self.engine = CacheEngine(engine)
        verbosity = Atomic(configuration.verbosity)
        counters = (0..<configuration.threads).map { _ in ReactorCounters() }
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
    }

    /// The reactors and listeners; nil before the start.
    var group: ReactorGroup? { late.withLock { $0.group } }

    /// Tells the node its network side, at start.
    func attach(_ group: ReactorGroup, tls: TLSContext?, stop: @escaping @Sendable (_ isGraceful: Bool) -> Void) {
        late.withLock { $0 = Late(group: group, tls: tls, stop: stop) }
    }

    /// Ends the process, as `shutdown` asks for.
    func requestShutdown(isGraceful: Bool) { late.withLock { $0.stop }?(isGraceful) }

    /// What became of reading the certificates again.
    enum CertificateRefresh {
        case notConfigured, done
        case failed(String)
    }

    /// Reads TLS certificates and key again; connections go on with the old ones.
    func refreshCertificates() -> CertificateRefresh {
        guard let tls = late.withLock({ $0.tls }) else { return .notConfigured }
        do throws(TLSError) {
            try tls.reload()
            return .done
        } catch {
            return .failed(error.description)
        }
    }

    /// When the certificates were read last, in monotonic nanoseconds; nil without TLS.
    var certificatesLoaded: UInt64? { late.withLock { $0.tls }?.loadedNanoseconds }

    /// The nodes of the cluster as ElastiCache's clients read them: a version, and `host|address|port` for each.
    func clusterText() -> [UInt8] {
        let (members, listVersion) = members.withLock { ($0.list, $0.version) }
        var nodes = members.map { "\($0.host)|\($0.address)|\($0.port)" }
        if nodes.isEmpty {
            let port =
                group?.listeners.first { !$0.isUnix && !$0.isDatagram }?.port ?? UInt16(clamping: configuration.port)
            nodes = ["localhost|127.0.0.1|\(port)"]
        }
        let version = listVersion > 0 ? listVersion : Int(clock.epoch)
        return Array("\(version)\n\(nodes.joined(separator: " "))\n".utf8)
    }

    /// Replaces the cluster's nodes. A version of 0 becomes the time of the change, so that it grows.
    func setMembers(_ list: [ClusterMember], version: Int) {
        members.withLock { current in
            guard current.list != list || version > current.version else { return }
            let now = Int(Clock.realtimeNanoseconds() / 1_000_000_000)
            current = Members(list: list, version: version > 0 ? version : max(current.version + 1, now))
        }
    }

    /// How a connection of a listener is parsed; the listener's tag says what it may speak.
    func parserConfiguration(listenerTag: UInt64) -> RequestParserConfiguration {
        switch listenerTag {
        case 1: RequestParserConfiguration(restriction: .text)
        case 2: RequestParserConfiguration(restriction: .binary)
        default: RequestParserConfiguration(restriction: .automatic)
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

    private func flushNow() {
        flushSecond.store(0, ordering: .relaxed)
        engine.removeAll()
    }

    /// Carries a delayed flush out when its time has come. A load where there is none.
    func flushIfDue(now: UInt32) {
        let due = flushSecond.load(ordering: .relaxed)
        guard due != 0, now >= due else { return }
        if flushSecond.compareExchange(expected: due, desired: 0, ordering: .relaxed).exchanged { engine.removeAll() }
    }
}

/// One reactor's counters and histograms.
final class ReactorCounters: Sendable {
    let commands = CounterSet<NodeCounter>()
    /// Time from a batch's readiness to its replies, by kind of command; indexed by `CommandKind`.
    let latencies = FixedArray<LatencyHistogram>(count: CommandKind.allCases.count) { _ in LatencyHistogram() }
}
