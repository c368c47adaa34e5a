// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A ring's members as an authority keeps them: a line for each, with host, port, weight, and the name where it has
/// one.
package enum RingText {
    /// The text of a ring.
    package static func write(_ members: [RingMember]) -> [UInt8] {
        let lines = members.map { member in
            "\(member.host) \(member.port) \(member.weight)" + (member.isNamed ? " \(member.name)" : "")
        }
        return Array(lines.joined(separator: "\n").utf8)
    }

    /// The members that a text lists; nil for what is none.
    package static func read(_ bytes: [UInt8]) -> [RingMember]? {
        var members: [RingMember] = []
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            let words = line.split(separator: UInt8(ascii: " "), maxSplits: 3)
                .map { String(decoding: $0, as: UTF8.self) }
            guard words.count >= 3, let port = Int(words[1]), let weight = Double(words[2]) else { return nil }
            members.append(
                RingMember(name: words.count > 3 ? words[3] : nil, host: words[0], port: port, weight: weight))
        }
        return members
    }
}
