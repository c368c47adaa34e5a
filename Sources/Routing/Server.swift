// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A server of a pool as hashing sees it: what it is called and how much of the keys it takes.
package struct Server: Sendable, Equatable {
    /// Host name or address as it is configured, or the path of a unix socket.
    package let host: String
    /// TCP port; 0 with a unix socket.
    package let port: Int
    /// What the server takes, relative to the others; each scheme says which weights it knows.
    package let weight: Double
    /// What stands for the address where points are made, so that a server can be replaced by one of another address.
    package let alias: String?

    /// A server by its address.
    package init(host: String, port: Int, weight: Double = 1, alias: String? = nil) {
        self.host = host
        self.port = port
        self.weight = weight
        self.alias = alias
    }

    /// The alias, or host and port.
    var name: String { alias ?? (port == 0 ? host : "\(host):\(port)") }

    /// What libmemcached makes points from: the port stands behind the host unless it is 11211.
    var ketamaName: String { alias ?? (port == 11211 ? host : "\(host):\(port)") }

    /// What twemproxy makes points from: as libmemcached, but of a unix socket's port only the colon is there.
    var twemproxyName: String { alias ?? (port == 0 ? "\(host):" : ketamaName) }
}

/// Why servers cannot be hashed as asked.
package enum SelectorError: Error, Equatable, CustomStringConvertible {
    /// There are no servers, or more than the scheme can tell apart.
    case serverCount(Int, allowed: ClosedRange<Int>)
    /// Two servers would make the same points.
    case sameName(String)
    /// A weight that the scheme does not know.
    case weight(Double, server: String, allowed: String)
    /// Weights that add up to more points than a ring may have.
    case points(Int, allowed: Int)
    /// A salt of more bytes than keys may get.
    case salt(Int, allowed: Int)

    package var description: String {
        switch self {
        case .serverCount(let count, let allowed):
            "\(count) servers: a pool has \(allowed.lowerBound) to \(allowed.upperBound)"
        case .sameName(let name): "two servers are called '\(name)'"
        case .weight(let weight, let server, let allowed): "weight \(weight) of '\(server)': allowed is \(allowed)"
        case .points(let count, let allowed): "the weights make \(count) points: a ring has at most \(allowed)"
        case .salt(let count, let allowed): "a salt of \(count) bytes: at most \(allowed) are allowed"
        }
    }
}
