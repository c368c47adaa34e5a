// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform
internal import Reactor

/// A server of a test: where it is, and how TLS is spoken to it.
struct ServerAddress: Sendable {
    let address: SocketAddress
    /// nil for no TLS.
    let tls: TLSClientContext?

    /// The servers of these names, looked up; files of TLS are read.
    static func find(_ names: [String], _ tls: LoadTLS?) throws(OptionProblem) -> [ServerAddress] {
        let addresses = try TestRun.resolve(names)
        var result: [ServerAddress] = []
        for (name, address) in zip(names, addresses) {
            result.append(ServerAddress(address: address, tls: try context(tls, name)))
        }
        return result
    }

    private static func context(_ tls: LoadTLS?, _ name: String) throws(OptionProblem) -> TLSClientContext? {
        guard let tls else { return nil }
        var configuration = TLSClientConfiguration()
        configuration.authorityPath = tls.authorityPath
        configuration.chainPath = tls.chainPath
        configuration.keyPath = tls.keyPath
        configuration.serverName = tls.serverName
        configuration.verifiesPeer = !tls.isInsecure
        configuration.requiresTLS13 = tls.requiresTLS13
        do throws(TLSError) {
            return try TLSClientContext(configuration, host: host(name))
        } catch {
            throw OptionProblem("tls: \(error.description)")
        }
    }

    /// `name` without its port and brackets.
    static func host(_ name: String) -> String {
        if name.hasPrefix("["), let end = name.firstIndex(of: "]") {
            return String(name[name.index(after: name.startIndex)..<end])
        }
        guard !name.hasPrefix("/"), let colon = name.lastIndex(of: ":"), name.firstIndex(of: ":") == colon else {
            return name
        }
        return String(name[..<colon])
    }
}
