// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Glibc

/// A blocking TCP connection of a tool: every call ends within the time limit that it was made with.
package struct ClientSocket: ~Copyable {
    private let socket: Descriptor
    private let subject: String

    private init(_ socket: consuming Descriptor, _ subject: String) {
        self.socket = socket
        self.subject = subject
    }

    /// Connects to the first address of `host` that answers. `timeoutSeconds` holds for each system call.
    package static func connect(
        host: String, port: UInt16, timeoutSeconds: Int
    ) throws(SystemError) -> ClientSocket {
        let subject = "\(host):\(port)"
        var last = SystemError("connect", code: ECONNREFUSED, subject: subject)
        for address in try ListeningSocket.resolve(host: host, port: port, isDatagram: false) {
            let number = Glibc.socket(address.isIPv6 ? AF_INET6 : AF_INET, martlet_stream | martlet_close_on_exec(), 0)
            guard number >= 0 else { throw SystemError("socket", subject: subject) }
            let socket = Descriptor(owning: number)
            var limit = timeval(tv_sec: timeoutSeconds, tv_usec: 0)
            let length = socklen_t(MemoryLayout<timeval>.size)
            // SAFETY: the value is local and of the length given.
            unsafe setsockopt(number, SOL_SOCKET, SO_RCVTIMEO, &limit, length)
            unsafe setsockopt(number, SOL_SOCKET, SO_SNDTIMEO, &limit, length)
            let result = unsafe address.withUnsafeAddress { base, length in
                // SAFETY: the address is alive in the closure and has `length` bytes.
                unsafe Glibc.connect(number, base.assumingMemoryBound(to: sockaddr.self), length)
            }
            if result == 0 { return ClientSocket(socket, subject) }
            last = SystemError("connect", subject: subject)
        }
        throw last
    }

    /// Sends all of `bytes`.
    package func write(_ bytes: [UInt8]) throws(SystemError) {
        var offset = 0
        while offset < bytes.count {
            let sent = unsafe bytes.withUnsafeBytes { buffer in
                // SAFETY: the range is inside the array, which lives during the closure.
                guard let base = buffer.baseAddress else { return 0 }
                return unsafe martlet_send(socket.number, base + offset, buffer.count - offset)
            }
            if sent < 0, martlet_errno() == EINTR { continue }
            guard sent > 0 else { throw SystemError("send", subject: subject) }
            offset += sent
        }
    }

    /// What arrives next, up to `limit` bytes; empty at the end of the stream.
    package func read(limit: Int) throws(SystemError) -> [UInt8] {
        while true {
            var code: Int32 = 0
            let bytes = unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
                // SAFETY: the kernel writes at most `limit` bytes into the buffer, which has that many.
                let got = unsafe Glibc.read(socket.number, buffer.baseAddress, limit)
                code = got < 0 ? martlet_errno() : 0
                count = max(0, got)
            }
            if code == EINTR { continue }
            guard code == 0 else { throw SystemError("read", code: code, subject: subject) }
            return bytes
        }
    }
}
