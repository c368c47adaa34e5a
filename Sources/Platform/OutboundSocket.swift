// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

/// A non-blocking stream socket of ours to a server.
package struct OutboundSocket: ~Copyable, Sendable {
    private let descriptor: Descriptor
    /// Whether it was connected at once. Otherwise it becomes writable when it is, or when ``failure()`` says why not.
    package let isConnectedAtOnce: Bool

    /// Starts to connect to `address`. TCP sockets send without delay.
    package init(connectingTo address: SocketAddress) throws(SystemError) {
        let family = address.isUnix ? AF_UNIX : address.isIPv6 ? AF_INET6 : AF_INET
        let subject = address.description(isDatagram: false)
        let number = CPlatform.socket(family, martlet_stream | martlet_nonblocking, 0)
        guard number >= 0 else { throw SystemError("socket", subject: subject) }
        let opened = Descriptor(owning: number)
        if !address.isUnix {
            var one: Int32 = 1
            // SAFETY: the value is local and of the length given. Without it a request may wait for an acknowledgement.
            unsafe setsockopt(number, Int32(martlet_tcp), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        }
        let result = unsafe address.withUnsafeAddress { base, length in
            // SAFETY: the address is alive in the closure and has `length` bytes.
            unsafe CPlatform.connect(number, base.assumingMemoryBound(to: sockaddr.self), length)
        }
        guard result == 0 || martlet_errno() == EINPROGRESS else { throw SystemError("connect", subject: subject) }
        descriptor = opened
        isConnectedAtOnce = result == 0
    }

    /// Takes over a connected, non-blocking socket: nobody else closes it from here on.
    package init(adopting number: Int32) {
        descriptor = Descriptor(owning: number)
        isConnectedAtOnce = true
    }

    /// The descriptor, to be watched.
    package var fd: Int32 { descriptor.number }

    /// Gives the descriptor up: the caller closes it.
    package consuming func release() -> Int32 { descriptor.release() }

    /// Why connecting failed; nil when it did not.
    package func failure() -> SystemError? { Self.failure(of: descriptor.number) }

    /// Why connecting the socket `fd` failed; nil when it did not.
    package static func failure(of fd: Int32) -> SystemError? {
        var code: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        // SAFETY: the kernel writes a number of that length to the local variable.
        guard unsafe getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length) == 0 else {
            return SystemError("connect")
        }
        return code == 0 ? nil : SystemError("connect", code: code)
    }
}
