// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Platform
package import Reactor
internal import Synchronization
internal import Telemetry

/// A node that cannot start, and why.
package struct NodeStartError: Error, CustomStringConvertible, Sendable {
    package let description: String

    init(_ description: String) { self.description = description }
}

/// A running node: the cache, its listeners and reactors, and the thread that looks for expired items.
///
/// Order: `init` binds the addresses, `start` begins to serve, `stop` ends it, `wait` returns when all is over.
package final class NodeService: Sendable {
    /// How long a graceful stop waits for clients that are still served, in milliseconds.
    private static let graceMilliseconds = 10_000

    /// The cache and what its reactors share.
    package let node: Node
    private let group: ReactorGroup
    private let sweeper = Guarded<Thread?>(nil)
    private let isStopping = Atomic<Bool>(false)
    private let parking = Parking()

    /// Makes the cache and binds every address of the configuration. `stop` is called when a client ends the process.
    package init(
        _ configuration: NodeConfiguration, stop: @escaping @Sendable (_ isGraceful: Bool) -> Void
    ) throws(NodeStartError) {
        do throws(AuthenticationFileError) {
            node = try Node(configuration)
        } catch {
            throw NodeStartError(error.description)
        }
        let tls: TLSContext?
        do throws(TLSError) {
            tls = try configuration.tls.map { (tls) throws(TLSError) in try TLSContext(TLSConfiguration(tls)) }
        } catch {
            throw NodeStartError(error.description)
        }
        let node = self.node
        do throws(SystemError) {
            group = try ReactorGroup(ReactorConfiguration(configuration), tls: tls) { reactor in
                NodeHandler(node, reactor)
            }
        } catch {
            throw NodeStartError(error.description)
        }
        try Self.listen(configuration, group)
        node.attach(group, tls: tls, stop: stop)
    }

    private static func listen(_ configuration: NodeConfiguration, _ group: ReactorGroup) throws(NodeStartError) {
        var wanted: [(listener: ListenerConfiguration, isOptional: Bool)] = []
        if let path = configuration.unixSocketPath {
            let tag = configuration.restriction.parserTag
            let endpoint = ListenerConfiguration.Endpoint.unix(path: path, mode: configuration.unixSocketMode)
            wanted.append((ListenerConfiguration(endpoint, tag: tag), false))
        }
        for listener in configuration.listeners {
            wanted.append(
                (listener.reactorListener(.tcp(host: listener.host, port: listener.port)), listener.isOptional))
        }
        for listener in configuration.datagramListeners {
            wanted.append(
                (listener.reactorListener(.udp(host: listener.host, port: listener.port)), listener.isOptional))
        }
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

    /// Starts the threads.
    package func start() throws(NodeStartError) {
        do throws(SystemError) {
            try group.start()
            let thread = try Thread(name: "martlet-expire") { [self] in sweep() }
            sweeper.withLock { $0 = thread }
        } catch {
            throw NodeStartError(error.description)
        }
    }

    /// Ends the service: gracefully (what was sent is answered), or at once. Does not wait.
    package func stop(isGraceful: Bool) {
        isStopping.store(true, ordering: .relaxed)
        parking.announce()
        group.stop(isGraceful ? .graceful(milliseconds: Self.graceMilliseconds) : .immediate)
    }

    /// Returns when every thread has ended.
    package func wait() {
        group.join()
        let thread = sweeper.withLock { thread in
            defer { thread = nil }
            return thread
        }
        thread?.join()
    }

    /// Reads certificates and users again, as SIGHUP asks for. Returns what went wrong, if anything.
    package func reload() -> [String] {
        var failures: [String] = []
        if case .failed(let reason) = node.refreshCertificates() { failures.append(reason) }
        if let users = node.authentication {
            do throws(AuthenticationFileError) { try users.reload() } catch { failures.append(error.description) }
        }
        return failures
    }

    /// Ten times a second: drops the expired items of some shards, so that a round takes about ten seconds, evicts what
    /// a lowered limit left too much, and gives freed memory back.
    private func sweep() {
        let engine = node.engine
        let perTick = max(1, (engine.shardCount + 99) / 100)
        var shard = 0
        while !isStopping.load(ordering: .relaxed) {
            let ticket = parking.ticket
            if isStopping.load(ordering: .relaxed) { return }
            parking.wait(ticket, timeoutNanoseconds: 100_000_000)
            let now = node.clock.now()
            for _ in 0..<perTick {
                _ = engine.sweepExpired(shard: shard, now: now)
                shard = (shard + 1) % engine.shardCount
            }
            while !engine.trim(now: now, steps: 256) {
                if isStopping.load(ordering: .relaxed) { return }
            }
            engine.releaseDroppedMemory()
        }
    }
}

extension NodeListener {
    func reactorListener(_ endpoint: ListenerConfiguration.Endpoint) -> ListenerConfiguration {
        let security: ListenerConfiguration.Security =
            switch self.security {
            case .plain: .none
            case .tls: .tls
            case .tlsWithoutPeer: .tlsWithoutPeer
            case .mutualTLS: .mutualTLS
            }
        return ListenerConfiguration(endpoint, tag: restriction.parserTag, security: security)
    }
}

extension ProtocolRestriction {
    /// The listener tag by which connections know what they may speak: see ``Node/parserConfiguration(listenerTag:)``.
    var parserTag: UInt64 {
        switch self {
        case .automatic: 0
        case .ascii: 1
        case .binary: 2
        }
    }
}

extension TLSConfiguration {
    init(_ tls: NodeTLS) {
        self.init(chainPath: tls.certificatePath, keyPath: tls.keyPath)
        keyFormat = tls.isKeyDER ? .der : .pem
        authorityPath = tls.authorityPath
        verifyMode =
            switch tls.verification {
            case .none: .none
            case .request: .request
            case .require: .require
            case .once: .once
            }
        minimumVersion =
            switch tls.minimumVersion {
            case .tls10: .tls10
            case .tls11: .tls11
            case .tls12: .tls12
            case .tls13: .tls13
            }
        ciphers = tls.ciphers
        hasSessionCache = tls.cachesSessions
        usesKernelTLS = tls.usesKernelTLS
        writeBufferBytes = tls.writeBufferBytes
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
