// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Platform
internal import Reactor
package import Storage
internal import Synchronization
package import Telemetry

/// The home region as a store: reads and writes go to its routers or nodes, in memcached's meta protocol, and come back
/// with the versions of its store, which is where they are decided.
///
/// Two reactors have a few connections each, pipelined, one for reads and one for writes. A key's writes go over one
/// connection at a time, in their order. A connection that breaks takes what was sent over it along: reads have failed,
/// and writes are of unknown outcome. What such a write did is told by the home region's stream, which whoever uses
/// this backend follows; so it counts as settled at once.
///
/// Where several nodes of the region share its keys out, etcd is their authority: see `EtcdLeases` and
/// `RegionFence`.
package final class RegionBackend: StorageBackend, CertifiedStore, SharedStore, DurationSource {
    private let configuration: RegionConfiguration
    private let places: StreamPlaces?
    private let leases: EtcdLeases?
    private let state = Guarded(State())

    private struct State {
        var core: RegionCore?
        var group: ReactorGroup?
        var lookups: Thread?
        var fence: RegionFence?
    }

    /// A store that is not started. `places` is how far the home region's stream was followed.
    package init(_ configuration: RegionConfiguration, places: StreamPlaces? = nil) {
        self.configuration = configuration
        self.places = places
        leases = configuration.authority.map {
            EtcdLeases($0.address, caFile: $0.caFile, leaseMilliseconds: $0.leaseMilliseconds)
        }
    }

    /// Where the region's nodes agree on who owns what. Only where the configuration names it.
    package var authority: any LeaseAuthority {
        guard let leases else { preconditionFailure("nodes that share keys out have an authority") }
        return leases
    }

    /// The home region knows nothing of the replica's ring.
    package var refusesOldEpochs: Bool { false }

    /// Has writes go by `fence`. Before the start.
    package func setFence(_ fence: any WriteFence) {
        state.withLock { $0.fence = RegionFence(fence, waitMilliseconds: configuration.silenceMilliseconds) }
    }

    deinit { stop() }

    private var core: RegionCore? { state.withLock { $0.core } }

    /// Loads certificates and starts the threads. The home region need not be there. Blocks while names are looked up.
    package func start(_ sink: any StorageSink) throws(StorageStartError) {
        precondition(core == nil, "a store is started once")
        let core: RegionCore
        let fence = state.withLock { $0.fence }
        do throws(TLSError) { core = try RegionCore(configuration, places: places, fence: fence) } catch {
            throw StorageStartError("storage: the home region: \(error)")
        }
        core.sink = sink
        var reactors = ReactorConfiguration()
        reactors.threads = 2
        reactors.threadName = "martlet-home"
        // Rows and values of any length that the protocol allows; how many wait, the queues bound.
        reactors.inputLimitBytes = ReplyParser.blockLimitBytes + ReplyParser.lineLimitBytes
        reactors.keptInputTotalBytes = 2 * reactors.inputLimitBytes
        reactors.pendingOutputLimitBytes = 2 * reactors.inputLimitBytes
        reactors.pendingOutputTotalBytes = 4 * reactors.inputLimitBytes
        reactors.handshakeTimeoutMilliseconds = configuration.silenceMilliseconds
        do throws(SystemError) {
            let group = try ReactorGroup(reactors) { reactor in RegionHandler(core, reactor) }
            core.attach(group.reactors)
            let lookups = try Thread(name: "martlet-home-dns") { core.lookUp() }
            state.withLock { $0 = State(core: core, group: group, lookups: lookups, fence: fence) }
            core.awaitFirstLookup()
            try group.start()
            try fence?.start { [weak core] in core?.pass([]) }
        } catch {
            throw StorageStartError("storage: a thread cannot be started: \(error)")
        }
    }

    /// Asks the home region for rows.
    package func read(_ reads: [StorageRead]) {
        let now = Clock.monotonicNanoseconds()
        core?.submit(
            reads.map { RegionRequest(token: $0.token, question: .read($0.key), sinceNanoseconds: now) },
            to: RegionCore.readsIndex)
    }

    /// Has the home region decide and commit writes.
    package func write(_ writes: [SubmittedWrite]) {
        let now = Clock.monotonicNanoseconds()
        let fitting = writes.filter { $0.write.value.count <= $0.write.valueLimitBytes }
        if fitting.count < writes.count {
            let tooLarge = writes.filter { $0.write.value.count > $0.write.valueLimitBytes }
            core?.sink?.writesCompleted(tooLarge.map { ($0.token, .tooLarge) })
        }
        core?.pass(fitting.map { FencedWrite($0, sinceNanoseconds: now) })
    }

    /// Whether there is a connection to the home region, or no reason to think that there could be none.
    package var health: StorageHealth { core?.health ?? .ready }

    /// Rows are listed in the home region.
    package func scan(
        prefix: [UInt8], after key: [UInt8], _ bounds: ScanBounds
    ) throws(StorageFailure) -> ScanPage {
        throw StorageFailure(
            .refused, "a replica region lists no rows: ask a node of the home region \(configuration.home)")
    }

    /// Waits for the answers to what was submitted, as long as the home region may be silent, and closes. Blocks.
    package func stop() {
        let (core, group, lookups) = state.withLock { state in
            defer { (state.group, state.lookups) = (nil, nil) }
            return (state.core, state.group, state.lookups)
        }
        guard let core, let group else { return }
        core.fence?.stop()
        core.pass([])
        core.beginStop()
        for _ in 0..<configuration.silenceMilliseconds / 5 where core.outstanding.load(ordering: .relaxed) > 0 {
            Thread.sleep(microseconds: 5000)
        }
        group.stop(.immediate)
        group.join()
        lookups?.join()
        core.sink = nil
        leases?.release()
    }

    /// Reads certificates again, for new connections, and revocation lists, for all.
    package func reloadCertificates() -> String? {
        let (core, group) = state.withLock { ($0.core, $0.group) }
        var problem: String?
        for endpoint in core?.endpoints ?? [] {
            do throws(TLSError) { try endpoint.tls?.reload() } catch { problem = "storage: the home region: \(error)" }
        }
        group?.closeRevoked()
        return problem
    }

    /// How long the home region took to reply.
    package func durations() -> [NamedDurations] {
        var replies = NamedDurations(
            "region_reply", things: "replies", "Time from reads and writes to the home region's replies.")
        for times in core?.replyTimes ?? [] { times.record.add(to: &replies.summary) }
        return [replies]
    }

    /// Counters and gauges; names say their units.
    package func statistics() -> [StorageStatistic] {
        guard let core else { return [] }
        let counted = RegionCounter.allCases.map {
            StorageStatistic("region_" + $0.name, .counter, Double(core.counters[$0]), $0.help)
        }
        return counted + [
            StorageStatistic(
                "region_connections", .gauge, Double(core.connections), "Connections to the home region."),
            StorageStatistic(
                "region_waiting", .gauge, Double(core.outstanding.load(ordering: .relaxed)),
                "Reads and writes that wait for the home region."),
        ]
    }
}
