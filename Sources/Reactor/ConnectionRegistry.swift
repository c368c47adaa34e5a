// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// A reactor's connections as other threads may see them.
final class ConnectionRegistry: Sendable {
    init() {}
}

/// A connection or listener as `stats conns` shows it.
package struct ConnectionDescription: Sendable {
    /// The descriptor's number.
    package let fd: Int32
    /// The peer's address, or a listener's own.
    package let address: String
    /// The address that the peer connected to; empty for listeners and UDP sockets.
    package let listenAddress: String
    /// What it is doing.
    package let state: ConnectionState
    /// How it is reached.
    package let transport: Transport
    /// Seconds since something was executed.
    package let idleSeconds: Int
}

/// What a connection is doing.
package enum ConnectionState: UInt8, Sendable {
    case listening, reading, filling, swallowing, writing, paused, streaming, handshaking, closing
}
