// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Hosting
package import Reactor
package import Routing
package import Telemetry
package import Tracing

/// Everything that a router is told before it starts, checked. Made by ``RouterCommandLine``; a plain value.
package struct RouterConfiguration: Sendable, Equatable {
    /// TCP listeners.
    package var listeners: [ServerListener] = []
    /// Unix sockets that clients connect to.
    package var unixSocketPaths: [String] = []
    /// The access mask of unix sockets.
    package var unixSocketMode: UInt32 = 0o700
    /// What connections to unix sockets may speak.
    package var unixRestriction = ProtocolRestriction.automatic
    /// Whether nobody said where to listen, and loopback is the default.
    package var listensByDefault = false
    /// The length of the queue of connections not accepted yet.
    package var backlog = 1024
    /// Reactor threads.
    package var threads = 2
    /// Clients at once.
    package var connectionLimit = 10_000
    /// Whether more are told so and closed, rather than left waiting.
    package var refusesBeyondLimit = true
    /// Seconds without a request after which a client is closed; 0 is never.
    package var idleTimeoutSeconds = 0
    /// Reply bytes that may wait for a client that does not read them.
    package var outputLimitBytes = 64 << 20
    /// TLS for clients; nil when it is off.
    package var tls: ServerTLS?

    /// The file of users and passwords; nil when nobody must log in.
    package var authenticationPath: String?
    /// Who may do what; empty when everybody may do everything.
    package var tenants: [TenantSettings] = []

    /// Where requests go.
    package var routes = RouteTree()
    /// What holds where the routes do not say.
    package var defaults = RouteDefaults()
    /// How the servers of pools are looked up.
    package var discovery = RouterDiscovery()
    /// Whether deletes that servers missed are kept.
    package var spool = SpoolSettings()
    /// How hot keys are found and served.
    package var hotKeys = HotKeySettings()
    /// When servers are taken out, and tried again.
    package var health = HealthConfiguration()
    /// TLS to servers; nil when it is off.
    package var serverTLS: TLSClientConfiguration?
    /// Limits of what is in flight.
    package var limits = RouterLimits()

    /// The admin server; nil when it is off.
    package var admin: AdminEndpoint? = RouterConfiguration.standardAdmin
    /// The file whose first line opens the admin server's guarded pages; nil leaves them to this machine.
    package var adminTokenPath: String?
    /// The file that it came from; nil where flags said it all.
    package var filePath: String?
    /// Where the last configuration that could be used is kept; nil where it is not.
    package var lastGoodPath: String?
    /// How it takes its leave.
    package var drain = DrainConfiguration()
    /// The spelling of log lines.
    package var logFormat = Log.Format.json
    /// The least level of log lines.
    package var logLevel = Log.Level.info
    /// Whether and how requests are traced.
    package var tracing = TracingConfiguration()
    /// How the process itself runs.
    package var process = ProcessOptions()
    /// What the operator ought to be told at start.
    package var notes: [String] = []
    /// All of this in short.
    package var summary = ConfigurationSummary()

    package init() {}

    /// Routes every key to one pool of these servers, or of those that are found at `members`.
    package mutating func usePool(
        _ servers: [RouterServer], members: String? = nil, hash: HashChoice = HashChoice(),
        consistency: PoolConsistency = .lookAside, connectTimeoutMilliseconds: Int? = nil, usesTLS: Bool = false
    ) throws(RouteError) {
        var pool = RoutePool("servers", servers: servers.map { PoolServer($0.server) })
        pool.members = members
        pool.consistency = consistency
        // Of servers with storage, a delete that they missed is an error.
        pool.spool = consistency == .lookAside ? pool.name : nil
        pool.hash = hash
        pool.connectTimeoutMilliseconds = connectTimeoutMilliseconds
        pool.usesTLS = usesTLS
        var tree = RouteTree()
        let root = try tree.add(.pool(try tree.add(pool)))
        try tree.setCluster(try RoutingPrefix(defaults.routingPrefix), PrefixChoice(otherwise: root))
        routes = tree
    }

    static var standardAdmin: AdminEndpoint {
        var endpoint = AdminEndpoint()
        endpoint.port = 9151
        return endpoint
    }
}

/// A server as the configuration has it: where it is, and what part of the keys it takes.
package struct RouterServer: Sendable, Equatable {
    /// Where it is: a name, an address, or with port 0 the path of a unix socket.
    package let host: String
    /// TCP port.
    package let port: UInt16
    /// Relative to the others.
    package var weight = 1.0

    /// As hashing sees it.
    var server: Server { Server(host: host, port: Int(port), weight: weight) }

    /// Reads `host:port`, `[v6]:port`, `host` or `/path`, each with `:weight` or `=weight` behind it if need be:
    /// `host:port:weight`, `/path=weight`. nil when it is none.
    package init?(_ text: String) {
        var rest = text[...]
        if let equals = rest.lastIndex(of: "=") {
            guard let weight = Double(rest[equals...].dropFirst()), weight > 0 else { return nil }
            self.weight = weight
            rest = rest[..<equals]
        }
        if rest.hasPrefix("unix:") { rest = rest.dropFirst(5) }
        if rest.hasPrefix("/") {
            self.host = String(rest)
            port = 0
            return
        }
        var host = rest
        var after: [Substring] = []
        if rest.hasPrefix("[") {
            guard let end = rest.firstIndex(of: "]") else { return nil }
            host = rest[..<end].dropFirst()
            let tail = rest[end...].dropFirst()
            guard tail.isEmpty || tail.hasPrefix(":") else { return nil }
            after = tail.dropFirst().split(separator: ":", omittingEmptySubsequences: false)
            if tail.isEmpty { after = [] }
        } else {
            let parts = rest.split(separator: ":", omittingEmptySubsequences: false)
            host = parts[0]
            after = Array(parts.dropFirst())
        }
        guard !host.isEmpty, after.count <= 2, !host.contains(" ") else { return nil }
        var port: UInt16 = 11211
        if let text = after.first {
            guard let number = UInt16(text), number > 0 else { return nil }
            port = number
        }
        if after.count == 2 {
            guard let weight = Double(after[1]), weight > 0 else { return nil }
            self.weight = weight
        }
        self.host = String(host)
        self.port = port
    }
}
