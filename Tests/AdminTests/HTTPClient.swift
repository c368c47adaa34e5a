// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc

/// What a test finds at a port that nobody has.
struct NobodyListens: Error {}

/// A plain socket to a server on this machine, for tests.
struct Wire: ~Copyable {
    private let fd: Int32

    /// Connects; throws when nobody listens.
    init(port: UInt16) throws(NobodyListens) {
        let number = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var timeout = timeval()
        timeout.tv_sec = 10
        // SAFETY: both structures are local and whole.
        unsafe setsockopt(number, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        let result = unsafe withUnsafePointer(to: address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(number, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if result != 0 {
            close(number)
            throw NobodyListens()
        }
        fd = number
    }

    deinit { close(fd) }

    func write(_ text: String) {
        let bytes = Array(text.utf8)
        // SAFETY: the array lives during the call.
        _ = unsafe bytes.withUnsafeBytes { unsafe send(fd, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    }

    /// Up to `limit` bytes of what comes; empty at the end.
    func read(_ limit: Int = 65536) -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
            // SAFETY: the kernel writes at most `limit` bytes into the buffer.
            count = unsafe max(0, recv(fd, buffer.baseAddress, limit, 0))
        }
    }

    /// Everything until the server closes.
    func readAll() -> String {
        var bytes: [UInt8] = []
        while true {
            let chunk = read()
            if chunk.isEmpty { return String(decoding: bytes, as: UTF8.self) }
            bytes += chunk
        }
    }
}

/// An HTTP answer, taken apart.
struct Answer {
    var status = 0
    var headers: [String: String] = [:]
    var body = ""

    init(_ text: String) {
        let parts = text.split(separator: "\r\n\r\n", maxSplits: 1, omittingEmptySubsequences: false)
        let lines = (parts.first ?? "").split(separator: "\r\n")
        status = lines.first.flatMap { Int($0.split(separator: " ").dropFirst().first ?? "") } ?? 0
        for line in lines.dropFirst() {
            let pair = line.split(separator: ":", maxSplits: 1)
            if pair.count == 2 { headers[pair[0].lowercased()] = String(pair[1].drop { $0 == " " }) }
        }
        body = parts.count > 1 ? String(parts[1]) : ""
    }
}

/// Sends one request and gives the answer; status 0 when there is none.
func ask(_ port: UInt16, _ method: String, _ path: String, headers: [String] = []) -> Answer {
    let lines = ["\(method) \(path) HTTP/1.1", "Host: localhost", "Connection: close"] + headers
    do throws(NobodyListens) {
        let wire = try Wire(port: port)
        wire.write(lines.joined(separator: "\r\n") + "\r\n\r\n")
        return Answer(wire.readAll())
    } catch {
        return Answer("")
    }
}
