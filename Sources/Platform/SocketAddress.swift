// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

/// An address of a socket: IPv4, IPv6 or unix.
@safe
package struct SocketAddress: Sendable {
    // SAFETY (Sendable, @safe): plain bytes that the kernel or getaddrinfo filled; never holds pointers.
    private var storage = sockaddr_storage()
    private var length: socklen_t

    /// Copies what the kernel wrote for one of its calls.
    package init(_ fill: (UnsafeMutableRawPointer, UnsafeMutablePointer<UInt32>) -> Void) {
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        // SAFETY: the storage is as large as `length` says, and both are local to the call.
        unsafe withUnsafeMutableBytes(of: &storage) { bytes in
            if let base = bytes.baseAddress { unsafe fill(base, &length) }
        }
        self.length = min(length, socklen_t(MemoryLayout<sockaddr_storage>.size))
    }

    /// The address that the socket `fd` is bound to.
    package static func local(of fd: Int32) -> SocketAddress {
        // SAFETY: the kernel writes at most as many bytes as the length says.
        unsafe SocketAddress { base, length in
            unsafe _ = getsockname(fd, base.assumingMemoryBound(to: sockaddr.self), length)
        }
    }

    /// The address that the socket `fd` is connected to.
    package static func peer(of fd: Int32) -> SocketAddress {
        // SAFETY: the kernel writes at most as many bytes as the length says.
        unsafe SocketAddress { base, length in
            unsafe _ = getpeername(fd, base.assumingMemoryBound(to: sockaddr.self), length)
        }
    }

    /// A unix socket's address; the path has at most ``pathLimitBytes`` bytes.
    package init(path: String) {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        precondition(bytes.count <= Self.pathLimitBytes, "a unix socket's path is too long")
        // SAFETY: the path and its terminator fit by the line above; both copies stay inside their structures.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { target in
            unsafe target.copyBytes(from: bytes)
        }
        length = socklen_t(MemoryLayout<sockaddr_un>.size)
        unsafe withUnsafeMutableBytes(of: &storage) { target in
            unsafe withUnsafeBytes(of: &address) { unsafe target.copyMemory(from: $0) }
        }
    }

    /// The longest path of a unix socket, its terminator not counted.
    package static var pathLimitBytes: Int { 107 }

    /// Hands the address to a system call.
    package func withUnsafeAddress<R>(_ body: (UnsafeRawPointer, UInt32) -> R) -> R {
        // SAFETY: the pointer is used during the closure only.
        unsafe withUnsafeBytes(of: storage) { bytes in
            guard let base = bytes.baseAddress else { preconditionFailure("an address has storage") }
            return unsafe body(base, length)
        }
    }

    private var family: Int32 { Int32(storage.ss_family) }

    /// Whether it is an IPv6 address.
    package var isIPv6: Bool { family == AF_INET6 }
    /// Whether it is a unix socket's address.
    package var isUnix: Bool { family == AF_UNIX }

    /// The port; 0 for a unix socket.
    package var port: UInt16 {
        switch family {
        case AF_INET: view(sockaddr_in.self) { UInt16(bigEndian: $0.sin_port) }
        case AF_INET6: view(sockaddr_in6.self) { UInt16(bigEndian: $0.sin6_port) }
        default: 0
        }
    }

    /// The address without its port: `127.0.0.1`, `::1`, a path, or empty for a unix socket without a name.
    package var host: String {
        switch family {
        case AF_INET: numeric(at: MemoryLayout<sockaddr_in>.offset(of: \.sin_addr) ?? 0)
        case AF_INET6: numeric(at: MemoryLayout<sockaddr_in6>.offset(of: \.sin6_addr) ?? 0)
        case AF_UNIX: path
        default: ""
        }
    }

    /// As memcached's `stats conns` writes it: `tcp:127.0.0.1:11211`, `tcp6:[::1]:11211`, `unix:/path`.
    package func description(isDatagram: Bool) -> String {
        let name = isDatagram ? "udp" : "tcp"
        return switch family {
        case AF_INET: "\(name):\(host):\(port)"
        case AF_INET6: "\(name)6:[\(host)]:\(port)"
        case AF_UNIX: path.utf8.count < 2 ? "unix:<AF \(AF_UNIX)>" : "unix:\(path)"
        default: "?:<AF \(family)>"
        }
    }

    private var path: String {
        view(sockaddr_un.self) { address in
            var copy = address
            // SAFETY: reads inside the local copy only.
            return unsafe withUnsafeBytes(of: &copy.sun_path) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
        }
    }

    private func view<T, R>(_ type: T.Type, _ body: (T) -> R) -> R {
        // SAFETY: sockaddr_storage is at least as large and as aligned as every address type, all plain bytes.
        unsafe withUnsafeBytes(of: storage) { unsafe body($0.load(as: type)) }
    }

    /// The address at `offset` of the storage, in digits.
    private func numeric(at offset: Int) -> String {
        // SAFETY: INET6_ADDRSTRLEN bytes hold any address of either family with its terminator; the offset is the place
        // of the address in its family's structure, inside the storage.
        unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(INET6_ADDRSTRLEN)) { text in
            unsafe withUnsafeBytes(of: storage) { bytes in
                guard let base = text.baseAddress, let address = bytes.baseAddress,
                    unsafe inet_ntop(family, address + offset, base, socklen_t(INET6_ADDRSTRLEN)) != nil
                else { return "" }
                return unsafe String(cString: base)
            }
        }
    }
}
