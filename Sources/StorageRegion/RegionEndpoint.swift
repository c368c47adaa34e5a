// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Reactor
internal import Synchronization

/// A router or a node of the home region, as both threads share it.
final class RegionEndpoint: Sendable {
    let address: RegionConfiguration.Endpoint
    /// TLS for connections; nil for none.
    let tls: TLSClientContext?
    private let found = Guarded<[SocketAddress]>([])
    /// Whether it is to be looked up again.
    let isDoubtful = Atomic<Bool>(true)

    /// Loads the certificates. Errors name the file.
    init(_ address: RegionConfiguration.Endpoint, _ security: RegionConfiguration.Security?) throws(TLSError) {
        self.address = address
        tls = try Self.load(security, host: address.host)
    }

    private static func load(
        _ security: RegionConfiguration.Security?, host: String
    ) throws(TLSError) -> TLSClientContext? {
        guard let security else { return nil }
        var files = TLSClientConfiguration()
        files.authorityPath = security.authorityPath
        files.revocationPath = security.revocationPath
        files.chainPath = security.certificatePath
        files.keyPath = security.keyPath
        files.serverName = security.serverName
        files.requiresTLS13 = true
        return try TLSClientContext(files, host: host)
    }

    /// Where it is, as far as is known.
    var addresses: [SocketAddress] { found.withLock { $0 } }

    /// Looks its name up. What was known stays where that fails. Blocks on DNS.
    func lookUp() {
        let fresh = try? ListeningSocket.resolve(host: address.host, port: address.port, isDatagram: false)
        if let fresh, !fresh.isEmpty { found.withLock { $0 = fresh } }
    }
}
