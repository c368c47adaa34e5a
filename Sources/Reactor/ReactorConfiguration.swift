// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How a ``ReactorGroup`` runs. Every limit of the module is here.
package struct ReactorConfiguration: Sendable {
    /// Event-loop threads: 1 to ``ConnectionID/reactorLimit``.
    package var threads = 4
    /// Connections in all. What comes beyond is refused or waits, by `refusesBeyondLimit`.
    package var connectionLimit = 1024
    /// Whether connections beyond the limit get an error and a close at once (memcached's maxconns_fast) instead of
    /// waiting in the kernel's queue.
    package var refusesBeyondLimit = true
    /// Established connections that the kernel queues for a listener.
    package var backlog = 1024
    /// Seconds without a request after which a TCP connection is closed; 0 for never.
    package var idleTimeoutSeconds = 0
    /// The read buffer that a reactor's connections share.
    package var readBufferBytes = 256 * 1024
    /// The reply buffer that a reactor's connections share starts with this and shrinks back to `outputKeptBytes`.
    package var outputBufferBytes = 64 * 1024
    /// Capacity beyond this is given back when a batch needed more. Also what a handler should stop at and yield: see
    /// ``Connection/yield()``.
    package var outputKeptBytes = 1 << 20
    /// Memory for waiting output that a reactor keeps for the next connection that needs it.
    package var spareOutputBytes = 4 << 20
    /// The most unconsumed input of one connection; a handler may set each connection's.
    package var inputLimitBytes = 64 << 20
    /// The most output of one connection that waits for its peer to read; beyond, the connection is closed. The
    /// external bytes of a first batch do not count, so that one large value always gets through.
    package var pendingOutputLimitBytes = 64 << 20
    /// The most unconsumed input of all connections of a reactor; what would exceed it is closed.
    package var keptInputTotalBytes = 256 << 20
    /// The most waiting output of all connections of a reactor; a connection that would exceed it is closed.
    package var pendingOutputTotalBytes = 512 << 20
    /// How long external bytes may wait for a peer that reads nothing, in milliseconds: what they are part of cannot be
    /// given up meanwhile. The connection is closed then.
    package var stalledOutputMilliseconds = 60_000
    /// Reads of one connection in one turn, before the others have theirs.
    package var readsPerTurn = 8
    /// How long a TLS handshake may take, in milliseconds.
    package var handshakeTimeoutMilliseconds = 10_000
    /// How long a connection that we closed may still send, in milliseconds, so that it can read our last reply.
    package var lingerMilliseconds = 1_000
    /// Messages that wait for a reactor before `post` refuses.
    package var messageLimit = 1 << 20
    /// Datagrams that a reactor takes from one UDP socket in one turn.
    package var datagramsPerTurn = 64
    /// The most UDP reply bytes that wait for a socket's buffer.
    package var pendingDatagramLimitBytes = 4 << 20
    /// Threads are called this and a number (at most 12 bytes).
    package var threadName = "martlet-r"

    /// The defaults.
    package init() {}
}

/// What to listen on.
package struct ListenerConfiguration: Sendable {
    /// An address of ours.
    package enum Endpoint: Sendable, Equatable {
        /// TCP. No host: all addresses, IPv4 and IPv6. Port 0: the kernel chooses; see ``BoundListener/port``.
        case tcp(host: String?, port: UInt16)
        /// A unix socket; a socket that lies at the path is replaced. `mode` are its permissions, such as 0o700.
        case unix(path: String, mode: UInt32)
        /// UDP with memcached's 8-byte frame header.
        case udp(host: String?, port: UInt16)
    }

    /// What a TCP listener does with TLS.
    package enum Security: Sendable, Equatable {
        /// No TLS.
        case none
        /// TLS, client certificates by the TLS configuration's mode.
        case tls
        /// TLS, client certificates not asked for (memcached's `btls`).
        case tlsWithoutPeer
        /// TLS, client certificates required (memcached's `mtls`).
        case mutualTLS
    }

    /// The address.
    package var endpoint: Endpoint
    /// Comes back as ``Connection/tag``: what the handler wants to know of the listener.
    package var tag: UInt64
    /// What it does with TLS.
    package var security: Security

    /// A listener at `endpoint`.
    package init(_ endpoint: Endpoint, tag: UInt64 = 0, security: Security = .none) {
        self.endpoint = endpoint
        self.tag = tag
        self.security = security
    }
}
