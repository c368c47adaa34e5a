// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Platform

/// A request datagram's envelope.
package struct Datagram: ~Copyable {
    /// What the listener's configuration calls itself.
    package let tag: UInt64
    /// The index of the listener in ``ReactorGroup/listeners``.
    package let listener: Int
    /// The socket's number.
    package let fd: Int32
    /// The client's number of the request, from the frame header.
    package let requestID: UInt16
    /// Where it came from.
    package let peer: SocketAddress
}

/// A UDP socket, which all reactors of a group share, and one reactor's replies that it did not take.
struct DatagramSocket {
    let listener: Int
    let tag: UInt64
    let fd: Int32
    /// Replies that wait, oldest first.
    var waiting: [(peer: SocketAddress, bytes: [UInt8])] = []
    /// How many of them are sent.
    var sent = 0
    /// Bytes in those that are not.
    var waitingBytes = 0

    init(listener: Int, bound: BoundListener) {
        self.listener = listener
        tag = bound.configuration.tag
        fd = bound.fd
    }
}
