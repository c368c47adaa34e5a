// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import Invalidation
internal import Platform
package import Reactor
package import Storage
internal import StreamDirect
internal import StreamKafka
internal import Synchronization
package import Telemetry
internal import Tracing

/// A node that cannot start, and why.
package struct NodeStartError: Error, CustomStringConvertible, Sendable {
    package let description: String

    init(_ description: String) { self.description = description }
}

/// A running node: the cache, its listeners and reactors, and the thread that looks for expired items.
///
/// Order: `init` makes the cache and opens the store, `bind` binds the addresses, `start` begins to serve, `stop` ends
/// it, `wait` returns when all is over.
package final class NodeService: Sendable {
    /// The cache and what its reactors share.
    package let node: Node
    private let group: ReactorGroup
    private let streams: StreamService?
    private let monitor: NodeMonitor?
    private let kafka: KafkaService?
    private let debezium: DebeziumInput?
    private let sweeper = Guarded<Thread?>(nil)
    private let log: Log?
    /// Whether nobody is served any more.
    private let hasStopped = Atomic<Bool>(false)
    /// Whether it was told to end at once: there is no time to save the items then.
    private let isHurried = Atomic<Bool>(false)
    private let parking = Parking()

    /// Reads certificates and keys, where there is TLS: while the process still may, before it changes its user.
    package static func loadTLS(_ configuration: NodeConfiguration) throws(NodeStartError) -> TLSContext? {
        do throws(TLSError) {
            return try configuration.tls.map { (tls) throws(TLSError) in try TLSContext(TLSConfiguration(tls)) }
        } catch {
            throw NodeStartError(error.description)
        }
    }

    /// Makes the cache in front of `backend`, if there is one. `stop` is called when a client ends the process;
    /// `loaded` is what ``loadTLS(_:)`` gave, if it was called before; `places` is where the backend finds how far the
    /// stream was followed.
    package init(
        _ configuration: NodeConfiguration, backend: (any StorageBackend)? = nil,
        places: StreamPlaces = StreamPlaces(), tls loaded: TLSContext? = nil, log: Log? = nil,
        stop: @escaping @Sendable (_ isGraceful: Bool) -> Void
    ) throws(NodeStartError) {
        self.log = log
        let memoryFile = try configuration.tuning.memoryFilePath.map { (path) throws(NodeStartError) in
            try MemoryFile(path)
        }
        do throws(AuthenticationFileError) {
            node = try Node(configuration, backend: backend, memoryFile: memoryFile, places: places)
        } catch {
            throw NodeStartError(error.description)
        }
        let tls = if let loaded { loaded } else { try Self.loadTLS(configuration) }
        let node = self.node
        do throws(SystemError) {
            group = try ReactorGroup(ReactorConfiguration(configuration), tls: tls) { reactor in
                NodeHandler(node, reactor)
            }
        } catch {
            throw NodeStartError(error.description)
        }
        do throws(StreamStartError) {
            (streams, kafka) = try Self.makeStreams(node, backend: backend, log: log)
            debezium = try Self.makeDebezium(node, backend: backend, log: log)
        } catch {
            throw NodeStartError(error.description)
        }
        monitor = streams.flatMap { Self.makeMonitor($0, node, backend: backend, log: log) }
        let home = streams == nil ? nil : NodeHome(node, backend, log: log)
        if let home {
            let direct = Self.direct(node, backend: backend)
            try home.settle(direct)
            node.attach(home)
        }
        // Before anybody can connect.
        do throws(StorageStartError) {
            try node.storage?.tier.start()
        } catch {
            home?.stop()
            throw NodeStartError(error.description)
        }
        node.attach(group, tls: tls, stop: stop)
        if let streams {
            node.attach(streams, kafka, debezium, monitor)
            home?.point(streams, kafka)
        }
    }

    /// What holds the copies of those who follow against the changes; nil where the node never has a stream of its own.
    private static func makeMonitor(
        _ streams: StreamService, _ node: Node, backend: (any StorageBackend)?, log: Log?
    ) -> NodeMonitor? {
        guard backend is any FollowedStore, let monitor = node.configuration.regions.monitor else { return nil }
        return NodeMonitor(monitor, streams: streams, log: log)
    }

    /// What carries changes between regions; nil where there are none.
    private static func makeStreams(
        _ node: Node, backend: (any StorageBackend)?, log: Log?
    ) throws(StreamStartError) -> (StreamService?, KafkaService?) {
        let configuration = node.configuration
        let regions = configuration.regions
        guard regions.isOn else { return (nil, nil) }
        let source = (backend as? any FollowedStore)?.changes
        let direct = direct(node, backend: backend)
        let name = ProcessControl.hostName + ":" + configuration.storage.address
        // Nodes of a region with a standby share that once it is home.
        let isShared = configuration.storage.backend == .postgres || configuration.storage.standbyURL != nil
        let kafka = regions.kafkaTransport(defaultName: name, isShared: isShared)
        try checkLists(of: kafka)
        if let kafka, !regions.candidates.isEmpty {
            let service = try KafkaService(turning: kafka, consumer: node.stream, log: log)
            let streams = try StreamService(direct, source: source, consumer: node.stream, log: log) { service.wake() }
            service.attach(streams)
            return (streams, service)
        }
        if let kafka, regions.isHome, let source {
            let service = try KafkaService(kafka, source: source, consumer: nil, repairer: nil, log: log)
            let streams = try StreamService(direct, source: source, consumer: node.stream, log: log) { service.wake() }
            return (streams, service)
        }
        let streams = try StreamService(direct, source: source, consumer: node.stream, log: log)
        guard let kafka, source == nil, let consumer = node.stream else { return (streams, nil) }
        let repairer: (any StreamRepairer)? = direct.home == nil ? nil : streams
        return (
            streams, try KafkaService(kafka, source: nil, consumer: consumer, repairer: repairer, log: log)
        )
    }

    /// The library takes lists that are out of date, and then no broker.
    private static func checkLists(of kafka: StreamKafkaConfiguration?) throws(StreamStartError) {
        do throws(TLSError) { _ = try RevocationLists(kafka?.revocationPath) } catch {
            throw StreamStartError(description: "stream.kafka.crl: \(error)")
        }
    }

    /// What reads a Debezium connector's topic; nil where nobody is to.
    private static func makeDebezium(
        _ node: Node, backend: (any StorageBackend)?, log: Log?
    ) throws(StreamStartError) -> DebeziumInput? {
        let name = ProcessControl.hostName + ":" + node.configuration.storage.address
        guard let settings = node.configuration.regions.debeziumInput(defaultName: name),
            let intake = (backend as? any FollowedStore)?.changes as? any ChangeIntake
        else { return nil }
        try checkLists(of: settings)
        return try DebeziumInput(settings, intake: intake, log: log)
    }

    private static func direct(_ node: Node, backend: (any StorageBackend)?) -> StreamDirectConfiguration {
        let configuration = node.configuration
        let hasStore = (backend as? any FollowedStore)?.changes != nil
        let name = ProcessControl.hostName + ":" + configuration.storage.address
        var direct = configuration.regions.direct(
            cluster: configuration.clusterName, defaultName: name, hasStore: hasStore)
        direct.followsOwnStore = node.stream != nil && hasStore
        return direct
    }

    private func restoreItems() throws(NodeStartError) {
        let begun = Clock.monotonicNanoseconds()
        let outcome: Node.Restoration
        do throws(SystemError) { outcome = try node.restoreItems() } catch {
            throw NodeStartError("the memory file: \(error.description)")
        }
        switch outcome {
        case .notAsked: break
        case .restored(let items):
            log?.info(
                "items restored",
                [
                    "items": .count(items), "milliseconds": .count(Self.milliseconds(since: begun)),
                    "file": .text(node.memoryFile?.path ?? ""),
                ])
        case .cold(let reason, let isExpected):
            if isExpected {
                log?.warning("the cache begins empty", ["reason": .text(reason)])
            } else {
                log?.info("the cache begins empty", ["reason": .text(reason)])
            }
        }
    }

    private static func milliseconds(since begun: UInt64) -> Int {
        Int((Clock.monotonicNanoseconds() - begun) / 1_000_000)
    }

    /// Binds every address of the configuration. From here on the kernel takes connections, so it is the last step
    /// that may fail: whoever can connect will be served.
    package func bind() throws(NodeStartError) {
        let configuration = node.configuration
        let overload = configuration.overload
        var wanted: [(listener: ListenerConfiguration, isOptional: Bool)] = []
        for listener in configuration.datagramListeners {
            wanted.append(
                (
                    listener.reactorListener(
                        .udp(host: listener.host, port: listener.port), number: overload.number(ofTag: listener.tag)),
                    listener.isOptional
                ))
        }
        if let path = configuration.unixSocketPath {
            let tag = configuration.restriction.parserTag
            let endpoint = ListenerConfiguration.Endpoint.unix(path: path, mode: configuration.unixSocketMode)
            wanted.append((ListenerConfiguration(endpoint, tag: tag), false))
        }
        for listener in configuration.listeners {
            wanted.append(
                (
                    listener.reactorListener(
                        .tcp(host: listener.host, port: listener.port), number: overload.number(ofTag: listener.tag)),
                    listener.isOptional
                ))
        }
        do throws(StreamStartError) { try streams?.bind() } catch { throw NodeStartError(error.description) }
        for (listener, isOptional) in wanted {
            do throws(ListenError) {
                try group.listen(listener)
            } catch {
                if !isOptional { throw NodeStartError(error.description) }
            }
        }
    }

    /// What is bound, in order.
    package var listeners: [BoundListener] { group.listeners }

    /// Brings the items of the process before back, and starts the threads: the last step, because the items are in
    /// the file once only.
    package func start() throws(NodeStartError) {
        try restoreItems()
        do throws(SystemError) {
            try group.start()
            try node.stream?.start()
            if let ownership = node.ownership, let storage = node.storage {
                let own = listeners.first { !$0.isUnix && !$0.isDatagram }
                try ownership.start(
                    storage, node.engine, node.clock, listener: own.map { "\($0.address) \($0.port)" }, log: log)
            }
            let thread = try Thread(name: "martlet-expire") { [self] in sweep() }
            sweeper.withLock { $0 = thread }
            if let port = listeners.first(where: { !$0.isUnix && !$0.isDatagram })?.port {
                node.tracing.setAddress("\(ProcessControl.hostName):\(port)")
            }
            try node.tracing.start(log: log)
        } catch {
            throw NodeStartError(error.description)
        }
        do throws(StreamStartError) {
            try streams?.start()
            try kafka?.start()
            try debezium?.start()
        } catch {
            throw NodeStartError(error.description)
        }
        do throws(SystemError) { try monitor?.start() } catch { throw NodeStartError(error.description) }
        do throws(SystemError) { try node.home?.start() } catch { throw NodeStartError(error.description) }
    }

    /// Ends the service: what was sent is answered, and clients that were served less than `idleMilliseconds` ago are
    /// served on for a while, all within `timeoutMilliseconds`; at once where that is 0. Does not wait.
    package func stop(timeoutMilliseconds: Int, idleMilliseconds: Int) {
        if timeoutMilliseconds == 0 { isHurried.store(true, ordering: .relaxed) }
        group.stop(
            timeoutMilliseconds > 0
                ? .graceful(milliseconds: timeoutMilliseconds, idleMilliseconds: idleMilliseconds) : .immediate)
    }

    /// Returns when every thread has ended.
    package func wait() {
        group.join()
        // Until here clients may wait for the store.
        hasStopped.store(true, ordering: .relaxed)
        parking.announce()
        sweeper.exchange(nil)?.join()
        node.operations?.finish()
        monitor?.stop()
        debezium?.stop()
        node.home?.stop()
        kafka?.stop()
        streams?.stop()
        node.stream?.stop()
        node.ownership?.stop()
        node.storage?.tier.stop()
        node.tracing.stop(isHurried: isHurried.load(ordering: .relaxed))
        if node.memoryFile != nil, !isHurried.load(ordering: .relaxed) { saveItems() }
    }

    private func saveItems() {
        let begun = Clock.monotonicNanoseconds()
        do throws(ImageError) {
            guard let items = try node.saveItems() else {
                log?.info("items not saved", ["reason": .text("the store may be written to meanwhile")])
                return
            }
            log?.info(
                "items saved", ["items": .count(items), "milliseconds": .count(Self.milliseconds(since: begun))])
        } catch {
            log?.error("items not saved", ["reason": .text(error.description)])
        }
    }

    /// Reads certificates and users again, as SIGHUP asks for. Returns what went wrong, if anything.
    package func reload() -> [String] {
        var failures: [String] = []
        if case .failed(let reason) = node.refreshCertificates() { failures.append(reason) }
        if let reason = streams?.reload() { failures.append(reason) }
        if let reason = node.home?.reload() { failures.append(reason) }
        if let store = node.storage?.backend as? any CertifiedStore, let reason = store.reloadCertificates() {
            failures.append(reason)
        }
        if let users = node.authentication {
            do throws(AuthenticationFileError) { try users.reload() } catch { failures.append(error.description) }
        }
        return failures
    }

    /// What the log was told of a store.
    private struct StorageWatch {
        var health: StorageHealth?
        var notice: String?
    }

    /// Ends waiting for a store that does not answer, and tells the log what is wrong with it, and what is to be known.
    private func watch(_ storage: NodeStorage, _ told: inout StorageWatch) {
        storage.tier.tick(monotonicNanoseconds: Clock.monotonicNanoseconds())
        guard let log else { return }
        storage.slow.write(to: log)
        let notice = storage.backend.notice
        if let notice, notice != told.notice { log.warning("storage notice", ["notice": .text(notice)]) }
        told.notice = notice
        let current = storage.tier.health
        guard current != told.health else { return }
        told.health = current
        if current == .ready {
            log.info("storage is ready")
        } else {
            log.error("storage fails", ["health": .text(current.text)])
        }
    }

    /// The system's clock was set: the times of copies are wrong.
    private func forgetTimedCopies(_ storage: NodeStorage, _ step: Int64, _ told: inout StorageWatch) {
        log?.warning(
            "the system's clock was set: copies of rows that expire are forgotten", ["milliseconds": .count(Int(step))])
        var ticked = Clock.monotonicNanoseconds()
        storage.forgetTimedCopies(node.engine) {
            // There may be many, and others wait for answers meanwhile.
            let now = Clock.monotonicNanoseconds()
            if now - ticked > 100_000_000 {
                watch(storage, &told)
                ticked = now
            }
            return !hasStopped.load(ordering: .relaxed)
        }
    }

    /// Ten times a second: ends waiting for a store that does not answer, drops the expired items of some shards, so
    /// that a round takes about ten seconds, evicts what a lowered limit left too much, gives freed memory back, and
    /// asks for huge pages.
    private func sweep() {
        let engine = node.engine
        let perTick = max(1, (engine.shardCount + 99) / 100)
        var shard = 0
        var told = StorageWatch(health: node.storage?.tier.health)
        var shedding = SheddingWatch()
        var clock = ClockWatch(beginning: node.clock.steadyBeginningMilliseconds())
        let usesHugePages = node.configuration.usesHugePages && ProcessControl.allowsHugePages
        while !hasStopped.load(ordering: .relaxed) {
            let ticket = parking.ticket
            if hasStopped.load(ordering: .relaxed) { return }
            parking.wait(ticket, timeoutNanoseconds: 100_000_000)
            if let storage = node.storage {
                watch(storage, &told)
                if let step = clock.look(node.clock.steadyBeginningMilliseconds()) {
                    forgetTimedCopies(storage, step, &told)
                }
            }
            if let log {
                let time = Clock.monotonicNanoseconds()
                node.tenants.logDenials(log, nanoseconds: time)
                shedding.look(node.sheddingFigures, at: time, log: log)
            }
            let now = node.clock.now()
            for _ in 0..<perTick {
                _ = engine.sweepExpired(shard: shard, now: now)
                shard = (shard + 1) % engine.shardCount
            }
            while !engine.trim(now: now, steps: 256) {
                if hasStopped.load(ordering: .relaxed) { return }
            }
            engine.releaseDroppedMemory()
            if usesHugePages { engine.collapsePages(limit: 16) }
        }
    }
}

extension ReactorConfiguration {
    init(_ configuration: NodeConfiguration) {
        self.init()
        threads = configuration.threads
        connectionLimit = configuration.connectionLimit
        refusesBeyondLimit = configuration.refusesBeyondLimit
        backlog = configuration.backlog
        idleTimeoutSeconds = configuration.idleTimeoutSeconds
        pendingOutputLimitBytes = configuration.outputLimitBytes
    }
}
