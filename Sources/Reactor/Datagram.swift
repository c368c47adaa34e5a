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
