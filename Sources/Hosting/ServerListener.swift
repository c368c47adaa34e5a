// Martlet
// SPDX-License-Identifier: Apache-2.0

package import MemcacheProtocol
package import Reactor

/// What a connection may speak.
package enum ProtocolRestriction: String, Sendable, CaseIterable {
    /// Whatever its first byte says.
    case automatic = "auto"
    case ascii
    case binary
}

/// An address to listen on.
package struct ServerListener: Sendable, Equatable {
    /// TLS on a listener.
    package enum Security: Sendable, Equatable {
        case plain
        /// TLS as configured.
        case tls
        /// TLS that asks for no client certificate, whatever is configured (`btls:`).
        case tlsWithoutPeer
        /// TLS that insists on a client certificate (`mtls:`).
        case mutualTLS
    }

    /// A name or an address; nil is every address.
    package var host: String?
    /// 0 lets the kernel choose.
    package var port: UInt16
    /// Whether and how it is encrypted.
    package var security = Security.plain
    /// What its connections may speak.
    package var restriction = ProtocolRestriction.automatic
    /// Up to 8 characters that name the listener to a router.
    package var tag = ""
    /// Whether the node goes on when this one cannot be had (IPv6 loopback on a machine without IPv6).
    package var isOptional = false

    /// A listener without TLS.
    package init(host: String?, port: UInt16) {
        self.host = host
        self.port = port
    }
}

extension ServerListener {
    /// The reactors' listener at `endpoint`, with this one's TLS and restriction, and whatever number the program gives
    /// it, up to 2^56, to know its connections by: it stands above the lowest byte of their tag.
    package func reactorListener(
        _ endpoint: ListenerConfiguration.Endpoint, number: UInt64 = 0
    ) -> ListenerConfiguration {
        let security: ListenerConfiguration.Security =
            switch self.security {
            case .plain: .none
            case .tls: .tls
            case .tlsWithoutPeer: .tlsWithoutPeer
            case .mutualTLS: .mutualTLS
            }
        return ListenerConfiguration(endpoint, tag: restriction.parserTag | number << 8, security: security)
    }
}

extension ProtocolRestriction {
    /// The listener tag by which connections know what they may speak: see ``parserConfiguration(listenerTag:)``.
    package var parserTag: UInt64 {
        switch self {
        case .automatic: 0
        case .ascii: 1
        case .binary: 2
        }
    }
}

/// How a connection of a listener is parsed; the lowest byte of the listener's tag says what it may speak.
package func parserConfiguration(listenerTag: UInt64) -> RequestParserConfiguration {
    switch listenerTag & 0xFF {
    case ProtocolRestriction.ascii.parserTag: RequestParserConfiguration(restriction: .text)
    case ProtocolRestriction.binary.parserTag: RequestParserConfiguration(restriction: .binary)
    default: RequestParserConfiguration(restriction: .automatic)
    }
}
