// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Admin
internal import Hosting
internal import Platform
package import Reactor
internal import Routing
internal import Synchronization
package import Telemetry
internal import Tracing

/// A router that cannot start, and why.
package struct RouterStartError: Error, CustomStringConvertible, Sendable {
    package let description: String
}

/// A running router: its listeners and reactors.
///
/// Order: `init` looks up the servers' names, `bind` binds the addresses, `start` begins to serve, `stop` ends it,
/// `wait` returns when all is over.
package final class RouterService: Sendable {
    /// What the reactors share.
    package let router: Router
    private let group: ReactorGroup
    private let tls: TLSContext?
    private let configuration: RouterConfiguration
    /// The configuration that the plan is of, and the epochs of members that a plan was last tried with.
    private let current: Guarded<(configuration: RouterConfiguration, tried: [String: UInt64])>
    private let log: Log?
    /// Whether it was told to end at once.
    private let isHurried = Atomic<Bool>(false)

    /// Makes the router. A server whose name cannot be looked up is one that is down; a pool whose members nobody knows
    /// yet is empty, after a wait for them.
    package init(_ configuration: RouterConfiguration, log: Log? = nil) throws(RouterStartError) {
        self.configuration = configuration
        self.log = log
        let members = RouterMembers(configuration.discovery, log: log)
        for source in try members.watch(configuration.routes.memberSources) {
            log?.warning("no members were found yet", ["source": .text(source)])
        }
        let plan = try RouterPlan(configuration, members, after: nil)
        current = Guarded((configuration, plan.memberEpochs))
        let spool = RouterSpool(configuration.spool, log: log)
        let users: AuthenticationStore?
        do throws(AuthenticationFileError) {
            users = try configuration.authenticationPath.map { (path) throws(AuthenticationFileError) in
                try AuthenticationStore(path: path)
            }
        } catch {
            throw RouterStartError(description: error.description)
        }
        let router = Router(configuration, users: users, members: members, spool: spool, plan: plan)
        self.router = router
        do throws(TLSError) {
            tls = try configuration.tls.map { (tls) throws(TLSError) in try TLSContext(TLSConfiguration(tls)) }
        } catch {
            throw RouterStartError(description: error.description)
        }
        do throws(SystemError) {
            group = try ReactorGroup(ReactorConfiguration(configuration), tls: tls) { reactor in
                RouterHandler(router, reactor)
            }
        } catch {
            throw RouterStartError(description: error.description)
        }
        router.attach(group)
        try spool.start(group.reactors)
        try spool.follow(plan.repairPlaces, configuration.discovery)
    }

    /// Binds every address of the configuration.
    package func bind() throws(RouterStartError) {
        var wanted: [(listener: ListenerConfiguration, isOptional: Bool)] = []
        for path in configuration.unixSocketPaths {
            let endpoint = ListenerConfiguration.Endpoint.unix(path: path, mode: configuration.unixSocketMode)
            let tag = configuration.unixRestriction.parserTag
            wanted.append((ListenerConfiguration(endpoint, tag: tag), false))
        }
        for listener in configuration.listeners {
            wanted.append(
                (listener.reactorListener(.tcp(host: listener.host, port: listener.port)), listener.isOptional))
        }
        for (listener, isOptional) in wanted {
            do throws(ListenError) {
                try group.listen(listener)
            } catch {
                if !isOptional { throw RouterStartError(description: error.description) }
            }
        }
    }

    /// What is bound, in order.
    package var listeners: [BoundListener] { group.listeners }

    /// Starts the threads.
    package func start() throws(RouterStartError) {
        do throws(SystemError) {
            try group.start()
            if let port = listeners.first(where: { !$0.isUnix })?.port {
                router.tracing.setAddress("\(ProcessControl.hostName):\(port)")
            }
            try router.tracing.start(log: log)
        } catch {
            throw RouterStartError(description: error.description)
        }
    }

    /// Ends the service: what was asked is answered, and clients that were served less than `idleMilliseconds` ago are
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
        router.spool.stop()
        router.members.keep([])
        router.tracing.stop(isHurried: isHurried.load(ordering: .relaxed))
    }

    /// Routes by another configuration from now on. What is in flight goes on, and servers that stay keep their
    /// connections. Waits for the members of sources that are new, and throws when there are none: nothing changes
    /// then.
    package func reload(_ fresh: RouterConfiguration) throws(RouterStartError) {
        let known = router.plan.routes.tree.memberSources
        do throws(RouterStartError) {
            let unknown = try router.members.watch(fresh.routes.memberSources.subtracting(known))
            guard unknown.isEmpty else {
                throw RouterStartError(description: "no members were found at \(unknown.joined(separator: ", "))")
            }
            let plan = try RouterPlan(fresh, router.members, after: router.plan)
            try router.spool.follow(plan.repairPlaces, fresh.discovery)
            current.withLock { $0 = (fresh, plan.memberEpochs) }
            router.plan = plan
            router.tenants.replace(fresh.tenants)
        } catch {
            router.members.keep(known)
            throw error
        }
        router.members.keep(fresh.routes.memberSources)
    }

    /// Reads the users again. Returns what went wrong, if anything; they stay as they are then.
    package func reloadUsers() -> String? {
        do throws(AuthenticationFileError) { try router.users?.reload() } catch { return error.description }
        return nil
    }

    /// Reads certificates and revocation lists again, for new connections, and has those closed whose peers are
    /// revoked. Returns what went wrong. Blocks on the files.
    package func reloadCertificates() -> [String] {
        var failures: [String] = []
        do throws(TLSError) { try tls?.reload() } catch { failures.append("tls: \(error)") }
        var read: Set<ObjectIdentifier> = []
        for context in router.plan.backends.compactMap(\.tls) {
            let isFirst = context.revocations.map { read.insert(ObjectIdentifier($0)).inserted } ?? false
            do throws(TLSError) { try context.reload(readsLists: isFirst) } catch {
                let failure = "upstream.tls: \(error)"
                if !failures.contains(failure) { failures.append(failure) }
            }
        }
        group.closeRevoked()
        return failures
    }

    /// Logs what tenants were denied, not too often.
    package func logDenials() {
        if let log { router.tenants.logDenials(log, nanoseconds: Clock.monotonicNanoseconds()) }
    }

    /// Whether servers of pools are looked up.
    package var looksUpMembers: Bool { !router.plan.memberEpochs.isEmpty }

    /// Routes to the members that are there now, where they changed. A set that cannot be used is left aside: the last
    /// one stays.
    package func takeMembers() {
        let (configuration, tried) = current.withLock { $0 }
        let now = tried.keys.reduce(into: [:]) { $0[$1] = router.members.found(at: $1).epoch }
        guard now != tried else { return }
        current.withLock { $0.tried = now }
        do throws(RouterStartError) {
            let plan = try RouterPlan(configuration, router.members, after: router.plan)
            try router.spool.follow(plan.repairPlaces, configuration.discovery)
            router.plan = plan
            log?.info(
                "routing to other members",
                ["servers": .count(router.plan.backends.count), "epoch": .count(router.plan.epoch)])
        } catch {
            log?.error("members cannot be used, and stay as they are", ["reason": .text(error.description)])
        }
    }

    /// Looks up again where servers are whose connections fail. Blocks on DNS.
    package func refreshAddresses() {
        for backend in router.plan.backends where backend.state == .waiting { backend.lookUp() }
    }

    /// Runs `work` on the first reactor's thread, between turns: for tests that measure that thread.
    package func runOnFirstReactor(_ work: @escaping @Sendable () -> Void) -> Bool {
        group.reactors.first?.post { _ in work() } ?? false
    }
}

extension RouterPlan {
    /// A plan of the configuration's routes, with the members that were found; servers of `last` that stay are kept.
    /// Blocks on DNS.
    convenience init(
        _ configuration: RouterConfiguration, _ members: RouterMembers, after last: RouterPlan?
    ) throws(RouterStartError) {
        let routes: RoutePlan
        var epochs: [String: UInt64] = [:]
        let tree = configuration.routes.replacingMembers { source in
            let (servers, epoch) = members.found(at: source)
            epochs[source] = epoch
            return servers
        }
        do throws(RouteError) {
            routes = try RoutePlan(tree, defaults: configuration.defaults)
        } catch {
            throw RouterStartError(description: "routes: \(error.description)")
        }
        let known = last?.backends ?? []
        var backends: [Backend] = []
        for destination in routes.destinations.map(RouterDestination.init) {
            let settings = destination.usesTLS ? configuration.serverTLS ?? TLSClientConfiguration() : nil
            if let old = known.first(where: { $0.destination == destination && $0.tls?.configuration == settings }) {
                backends.append(old)
                continue
            }
            var tls: TLSClientContext?
            let lists = (known + backends).first { $0.tls?.configuration == settings }?.tls?.revocations
            do throws(TLSError) {
                tls = try settings.map { (settings) throws(TLSError) in
                    try TLSClientContext(settings, host: destination.host, revocations: lists)
                }
            } catch {
                throw RouterStartError(description: "upstream.tls: \(error.description)")
            }
            let backend = Backend(
                destination, tls: tls, addresses: [], reactors: configuration.threads,
                isTraced: configuration.tracing.isOn)
            backend.lookUp()
            backends.append(backend)
        }
        self.init(
            routes, backends, epoch: (last?.epoch ?? 0) + 1,
            madeSeconds: max(Clock.realtimeNanoseconds() / 1_000_000_000, (last?.madeSeconds ?? 0) + 1),
            memberEpochs: epochs,
            routeMeters: RouteMeter.meters(
                for: tree, keeping: last?.routeMeters, reactors: configuration.threads,
                isTraced: configuration.tracing.isOn))
    }

    /// What is wrong with the routes of a configuration.
    static func problems(_ configuration: RouterConfiguration) -> [String] {
        guard !configuration.routes.pools.isEmpty || !configuration.routes.handles.isEmpty else {
            return ["servers: missing; expected host:port[:weight] or /path[=weight], in the file or as arguments"]
        }
        let problems = configuration.routes.pools.compactMap { pool in
            pool.members.flatMap(RouterMembers.problem).map { "routes: pool \(pool.name): members: \($0)" }
        }
        guard problems.isEmpty else { return problems }
        let cached = Int((configuration.hotKeys.cacheNanoseconds + 999_999) / 1_000_000)
        if let reason = configuration.routes.refusal(ofCaching: cached) { return ["hotKeys.cacheTTL: \(reason)"] }
        do throws(RouteError) {
            _ = try RoutePlan(configuration.routes, defaults: configuration.defaults)
            return []
        } catch {
            return ["routes: \(error.description)"]
        }
    }
}

extension Backend {
    /// Looks up where it is; keeps what is known when that fails. Blocks on DNS.
    func lookUp() {
        if destination.port == 0 {
            guard destination.host.utf8.count <= SocketAddress.pathLimitBytes else { return }
            return setAddresses([SocketAddress(path: destination.host)])
        }
        let found = try? ListeningSocket.resolve(host: destination.host, port: destination.port, isDatagram: false)
        if let found, !found.isEmpty { setAddresses(found) }
    }
}

extension ReactorConfiguration {
    init(_ configuration: RouterConfiguration) {
        self.init()
        threads = configuration.threads
        connectionLimit = configuration.connectionLimit
        refusesBeyondLimit = configuration.refusesBeyondLimit
        backlog = configuration.backlog
        idleTimeoutSeconds = configuration.idleTimeoutSeconds
        pendingOutputLimitBytes = configuration.outputLimitBytes
        inputLimitBytes = max(inputLimitBytes, configuration.limits.valueBytes + 64 << 10)
    }
}
