// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A server of a pool, and what is known of it beside its address.
package struct PoolServer: Sendable, Equatable {
    /// Address, weight and name.
    package let server: Server
    /// What fails together; 0 when nothing is known.
    package let failureDomain: UInt32
    /// Whether the connection is encrypted; nil when the pool says so.
    package let usesTLS: Bool?
    /// Whether it is fetching its share of the keys from the others: it is not read from, and what is written is
    /// deleted on it.
    package let isWarming: Bool

    /// A server.
    package init(_ server: Server, failureDomain: UInt32 = 0, usesTLS: Bool? = nil, isWarming: Bool = false) {
        self.isWarming = isWarming
        self.server = server
        self.failureDomain = failureDomain
        self.usesTLS = usesTLS
    }
}

/// When a pool's destinations are no longer taken out: with most of them gone, the rest would drown.
package struct PoolHealthLimits: Sendable, Equatable {
    /// With that many taken out, no more are: at least 1.
    package let enter: Int
    /// With no more than that many taken out, destinations are taken out again: at most `enter`.
    package let exit: Int

    /// Limits; nil unless 1 ≤ exit ≤ enter.
    package init?(enter: Int, exit: Int) {
        guard exit >= 1, enter >= exit else { return nil }
        self.enter = enter
        self.exit = exit
    }
}

/// How one of several is chosen by a key.
package struct HashChoice: Sendable, Equatable {
    /// The hash.
    package let method: Method
    /// What of a key is hashed.
    package let part: HashedPart
    /// What is hashed behind it.
    package let salt: [UInt8]

    /// Ways to choose.
    package enum Method: Sendable, Equatable {
        case scheme(HashScheme)
        /// The number between the key's first two colons, where that is one of the choices; Ch3 otherwise. mcrouter's.
        case constShard
    }

    /// A choice by a scheme.
    package init(_ scheme: HashScheme = .standard, part: HashedPart = .whole, salt: [UInt8] = []) {
        self.init(.scheme(scheme), part: part, salt: salt)
    }

    /// A choice.
    package init(_ method: Method, part: HashedPart = .whole, salt: [UInt8] = []) {
        self.method = method
        self.part = part
        self.salt = salt
    }
}

/// What reads of a pool promise.
package enum PoolConsistency: Sendable, Equatable {
    /// The servers are caches: what they hold may be old.
    case lookAside
    /// The servers are the front of a store and every read is the newest write, as docs/contract.md says.
    case strict
    /// As ``strict``, but reads may be old by so much.
    case bounded(stalenessMilliseconds: Int)

    /// What the settings `storage`, `consistency` (strict, bounded) and `staleness` say together; nil where one is not
    /// there. Throws where they do not fit together.
    package init(hasStorage: Bool, consistency: String?, stalenessMilliseconds: Int?) throws(RouteError) {
        guard hasStorage else {
            guard consistency == nil, stalenessMilliseconds == nil else {
                throw RouteError("consistency and staleness are of pools with storage: true")
            }
            self = .lookAside
            return
        }
        guard (consistency == "bounded") == (stalenessMilliseconds != nil) else {
            throw RouteError("consistency: bounded and staleness belong together")
        }
        self = stalenessMilliseconds.map { .bounded(stalenessMilliseconds: $0) } ?? .strict
    }
}

/// Servers that share keys out among them, and how requests reach them.
package struct RoutePool: Sendable, Equatable {
    /// Its name: statistics and spools show it.
    package var name: String
    /// Its servers; none when they are still to be discovered.
    package var servers: [PoolServer]
    /// How a key's server is found.
    package var hash = HashChoice()
    /// What a request may take; nil for the router's default. Milliseconds.
    package var requestTimeoutMilliseconds: Int?
    /// What connecting may take; nil for what a request may.
    package var connectTimeoutMilliseconds: Int?
    /// Whether servers see keys with their routing prefix.
    package var keepsRoutingPrefix = false
    /// Whether servers say who owns a key that is not theirs, and are asked again there.
    package var followsOwners = false
    /// What its reads promise. Handles that would break a strict promise are refused above it.
    package var consistency = PoolConsistency.lookAside
    /// Whether connections are encrypted.
    package var usesTLS = false
    /// When destinations are no longer taken out.
    package var health: PoolHealthLimits?
    /// The name failed deletes are spooled under; nil when they are not.
    package var spool: String?
    /// Where the servers are looked up; nil when they are static.
    package var members: String?
    /// What a pool without servers answers: an error, or as if it had been asked and held nothing.
    package var isErrorWhenEmpty = true

    /// A pool of servers.
    package init(_ name: String, servers: [PoolServer]) {
        self.name = name
        self.servers = servers
    }

    func check() throws(RouteError) {
        for (timeout, what) in [
            (requestTimeoutMilliseconds, "timeout"), (connectTimeoutMilliseconds, "connect timeout"),
        ] {
            guard let timeout, !(1...3_600_000 ~= timeout) else { continue }
            throw RouteError("pool \(name): a \(what) of \(timeout) ms; 1 ms to an hour are allowed")
        }
        if servers.count > ServerSelector.maximumServers {
            throw RouteError("pool \(name): more than \(ServerSelector.maximumServers) servers")
        }
    }
}
