// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// A listener that is bound: one per address that a ``ListenerConfiguration`` resolved to.
package struct BoundListener: Sendable {
    /// What it was made from.
    package let configuration: ListenerConfiguration
    /// Its descriptor's number.
    package let fd: Int32
    /// Its address as `stats conns` shows it, such as `tcp:127.0.0.1:11211`.
    package let address: String
    /// The port, the kernel's choice where 0 was asked for; 0 for unix sockets.
    package let port: UInt16
    /// Whether the address is IPv6.
    package let isIPv6: Bool
    /// The file of a unix socket.
    let fileIdentity: UInt64?

    /// Whether it takes datagrams.
    package var isDatagram: Bool { configuration.isDatagram }

    /// Whether it is a unix socket.
    package var isUnix: Bool {
        if case .unix = configuration.endpoint { true } else { false }
    }

    var description: ConnectionDescription {
        ConnectionDescription(
            fd: fd, address: address, listenAddress: "", state: isDatagram ? .reading : .listening,
            transport: isDatagram ? .udp : isUnix ? .unix : configuration.security == .none ? .tcp : .tls,
            idleSeconds: 0)
    }

    private init(_ configuration: ListenerConfiguration, _ descriptor: consuming Descriptor) {
        self.configuration = configuration
        fd = descriptor.release()
        let local = SocketAddress.local(of: fd)
        port = local.port
        fileIdentity =
            if case .unix(let path, _) = configuration.endpoint { ListeningSocket.fileIdentity(path) } else { nil }
        isIPv6 = local.isIPv6
        address = local.description(isDatagram: configuration.isDatagram)
    }

    /// Binds every address that the configuration means. An error only when none can be bound.
    static func bind(_ configuration: ListenerConfiguration, backlog: Int) throws(SystemError) -> [BoundListener] {
        switch configuration.endpoint {
        case .unix(let path, let mode):
            return [BoundListener(configuration, try ListeningSocket.unix(path: path, mode: mode, backlog: backlog))]
        case .tcp(let host, let port):
            return try bindEach(configuration, try ListeningSocket.resolve(host: host, port: port, isDatagram: false)) {
                address throws(SystemError) in try ListeningSocket.tcp(address, backlog: backlog)
            }
        case .udp(let host, let port):
            return try bindEach(configuration, try ListeningSocket.resolve(host: host, port: port, isDatagram: true)) {
                address throws(SystemError) in try ListeningSocket.udp(address)
            }
        }
    }

    private static func bindEach(
        _ configuration: ListenerConfiguration, _ addresses: [SocketAddress],
        _ open: (SocketAddress) throws(SystemError) -> Descriptor
    ) throws(SystemError) -> [BoundListener] {
        var bound: [BoundListener] = []
        var failure: SystemError?
        for address in addresses {
            do throws(SystemError) {
                bound.append(BoundListener(configuration, try open(address)))
            } catch {
                failure = failure ?? error
            }
        }
        if bound.isEmpty, let failure { throw failure }
        return bound
    }
}

extension ListenerConfiguration {
    var isDatagram: Bool {
        if case .udp = endpoint { true } else { false }
    }

    /// The address as a person would write it.
    var text: String {
        switch endpoint {
        case .tcp(let host, let port): "\(host ?? "*"):\(port)"
        case .udp(let host, let port): "udp \(host ?? "*"):\(port)"
        case .unix(let path, _): path
        }
    }
}

/// An address that cannot be listened on.
package struct ListenError: Error, Sendable, CustomStringConvertible {
    /// The address.
    package let address: String
    /// Why not.
    package let reason: String

    package var description: String { "cannot listen on \(address): \(reason)" }
}
