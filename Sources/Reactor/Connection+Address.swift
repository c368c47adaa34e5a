// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

// SAFETY (file): the session lives as long as its connection, which is borrowed here.

/// What is made on demand; none of it is for the hot path.
extension Connection {
    /// The peer's address as `stats conns` writes it, such as `tcp:127.0.0.1:40312`. A system call, and allocates.
    package var peerAddress: String { SocketAddress.peer(of: fd).description(isDatagram: false) }

    /// The address that the peer connected to. A system call, and allocates.
    package var localAddress: String { SocketAddress.local(of: fd).description(isDatagram: false) }

    /// The peer's host without its port, and the port; for log lines of `watch connevents`.
    package var peerHostAndPort: (host: String, port: UInt16) {
        let address = SocketAddress.peer(of: fd)
        return (address.host, address.port)
    }

    /// The subject of the certificate that the peer showed, as one line; nil without TLS or certificate.
    package var tlsPeerSubject: String? {
        unsafe session.flatMap { unsafe TLSSession.peerSubject($0, commonNameOnly: false) }
    }

    /// The common name in it.
    package var tlsPeerCommonName: String? {
        unsafe session.flatMap { unsafe TLSSession.peerSubject($0, commonNameOnly: true) }
    }

    /// Names in the certificate that the peer showed and that was verified: the common name, then DNS names. Empty
    /// without TLS or certificate. Allocates.
    package var tlsPeerNames: [[UInt8]] {
        unsafe session.map { unsafe TLSSession.peerNames($0) } ?? []
    }
}
