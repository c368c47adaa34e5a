// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Where the admin server listens.
package struct AdminEndpoint: Sendable, Equatable {
    /// An address.
    package var host = "127.0.0.1"
    /// 0 lets the kernel choose.
    package var port: UInt16 = 9150
    /// Whether somebody asked for it. If not, and the port is taken, the node goes on without.
    package var isExplicit = false

    package init() {}
}

extension AdminEndpoint {
    /// Reads `address:port`, `[v6]:port`, `:port` or `port`; nil when it is none.
    package init?(_ text: String) {
        let colon = text.lastIndex(of: ":")
        let after = colon.map { text[$0...].dropFirst() } ?? text[...]
        var host = colon.map { text[..<$0] } ?? ""
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
        } else if host.contains(":") {
            return nil
        }
        guard let port = UInt16(after), port > 0, !host.contains(" ") else { return nil }
        self.port = port
        if !host.isEmpty { self.host = String(host) }
    }
}
