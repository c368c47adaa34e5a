// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

/// Makes sockets that take connections or datagrams, with the options that memcached sets on its own.
package enum ListeningSocket {
    /// Addresses of a host name or numeric address; no host means every address of the machine. May block on DNS.
    package static func resolve(host: String?, port: UInt16, isDatagram: Bool) throws(SystemError) -> [SocketAddress] {
        var hints = unsafe addrinfo()
        unsafe hints.ai_flags = AI_PASSIVE
        unsafe hints.ai_family = AF_UNSPEC
        unsafe hints.ai_socktype = isDatagram ? martlet_datagram : martlet_stream
        var found: UnsafeMutablePointer<addrinfo>?
        // SAFETY: strings live for the call; the list is freed below, after its addresses were copied.
        let code = unsafe getaddrinfo(host, String(port), &hints, &found)
        guard code == 0 else {
            let reason = unsafe String(cString: gai_strerror(code))
            throw SystemError("getaddrinfo", code: EADDRNOTAVAIL, subject: "\(host ?? "*"): \(reason)")
        }
        defer { unsafe freeaddrinfo(found) }
        var addresses: [SocketAddress] = []
        var next = unsafe found
        while let entry = unsafe next {
            if let address = unsafe entry.pointee.ai_addr {
                let length = unsafe entry.pointee.ai_addrlen
                unsafe addresses.append(
                    SocketAddress { target, size in
                        unsafe target.copyMemory(from: address, byteCount: Int(min(length, size.pointee)))
                        unsafe size.pointee = length
                    })
            }
            unsafe next = unsafe entry.pointee.ai_next
        }
        return addresses
    }

    /// A bound, listening, non-blocking TCP socket. IPv6 sockets take IPv6 only.
    package static func tcp(_ address: SocketAddress, backlog: Int) throws(SystemError) -> Descriptor {
        let socket = try open(address.isIPv6 ? AF_INET6 : AF_INET, martlet_stream)
        try prepareInternet(socket.number, address)
        try set(socket.number, SOL_SOCKET, SO_KEEPALIVE, 1)
        try set(socket.number, Int32(martlet_tcp), TCP_NODELAY, 1)
        try bind(socket.number, address)
        try startListening(socket.number, backlog, address.description(isDatagram: false))
        return socket
    }

    /// A bound, non-blocking UDP socket with the largest send buffer that the kernel gives.
    package static func udp(_ address: SocketAddress) throws(SystemError) -> Descriptor {
        let socket = try open(address.isIPv6 ? AF_INET6 : AF_INET, martlet_datagram)
        try prepareInternet(socket.number, address)
        // Cut to the kernel's limit, which is what is wanted.
        try set(socket.number, SOL_SOCKET, SO_SNDBUF, 256 << 20)
        try bind(socket.number, address)
        return socket
    }

    /// A bound, listening, non-blocking unix socket with permissions `mode`. A socket at the path is replaced; any
    /// other file is an error. Changes the process's umask for a moment.
    package static func unix(path: String, mode: UInt32, backlog: Int) throws(SystemError) -> Descriptor {
        guard path.utf8.count <= SocketAddress.pathLimitBytes else {
            throw SystemError("bind", code: ENAMETOOLONG, subject: path)
        }
        let socket = try open(AF_UNIX, martlet_stream)
        var found = stat()
        // SAFETY: the path lives for the call, the structure is local.
        if unsafe lstat(path, &found) == 0, martlet_is_socket(found.st_mode) != 0 { unsafe unlink(path) }
        let previous = umask(~mode & 0o777)
        defer { _ = umask(previous) }
        try bind(socket.number, SocketAddress(path: path))
        try startListening(socket.number, backlog, path)
        return socket
    }

    /// Removes a unix socket's path.
    ///
    /// Only if the file there still is the one that `identity` names: a successor may have put its own in its place.
    package static func remove(path: String, identity: UInt64?) {
        guard identity == fileIdentity(path) else { return }
        // SAFETY: the path lives for the call.
        unsafe _ = unlink(path)
    }

    /// The number of the file at `path`, or nil.
    package static func fileIdentity(_ path: String) -> UInt64? {
        var found = stat()
        // SAFETY: the path lives for the call, the structure is local.
        return unsafe lstat(path, &found) == 0 ? UInt64(found.st_ino) : nil
    }

    /// Takes a connection, non-blocking: its number, or nil with the errno. EAGAIN means that none waits.
    package static func accept(_ listener: Int32) -> Result<Int32, SystemError> {
        let fd = martlet_accept(listener)
        return fd >= 0 ? .success(fd) : .failure(SystemError("accept4"))
    }

    private static func open(_ family: Int32, _ type: Int32) throws(SystemError) -> Descriptor {
        let number = socket(family, type | martlet_nonblocking, 0)
        guard number >= 0 else { throw SystemError("socket") }
        return Descriptor(owning: number)
    }

    private static func prepareInternet(_ fd: Int32, _ address: SocketAddress) throws(SystemError) {
        if address.isIPv6 { try set(fd, Int32(martlet_ipv6), IPV6_V6ONLY, 1) }
        try set(fd, SOL_SOCKET, SO_REUSEADDR, 1)
    }

    private static func set(_ fd: Int32, _ level: Int32, _ option: Int32, _ value: Int32) throws(SystemError) {
        var value = value
        // SAFETY: the value is local and of the length given.
        guard unsafe setsockopt(fd, level, option, &value, socklen_t(MemoryLayout<Int32>.size)) == 0 else {
            throw SystemError("setsockopt", subject: "option \(option)")
        }
    }

    private static func bind(_ fd: Int32, _ address: SocketAddress) throws(SystemError) {
        let result = unsafe address.withUnsafeAddress { base, length in
            // SAFETY: the address is alive in the closure and has `length` bytes.
            unsafe CPlatform.bind(fd, base.assumingMemoryBound(to: sockaddr.self), length)
        }
        guard result == 0 else {
            throw SystemError("bind", subject: address.description(isDatagram: false))
        }
    }

    private static func startListening(_ fd: Int32, _ backlog: Int, _ subject: String) throws(SystemError) {
        guard listen(fd, Int32(clamping: backlog)) == 0 else { throw SystemError("listen", subject: subject) }
    }
}

/// Calls on UDP sockets.
package enum DatagramCall {
    /// Takes one datagram: its length, or ``StreamSocket/wouldBlock`` or ``StreamSocket/failed``, and where it is from.
    package static func receive(
        _ fd: Int32, _ target: UnsafeMutableRawPointer, _ count: Int
    ) -> (Int, SocketAddress) {
        var result = 0
        // SAFETY: the caller gives `count` writable bytes; the kernel writes an address of at most the length it is
        // told.
        let peer = unsafe SocketAddress { base, length in
            unsafe result = recvfrom(fd, target, count, 0, base.assumingMemoryBound(to: sockaddr.self), length)
        }
        return (result >= 0 ? result : StreamSocket.outcome(), peer)
    }

    /// Sends one datagram; results as ``StreamSocket``'s.
    package static func send(_ fd: Int32, _ source: UnsafeRawPointer, _ count: Int, to peer: SocketAddress) -> Int {
        let result = unsafe peer.withUnsafeAddress { base, length in
            // SAFETY: the caller gives `count` readable bytes; the address is alive in the closure.
            unsafe sendto(fd, source, count, 0, base.assumingMemoryBound(to: sockaddr.self), length)
        }
        return result >= 0 ? result : StreamSocket.outcome()
    }
}
