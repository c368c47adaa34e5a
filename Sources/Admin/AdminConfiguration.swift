// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Where the admin server listens, and its limits.
package struct AdminConfiguration: Sendable {
    /// A name or an address. The server has no login and no TLS: keep it on loopback, or behind something that has.
    package var host = "127.0.0.1"
    /// 0 lets the kernel choose.
    package var port: UInt16 = 9150
    /// Connections at once; more wait to be accepted.
    package var connectionLimit = 64
    /// Seconds without progress after which a connection is closed.
    package var timeoutSeconds = 10
    /// Bytes of memory for one connection: its request line and headers must fit.
    package var connectionMemoryBytes = 32 << 10
    /// The name in the page at `/`.
    package var product = "martlet"

    package init() {}
}
