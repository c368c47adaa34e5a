// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
package import Settings

/// twemproxy's `nutcracker.yml`, read to be converted.
package enum TwemproxyFile {
    /// A pool of twemproxy's as a configuration of ours, with what it listened on.
    package struct Converted: Sendable, Equatable {
        /// The pool's name.
        package let name: String
        /// What it listened on: `host:port`, or a path.
        package let listen: String
        /// A configuration of ours for it alone.
        package let yaml: String
        /// What has another meaning or none here, one line each.
        package let notes: [String]
    }

    private static let known = [
        "listen", "client_connections", "hash", "hash_tag", "distribution", "timeout", "backlog", "tcpkeepalive",
        "redis",
        "redis_auth", "redis_db", "preconnect", "auto_eject_hosts", "server_connections", "server_retry_timeout",
        "server_failure_limit", "servers", "reuseport",
    ]

    /// Converts each pool of a file. Throws every pool's problem, with its place and what is allowed.
    package static func convert(_ bytes: [UInt8], file: String) throws(SettingsError) -> [Converted] {
        guard let root = try SettingsNode.parse(bytes, file: file), !root.isNull else {
            throw SettingsError(["\(file): the file is empty"])
        }
        let node = YAMLRoutes.node(root, file)
        guard let pools = node.object, pools.count > 0 else {
            throw SettingsError(["\(file):\(root.line): a mapping of pools is expected"])
        }
        var result: [Converted] = []
        var problems: [String] = []
        for entry in pools.entries {
            do throws(RouteProblem) { result.append(try convert(entry.key, entry.value)) } catch {
                problems.append(error.line)
            }
        }
        guard problems.isEmpty else { throw SettingsError(problems) }
        return result
    }

    private static func convert(_ name: String, _ node: JSONNode) throws(RouteProblem) -> Converted {
        guard let object = node.object else {
            throw RouteProblem("the pool \(name): a mapping is expected", at: node.place)
        }
        var fields = FieldReader("the pool \(name)", object, at: node.place)
        guard let listen = try fields.text("listen") else { throw fields.problem("listen is missing") }
        if try YAMLRoutes.flag("redis", &fields) == true {
            throw fields.problem("redis: the router speaks memcached's protocols only")
        }
        var notes: [String] = []
        var pool = RoutePool(name, servers: [])
        pool.spool = nil
        pool.requestTimeoutMilliseconds =
            try YAMLRoutes.whole("timeout", 1...3_600_000, &fields).map(Int.init)
        if pool.requestTimeoutMilliseconds == nil {
            notes.append("without timeout, twemproxy waits for ever; here a request may take a second")
        }
        pool.hash = try hash(&fields)
        let isEjecting = try YAMLRoutes.flag("auto_eject_hosts", &fields) ?? false
        for key in [
            "server_retry_timeout", "server_failure_limit", "server_connections", "client_connections", "backlog",
        ] {
            guard try YAMLRoutes.whole(key, 0...Int64(Int32.max), &fields) != nil else { continue }
            notes.append("\(key) has no counterpart in routes: see the router's own settings")
        }
        for key in ["preconnect", "tcpkeepalive", "reuseport", "redis_auth", "redis_db"] where fields.value(key) != nil
        {
            notes.append("\(key) has no counterpart")
        }
        guard let servers = try fields.list("servers"), !servers.isEmpty else {
            throw fields.problem("servers is missing")
        }
        for server in servers { pool.servers.append(try self.server(server, fields)) }
        for key in known { _ = fields.value(key) }
        try fields.finish()
        notes.append(
            isEjecting
                ? "auto_eject_hosts: a dead server's keys are not moved to others here, because they would be stale "
                    + "when it returns; its requests fail until it answers again"
                : "a server that does not answer is taken out here until it answers a probe; its requests fail at once")
        return Converted(name: name, listen: listen, yaml: try yaml(pool, node), notes: notes)
    }

    private static func yaml(_ pool: RoutePool, _ node: JSONNode) throws(RouteProblem) -> String {
        var tree = RouteTree()
        let defaults = RouteDefaults()
        do throws(RouteError) {
            let root = try tree.add(.pool(try tree.add(pool)))
            try tree.setCluster(try RoutingPrefix(defaults.routingPrefix), PrefixChoice(otherwise: root))
            _ = try RoutePlan(tree, defaults: defaults)
        } catch {
            throw RouteProblem(error.description, at: node.place)
        }
        return RouteConfiguration(tree: tree, defaults: defaults, warnings: [], files: []).yaml
    }

    private static func hash(_ fields: inout FieldReader) throws(RouteProblem) -> HashChoice {
        let name = try fields.text("hash") ?? KeyHash.fnv1aLower64.rawValue
        guard let hash = KeyHash(rawValue: name), hash != .murmur3, hash != .crc32Positive else {
            let known = KeyHash.allCases.filter { $0 != .murmur3 && $0 != .crc32Positive }.map(\.rawValue)
            throw fields.problem("hash: there is no hash \(name); there are \(known.joined(separator: ", "))")
        }
        var part = HashedPart.whole
        if let tag = try fields.text("hash_tag") {
            let bytes = Array(tag.utf8)
            guard bytes.count == 2 else { throw fields.problem("hash_tag: two characters are expected, such as {}") }
            part = .tag(open: bytes[0], close: bytes[1])
        }
        switch try fields.text("distribution") ?? "ketama" {
        case "ketama": return HashChoice(.ketama(.twemproxy, hash), part: part)
        case "modula": return HashChoice(.twemproxyModula(hash), part: part)
        case "random":
            throw fields.problem("distribution: random is not supported, because a key would be found by chance only")
        case let other: throw fields.problem("distribution: there is no \(other); there are ketama and modula")
        }
    }

    /// `host:port:weight name`.
    private static func server(_ node: JSONNode, _ pool: FieldReader) throws(RouteProblem) -> PoolServer {
        guard let text = node.text else { throw pool.problem("servers: texts are expected", at: node) }
        let parts = text.split(separator: " ", maxSplits: 1)
        let alias = parts.count == 2 ? String(parts[1].drop { $0 == " " }) : nil
        guard let address = parts.first, let colon = address.lastIndex(of: ":"),
            let weight = Int(address[address.index(after: colon)...]), weight > 0
        else {
            throw pool.problem(
                "the server '\(text)': HOST:PORT:WEIGHT, and a name behind a blank, is expected", at: node)
        }
        do throws(RouteProblem) {
            let found = try ServerAddress(String(address[..<colon]))
            return PoolServer(Server(host: found.host, port: found.port, weight: Double(weight), alias: alias))
        } catch {
            throw pool.problem(error.text, at: node)
        }
    }
}
