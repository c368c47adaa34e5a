// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery

/// Where the home region is, and how a node of a replica region speaks to it.
package struct RegionConfiguration: Sendable, Equatable {
    /// A router or a node of the home region.
    package struct Endpoint: Sendable, Equatable {
        /// A name or an address.
        package var host: String
        /// Its port.
        package var port: UInt16

        /// An address.
        package init(host: String, port: UInt16) {
            self.host = host
            self.port = port
        }
    }

    /// The files of TLS.
    package struct Security: Sendable, Equatable {
        /// Our certificate and those between it and its authority, PEM.
        package var certificatePath: String?
        /// Our private key; the certificate's file when nil.
        package var keyPath: String?
        /// Authorities that the home region's certificates must come from, PEM.
        package var authorityPath: String?
        /// Lists of those that are revoked, PEM; none when nil.
        package var revocationPath: String?
        /// The name in those certificates; the endpoint's host when nil.
        package var serverName: String?

        /// A certificate, its key, who signs the home region's certificates, and the name that is in these; each may
        /// be nil.
        package init(_ certificatePath: String?, key: String?, authority: String?, _ serverName: String?) {
            self.certificatePath = certificatePath
            keyPath = key
            authorityPath = authority
            self.serverName = serverName
        }
    }

    /// Where the nodes of a region agree on who owns what.
    package struct Authority: Sendable, Equatable {
        /// The keys in etcd.
        let address: EtcdAddress
        /// Certificates that etcd's is checked by; nil for the system's.
        let caFile: String?
        /// How long a lease lasts, in milliseconds.
        let leaseMilliseconds: Int

        /// An authority at `etcd://HOST:PORT/PREFIX`; nil where `place` is none.
        package init?(_ place: String, caFile: String?, leaseMilliseconds: Int) {
            guard case .etcd(let address)? = try? MemberSource([place]) else { return nil }
            (self.address, self.caFile, self.leaseMilliseconds) = (address, caFile, leaseMilliseconds)
        }
    }

    /// The home region's name: 1 to 200 printable ASCII characters without spaces.
    package var home: String
    /// Its routers and nodes, each of which can answer for every key.
    package var endpoints: [Endpoint]
    /// TLS; nil is none.
    package var security: Security?
    /// Where the region's nodes agree on who owns what; nil where each serves every key.
    package var authority: Authority?
    /// Connections at most, half of them for reads. 2 to 64.
    package var connections = 8
    /// How long connecting to one address may take, and a home that owes replies may be silent, in milliseconds.
    package var silenceMilliseconds = 2000
    /// Reads, and as many writes, that wait for the home region at most.
    package var waitingMax = 262_144
    /// Bytes of commands that wait for it at most, of reads and of writes; a command that waits alone may be longer.
    package var waitingBytesMax = 64 << 20
    /// Between attempts to connect after the first failure, in milliseconds; doubled from then on.
    package var firstRetryMilliseconds = 50
    /// Between attempts to connect at most, in milliseconds.
    package var longestRetryMilliseconds = 1000
    /// How long the start waits for names to be looked up, in milliseconds.
    package var lookupMilliseconds = 2000

    /// The home region `home` at `endpoints`, one at least.
    package init(home: String, endpoints: [Endpoint]) {
        precondition(!endpoints.isEmpty, "a region is somewhere")
        self.home = home
        self.endpoints = endpoints
    }
}
