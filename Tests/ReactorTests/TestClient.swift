// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc

/// A blocking socket of a test, with a deadline on every wait.
final class TestClient: @unchecked Sendable {
    // SAFETY (Sendable): a test uses a client on one thread at a time.
    let fd: Int32
    private var received: [UInt8] = []
    /// Bytes of `received` that were taken, and up to where there is no line end.
    private var taken = 0
    private var searched = 0
    private var buffer: ArraySlice<UInt8> { received[taken...] }

    init(fd: Int32) {
        self.fd = fd
        // A server that stalls makes a test fail, not wait for ever.
        var limit = timeval(tv_sec: 30, tv_usec: 0)
        unsafe _ = setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    convenience init(port: UInt16, ipv6: Bool = false, datagram: Bool = false, receiveBufferBytes: Int32? = nil) throws
    {
        let kind = datagram ? Int32(SOCK_DGRAM.rawValue) : Int32(SOCK_STREAM.rawValue)
        let fd = socket(ipv6 ? AF_INET6 : AF_INET, kind, 0)
        guard fd >= 0 else { throw TestFailure("socket: errno \(errno)") }
        if var size = receiveBufferBytes {
            unsafe _ = setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, 4)
        }
        let result: Int32
        if ipv6 {
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(AF_INET6)
            address.sin6_port = port.bigEndian
            address.sin6_addr = in6addr_loopback
            let length = socklen_t(MemoryLayout<sockaddr_in6>.size)
            result = unsafe withUnsafeBytes(of: &address) { unsafe Self.connect(fd, $0, length) }
        } else {
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            let length = socklen_t(MemoryLayout<sockaddr_in>.size)
            result = unsafe withUnsafeBytes(of: &address) { unsafe Self.connect(fd, $0, length) }
        }
        guard result == 0 else {
            let code = errno
            close(fd)
            throw TestFailure("connect: errno \(code)")
        }
        self.init(fd: fd)
    }

    convenience init(path: String) throws {
        let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: Array(path.utf8)) }
        let length = socklen_t(MemoryLayout<sockaddr_un>.size)
        guard unsafe withUnsafeBytes(of: &address, { unsafe Self.connect(fd, $0, length) }) == 0 else {
            throw TestFailure("connect to \(path): errno \(errno)")
        }
        self.init(fd: fd)
    }

    deinit { close(fd) }

    private static func connect(_ fd: Int32, _ bytes: UnsafeRawBufferPointer, _ length: socklen_t) -> Int32 {
        unsafe Glibc.connect(fd, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), length)
    }

    func send(_ text: String) throws { try send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) throws {
        var offset = 0
        while offset < bytes.count {
            let count = unsafe bytes.withUnsafeBytes { buffer in
                let start = unsafe buffer.baseAddress.map { unsafe $0 + offset }
                return unsafe Glibc.send(fd, start, bytes.count - offset, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw TestFailure("send: errno \(errno)") }
            offset += count
        }
    }

    /// Sends as much as the socket takes without waiting, up to all of `bytes`; returns how much.
    func sendSome(_ bytes: [UInt8]) -> Int {
        let flags = Int32(MSG_NOSIGNAL | MSG_DONTWAIT)
        return unsafe bytes.withUnsafeBytes { unsafe Glibc.send(fd, $0.baseAddress, $0.count, flags) }
    }

    /// Another owner of the same socket, for another thread.
    func twin() throws -> TestClient { TestClient(fd: dup(fd)) }

    /// Makes the close that follows a reset.
    func reset() {
        var value = linger(l_onoff: 1, l_linger: 0)
        unsafe _ = setsockopt(fd, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }

    func endOutput() { shutdown(fd, Int32(SHUT_WR)) }

    /// The next line without its end.
    func line(seconds: Int = 10) throws -> String {
        while true {
            if let end = received[searched...].firstIndex(of: UInt8(ascii: "\n")) {
                return String(decoding: take(upTo: end + 1).dropLast(), as: UTF8.self)
            }
            searched = received.count
            guard try more(seconds) else { throw TestFailure("end of stream in a line: \(buffer.prefix(60))") }
        }
    }

    /// The next `count` bytes.
    func bytes(_ count: Int, seconds: Int = 20) throws -> [UInt8] {
        while received.count - taken < count {
            guard try more(seconds) else { throw TestFailure("end of stream after \(buffer.count) of \(count) bytes") }
        }
        return Array(take(upTo: taken + count))
    }

    private func take(upTo end: Int) -> ArraySlice<UInt8> {
        let result = received[taken..<end]
        taken = end
        if taken == received.count {
            received = []
            taken = 0
        }
        searched = taken
        return result
    }

    /// Everything up to the end of the stream; also when that is a reset.
    func rest(seconds: Int = 10) throws -> [UInt8] {
        while try more(seconds) {}
        return Array(take(upTo: received.count))
    }

    /// Whether the peer closed, within the time; input is thrown away.
    func closes(within seconds: Int = 10) -> Bool { (try? rest(seconds: seconds)) != nil }

    /// Whether nothing comes for a while.
    func isSilent(milliseconds: Int32 = 200) -> Bool {
        var entry = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
        return unsafe buffer.isEmpty && poll(&entry, 1, milliseconds) == 0
    }

    private func more(_ seconds: Int) throws -> Bool {
        var entry = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
        guard unsafe poll(&entry, 1, Int32(seconds) * 1000) > 0 else {
            throw TestFailure("nothing came in \(seconds) s")
        }
        var chunk = [UInt8](repeating: 0, count: 256 * 1024)
        let count = unsafe chunk.withUnsafeMutableBytes { unsafe recv(fd, $0.baseAddress, $0.count, 0) }
        guard count > 0 else { return false }
        received += chunk[..<count]
        return true
    }
}

struct TestFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Waits until `condition` holds; false when it does not in time.
func eventually(seconds: Int = 10, _ condition: () -> Bool) -> Bool {
    for _ in 0..<seconds * 200 {
        if condition() { return true }
        usleep(5_000)
    }
    return condition()
}

extension TestClient {
    /// The next datagram.
    func packet() throws -> [UInt8] {
        var entry = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
        guard unsafe poll(&entry, 1, 5_000) > 0 else { throw TestFailure("no datagram came") }
        var chunk = [UInt8](repeating: 0, count: 65_536)
        let count = unsafe chunk.withUnsafeMutableBytes { unsafe recv(fd, $0.baseAddress, $0.count, 0) }
        guard count >= 0 else { throw TestFailure("recv: errno \(errno)") }
        return Array(chunk[..<count])
    }
}
