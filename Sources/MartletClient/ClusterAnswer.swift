// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery

/// The members that a server names in answer to `config get cluster`. Pure. Source: Amazon ElastiCache's auto
/// discovery.
struct ClusterAnswer: Equatable {
    let version: UInt64
    let members: [Member]

    enum Reading: Equatable {
        case whole(ClusterAnswer)
        case incomplete
        case nonsense
    }

    /// The longest answer.
    static var limitBytes: Int { 4 << 20 }

    /// Reads what has arrived: `CONFIG cluster 0 LENGTH`, a line with a version, one with `host|address|port` of each
    /// member, `END`.
    static func read(_ bytes: [UInt8]) -> Reading {
        guard let lineEnd = bytes.firstIndex(of: UInt8(ascii: "\n")) else {
            return bytes.count > 1_024 ? .nonsense : .incomplete
        }
        let head = String(decoding: bytes[..<lineEnd], as: UTF8.self).split { $0 == " " || $0 == "\r" }
        guard head.count == 4, head[0] == "CONFIG", let length = Int(head[3]), 0...limitBytes ~= length else {
            return .nonsense
        }
        guard bytes.count >= lineEnd + 1 + length else { return .incomplete }
        let body = String(decoding: bytes[(lineEnd + 1)..<(lineEnd + 1 + length)], as: UTF8.self)
        let lines = body.split(separator: "\n", omittingEmptySubsequences: false).map { line in
            line.hasSuffix("\r") ? line.dropLast() : line
        }
        guard lines.count >= 2, let version = UInt64(lines[0]) else { return .nonsense }
        var members: [Member] = []
        for entry in lines[1].split(separator: " ") {
            let parts = entry.split(separator: "|", omittingEmptySubsequences: false)
            guard parts.count == 3, let port = Int(parts[2]), 1...65_535 ~= port, !parts[0].isEmpty || !parts[1].isEmpty
            else { return .nonsense }
            let host = String(parts[0].isEmpty ? parts[1] : parts[0])
            let address = parts[1].isEmpty ? nil : String(parts[1])
            members.append(Member(host: host, address: address, port: port, name: "\(host):\(port)"))
        }
        return members.isEmpty ? .nonsense : .whole(ClusterAnswer(version: version, members: members))
    }
}
