// Martlet
// SPDX-License-Identifier: Apache-2.0

/// An answer of the domain name system, as far as members need it: addresses, services, and how long they hold.
///
/// Source: RFC 1035, sections 4.1 and 4.1.4; RFC 2782; RFC 3596. Damaged and hostile messages give nil.
struct DNSMessage: Sendable, Equatable {
    /// A record of the answer. What is sent along with it is not looked at: it may be the addresses of name servers.
    enum Record: Sendable, Equatable {
        case address(name: String, address: String, ttlSeconds: UInt32)
        case service(priority: Int, weight: Int, port: Int, target: String, ttlSeconds: UInt32)
        /// Another name for a name.
        case alias(ttlSeconds: UInt32)

        var ttlSeconds: UInt32 {
            switch self {
            case .address(_, _, let ttl), .alias(let ttl): ttl
            case .service(_, _, _, _, let ttl): ttl
            }
        }
    }

    let records: [Record]

    /// Records of one message that are looked at.
    private static var maximumRecords: Int { 4_096 }

    init?(_ bytes: [UInt8]) {
        var reader = Reader(bytes: bytes)
        guard reader.skip(4), let questions = reader.number(2), let answers = reader.number(2),
            let authorities = reader.number(2), let more = reader.number(2)
        else { return nil }
        for _ in 0..<questions { guard reader.name() != nil, reader.skip(4) else { return nil } }
        var records: [Record] = []
        let total = answers + authorities + more
        guard total <= Self.maximumRecords else { return nil }
        for index in 0..<total {
            guard let name = reader.name(), let type = reader.number(2), reader.number(2) != nil,
                let ttl = reader.number(4), let length = reader.number(2)
            else { return nil }
            let end = reader.offset + length
            guard end <= bytes.count else { return nil }
            if index < answers, let record = Self.record(&reader, name, type, UInt32(ttl), length) {
                records.append(record)
            }
            reader.offset = end
        }
        self.records = records
    }

    private static func record(
        _ reader: inout Reader, _ name: String, _ type: Int, _ ttl: UInt32, _ length: Int
    ) -> Record? {
        switch (type, length) {
        case (1, 4):
            let parts = reader.bytes[reader.offset..<(reader.offset + 4)].map { String($0) }
            return .address(name: name, address: parts.joined(separator: "."), ttlSeconds: ttl)
        case (28, 16):
            let start = reader.offset
            let groups = stride(from: start, to: start + 16, by: 2).map { index in
                UInt16(reader.bytes[index]) << 8 | UInt16(reader.bytes[index + 1])
            }
            return .address(name: name, address: text(of: groups), ttlSeconds: ttl)
        case (33, 7...):
            guard let priority = reader.number(2), let weight = reader.number(2), let port = reader.number(2),
                let target = reader.name(), !target.isEmpty
            else { return nil }
            return .service(priority: priority, weight: weight, port: port, target: target, ttlSeconds: ttl)
        case (5, _): return .alias(ttlSeconds: ttl)
        default: return nil
        }
    }

    /// An IPv6 address as RFC 5952 has it: the longest run of zeros is left out.
    private static func text(of groups: [UInt16]) -> String {
        var best = 0..<0
        var index = 0
        while index < groups.count {
            var end = index
            while end < groups.count, groups[end] == 0 { end += 1 }
            if end - index > max(best.count, 1) { best = index..<end }
            index = max(end, index + 1)
        }
        func spelled(_ part: ArraySlice<UInt16>) -> String {
            part.map { String($0, radix: 16) }.joined(separator: ":")
        }
        if best.isEmpty { return spelled(groups[...]) }
        return spelled(groups[..<best.lowerBound]) + "::" + spelled(groups[best.upperBound...])
    }

    private struct Reader {
        let bytes: [UInt8]
        var offset = 0

        mutating func skip(_ count: Int) -> Bool {
            offset += count
            return offset <= bytes.count
        }

        mutating func number(_ length: Int) -> Int? {
            guard offset + length <= bytes.count else { return nil }
            var number = 0
            for index in offset..<(offset + length) { number = number << 8 | Int(bytes[index]) }
            offset += length
            return number
        }

        /// A name, without the dot at its end. A part of it may be written elsewhere in the message, before it.
        mutating func name() -> String? {
            var labels: [String] = []
            var place = offset
            var end: Int?
            var length = 0
            while true {
                guard place < bytes.count else { return nil }
                let size = Int(bytes[place])
                if size == 0 { break }
                if size >= 0xc0 {
                    guard place + 1 < bytes.count else { return nil }
                    let target = (size & 0x3f) << 8 | Int(bytes[place + 1])
                    // Backwards only: no name is without end.
                    guard target < place else { return nil }
                    end = end ?? place + 2
                    place = target
                    continue
                }
                guard size < 64, place + 1 + size <= bytes.count else { return nil }
                length += size + 1
                let label = bytes[(place + 1)..<(place + 1 + size)]
                // Any byte may stand in a label; what is no host's name is nobody's we want.
                guard length <= 255, label.allSatisfy({ 33...126 ~= $0 && $0 != UInt8(ascii: ".") }) else { return nil }
                labels.append(String(decoding: label, as: UTF8.self).lowercased())
                place += 1 + size
            }
            offset = end ?? place + 1
            return labels.joined(separator: ".")
        }
    }
}
