// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Where the admin server listens, and its limits.
package struct AdminConfiguration: Sendable {
    /// A name or an address. Pages but those that need the token are open, and there is no TLS: keep it on loopback, or
    /// behind something that has it.
    package var host = "127.0.0.1"
    /// 0 lets the kernel choose.
    package var port: UInt16 = 9150
    /// Connections at once; more wait to be accepted.
    package var connectionLimit = 64
    /// Seconds without progress after which a connection is closed.
    package var timeoutSeconds = 10
    /// Bytes of memory for one connection: its request line and headers must fit.
    package var connectionMemoryBytes = 32 << 10
    /// What pages that change or give away something ask for: `Authorization: Bearer TOKEN`. Nil closes those pages.
    package var token: [UInt8]?
    /// The name in the page at `/`.
    package var product = "martlet"

    package init() {}
}
