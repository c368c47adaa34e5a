// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Platform
internal import Reactor
internal import Routing
internal import Synchronization

/// Knows a client's servers: looks them up, hears of changes, and looks names up again when connections fail. On a
/// thread of its own, because looking up blocks.
final class ServerDirectory: Sendable {
    private let shared: ClientShared
    private let state: Guarded<State>
    private let parking = Parking()
    private let isStopped = Atomic<Bool>(false)

    private struct State {
        var thread: Thread?
        var watch: MemberWatch?
        /// Servers whose names are to be looked up again.
        var lookups: [ServerNode] = []
        var nextIndex = 0
    }

    /// Between two looks at a name whose server does not answer.
    private static var lookupPauseNanoseconds: UInt64 { 1_000_000_000 }
    /// Seconds that each call to a server that knows the cluster may take.
    private static var clusterTimeoutSeconds: Int { 2 }
    /// Between attempts to reach one, after a failure.
    private static var clusterRetryNanoseconds: UInt64 { 1_000_000_000 }

    init(_ shared: ClientShared) {
        self.shared = shared
        state = Guarded(State())
    }

    /// Begins to look; the first servers are in the client's topology soon.
    func start() throws(CacheError) {
        do throws(SystemError) {
            let thread = try Thread(name: "cache-servers") { [self] in run() }
            state.withLock { $0.thread = thread }
        } catch {
            throw .invalidConfiguration(error.description)
        }
    }

    /// Tells it to end; does not wait.
    func signalStop() {
        isStopped.store(true, ordering: .relaxed)
        parking.announce()
    }

    /// Ends, and waits for it. Blocks.
    func stop() {
        signalStop()
        let (thread, watch) = state.withLock { state in
            defer { (state.thread, state.watch) = (nil, nil) }
            return (state.thread, state.watch)
        }
        watch?.stop()
        thread?.join()
    }

    /// A server does not answer: perhaps its name leads elsewhere now. Does not block.
    func lookUpAgain(_ node: ServerNode) {
        state.withLock { state in
            if !state.lookups.contains(where: { $0 === node }) { state.lookups.append(node) }
        }
        parking.announce()
    }

    private func run() {
        var nextCluster = UInt64.max
        switch shared.configuration.servers {
        case .fixed(let texts): startFixed(texts)
        case .discovered(let text): startWatch(text)
        case .cluster: nextCluster = 0
        }
        var nextLookup: UInt64 = 0
        while !isStopped.load(ordering: .relaxed) {
            let ticket = parking.ticket
            let now = Clock.monotonicNanoseconds()
            if now >= nextCluster { nextCluster = now &+ askCluster() }
            let isLookupDue = now >= nextLookup
            let (nodes, isWaiting) = state.withLock { state -> ([ServerNode], Bool) in
                guard isLookupDue else { return ([], !state.lookups.isEmpty) }
                defer { state.lookups = [] }
                return (state.lookups, false)
            }
            for node in nodes { node.lookUp() }
            if !nodes.isEmpty { nextLookup = now &+ Self.lookupPauseNanoseconds }
            guard !isStopped.load(ordering: .relaxed) else { return }
            let next = min(nextCluster, isWaiting ? nextLookup : .max, now &+ 60_000_000_000)
            let current = Clock.monotonicNanoseconds()
            parking.wait(ticket, timeoutNanoseconds: next > current ? next - current : 1)
        }
    }

    private func startFixed(_ texts: [String]) {
        do throws(MemberSource.Problem) {
            var members: [Member] = []
            for text in texts { members += try Self.members(of: text) }
            apply(members)
        } catch {
            shared.noteNoServers(error.description)
        }
    }

    /// The member that a text of ``ClientConfiguration/Servers/fixed(_:)`` names.
    static func members(of text: String) throws(MemberSource.Problem) -> [Member] {
        if text.hasPrefix("/") { return [Member(host: text, port: 0, name: text)] }
        guard case .fixed(let members) = try MemberSource([text]) else {
            throw MemberSource.Problem(description: "\(text): expected HOST:PORT; a source is given as .discovered")
        }
        return members
    }

    private func startWatch(_ text: String) {
        do throws(MemberSource.Problem) {
            let source = try MemberSource([text])
            do throws(SystemError) {
                var configuration = DiscoveryConfiguration()
                configuration.environment = Environment.all()
                let watch = try MemberWatch(
                    source, configuration: configuration, log: { [shared] in shared.noteNoServers($0) },
                    onChange: { [weak self] set in
                        // Who has nothing yet is not asked, unless nobody has.
                        let up = set.members.filter { !$0.isWarming }
                        self?.apply(up.isEmpty ? set.members : up)
                    })
                state.withLock { $0.watch = watch }
            } catch {
                shared.noteNoServers(error.description)
            }
        } catch {
            shared.noteNoServers(error.description)
        }
    }

    /// Asks the cluster who is in it; returns after how long to ask again.
    private func askCluster() -> UInt64 {
        guard case .cluster(let text) = shared.configuration.servers else { return .max }
        do throws(MemberSource.Problem) {
            guard let seed = try Self.members(of: text).first else { return .max }
            // Whoever answers knows; the seed is asked first, then those that are known.
            let known = shared.topology.withLock { $0 }?.nodes.map(\.server) ?? []
            for server in [seed.server] + known {
                guard !isStopped.load(ordering: .relaxed) else { return .max }
                if let members = Self.ask(server, timeoutSeconds: Self.clusterTimeoutSeconds) {
                    apply(members)
                    return shared.configuration.refreshInterval.wholeNanoseconds
                }
            }
            shared.noteNoServers("\(text) does not answer 'config get cluster'")
        } catch {
            shared.noteNoServers(error.description)
        }
        return Self.clusterRetryNanoseconds
    }

    private static func ask(_ server: Server, timeoutSeconds: Int) -> [Member]? {
        do throws(SystemError) {
            let socket = try ClientSocket.connect(
                host: server.host, port: UInt16(clamping: server.port), timeoutSeconds: timeoutSeconds)
            try socket.write(Array("config get cluster\r\n".utf8))
            var bytes: [UInt8] = []
            while true {
                switch ClusterAnswer.read(bytes) {
                case .whole(let answer): return answer.members
                case .nonsense: return nil
                case .incomplete: break
                }
                let more = try socket.read(limit: 64 << 10)
                guard !more.isEmpty, bytes.count < ClusterAnswer.limitBytes else { return nil }
                bytes += more
            }
        } catch {
            return nil
        }
    }

    /// These are the servers from now on. Those that stay keep their connections. Blocks on DNS for new ones.
    private func apply(_ members: [Member]) {
        guard !members.isEmpty else { return shared.noteNoServers("the list of servers is empty") }
        let old = shared.topology.withLock { $0 }?.nodes ?? []
        var nodes: [ServerNode] = []
        for member in members {
            let server = member.server
            if let node = old.first(where: { $0.server == server }) {
                nodes.append(node)
            } else {
                do throws(TLSError) { nodes.append(try makeNode(server)) } catch {
                    return shared.noteNoServers(error.description)
                }
            }
        }
        var selector: ServerSelector?
        if let scheme = HashScheme(shared.configuration.placement) {
            do throws(SelectorError) { selector = try ServerSelector(nodes.map(\.server), scheme: scheme) } catch {
                return shared.noteNoServers(error.description)
            }
        }
        shared.publish(Topology(nodes: nodes, selector: selector))
        for node in old where !nodes.contains(where: { $0 === node }) {
            shared.queues[node.loop].put(.retire(node))
        }
    }

    private func makeNode(_ server: Server) throws(TLSError) -> ServerNode {
        let name = server.port == 0 ? server.host : "\(server.host):\(server.port)"
        var context: TLSClientContext?
        if let tls = shared.configuration.tls, server.port != 0 {
            var settings = TLSClientConfiguration()
            settings.authorityPath = tls.authorityPath
            settings.chainPath = tls.certificatePath
            settings.keyPath = tls.keyPath
            settings.serverName = tls.serverName
            settings.verifiesPeer = tls.verifiesPeer
            context = try TLSClientContext(settings, host: server.host)
        }
        let index = state.withLock { state in
            defer { state.nextIndex += 1 }
            return state.nextIndex
        }
        return ServerNode(
            index: index, loop: index % shared.queues.count, name: name, server: server, tls: context,
            addresses: ServerNode.addresses(of: server))
    }
}
