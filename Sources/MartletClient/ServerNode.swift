// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Platform
internal import Reactor
internal import Routing
internal import Synchronization

/// A server as all of a client's parts share it.
final class ServerNode: Sendable {
    /// Its number: small, and no other server's at the same time.
    let index: Int
    /// The loop that speaks to it.
    let loop: Int
    /// As it was given: `host:port`, or a unix socket's path.
    let name: String
    let server: Server
    let tls: TLSClientContext?
    let meter = NodeMeter()
    private let addresses: Guarded<[SocketAddress]>

    init(index: Int, loop: Int, name: String, server: Server, tls: TLSClientContext?, addresses: [SocketAddress]) {
        self.index = index
        self.loop = loop
        self.name = name
        self.server = server
        self.tls = tls
        self.addresses = Guarded(addresses)
    }

    /// One of its addresses: another one after each failure; nil while its name cannot be looked up.
    func address(attempt: Int) -> SocketAddress? {
        addresses.withLock { $0.isEmpty ? nil : $0[attempt % $0.count] }
    }

    /// Looks its name up again. Blocks on DNS.
    func lookUp() {
        let found = Self.addresses(of: server)
        if !found.isEmpty { addresses.withLock { $0 = found } }
    }

    /// The addresses of a server's name; none when it has none. Blocks on DNS.
    static func addresses(of server: Server) -> [SocketAddress] {
        if server.port == 0 {
            guard server.host.utf8.count <= SocketAddress.pathLimitBytes else { return [] }
            return [SocketAddress(path: server.host)]
        }
        return (try? ListeningSocket.resolve(host: server.host, port: UInt16(server.port), isDatagram: false)) ?? []
    }
}

/// The servers at one moment, and which of them a key belongs to.
struct Topology: Sendable {
    let nodes: [ServerNode]
    /// nil when every server can answer for every key.
    let selector: ServerSelector?

    /// Whom to ask for a key at an attempt, counted from 0. `chance` are two random numbers.
    func node(for key: String, attempt: Int, chance: (UInt32, UInt32)) -> ServerNode {
        if nodes.count == 1 { return nodes[0] }
        guard let selector else {
            let count = UInt32(nodes.count)
            // After a failure, not the same one again: the next in the list, from anywhere.
            let first = nodes[Int((chance.0 &+ UInt32(attempt)) % count)]
            let second = nodes[Int(chance.1 % count)]
            let isSecondBetter = second.meter.load < first.meter.load
            return isSecondBetter ? second : first
        }
        return nodes[selector.owner(of: key.utf8.span)]
    }
}

/// What is counted of a server; written by its loop.
final class NodeMeter: Sendable {
    let requests = Atomic<UInt64>(0)
    let failures = Atomic<UInt64>(0)
    let connects = Atomic<UInt64>(0)
    let connections = Atomic<Int>(0)
    let inFlight = Atomic<Int>(0)
    let isOpen = Atomic<Bool>(false)

    /// How busy it is, for choosing the less busy of two.
    var load: Int {
        isOpen.load(ordering: .relaxed) ? 1 << 30 : inFlight.load(ordering: .relaxed)
    }
}

extension HashScheme {
    /// The scheme of a placement; nil for any server.
    init?(_ placement: ClientConfiguration.Placement) {
        switch placement {
        case .martlet: self = .multiProbe
        case .ketama: self = .ketama(.libmemcachedWeighted, .md5)
        case .twemproxy: self = .ketama(.twemproxy, .fnv1aLower64)
        case .rendezvous: self = .pymemcacheRendezvous
        case .modulo: self = .modulo(.oneAtATime)
        case .any: return nil
        }
    }
}
