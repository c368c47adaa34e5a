// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The pieces of Avro's binary encoding that our records need. Source: Apache Avro 1.11 specification, Binary Encoding.
enum AvroEncoding {
    /// Appends an int or a long: zigzag, then seven bits a byte, the lowest first.
    static func append(long value: Int64, to bytes: inout [UInt8]) {
        var rest = UInt64(bitPattern: (value << 1) ^ (value >> 63))
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    /// Appends bytes: their length, then they.
    static func append(_ value: [UInt8], to bytes: inout [UInt8]) {
        append(long: Int64(value.count), to: &bytes)
        bytes.append(contentsOf: value)
    }

    /// Appends a string: the length of its UTF-8, then that.
    static func append(_ value: String, to bytes: inout [UInt8]) {
        append(long: Int64(value.utf8.count), to: &bytes)
        bytes.append(contentsOf: value.utf8)
    }

    /// Appends a union of null and something.
    static func append<T>(optional value: T?, to bytes: inout [UInt8], _ encode: (T, inout [UInt8]) -> Void) {
        guard let value else { return append(long: 0, to: &bytes) }
        append(long: 1, to: &bytes)
        encode(value, &bytes)
    }

    /// CRC-64-AVRO of a schema's canonical form.
    static func fingerprint(_ bytes: [UInt8]) -> UInt64 {
        let empty: UInt64 = 0xc15d_213a_a4d7_a795
        var table: [UInt64] = []
        for index in 0..<UInt64(256) {
            var entry = index
            for _ in 0..<8 { entry = (entry >> 1) ^ (empty & (0 &- (entry & 1))) }
            table.append(entry)
        }
        return bytes.reduce(empty) { ($0 >> 8) ^ table[Int(truncatingIfNeeded: ($0 ^ UInt64($1)) & 0xff)] }
    }
}

/// Reads Avro's binary encoding; each call gives nil when the bytes end too early or make no sense.
package struct AvroReader {
    private let content: [UInt8]
    private var position: Int

    /// Reads what follows the first `position` bytes, which must be there.
    package init(_ bytes: [UInt8], from position: Int) {
        content = bytes
        self.position = position
    }

    /// Whether everything was read.
    package var isAtEnd: Bool { position == content.count }

    /// An int or a long.
    package mutating func long() -> Int64? {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while position < content.count, shift < 64 {
            let byte = content[position]
            position += 1
            value |= UInt64(byte & 0x7f) << shift
            if byte & 0x80 == 0 { return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1) }
            shift += 7
        }
        return nil
    }

    /// Bytes, or a string's.
    package mutating func bytes() -> [UInt8]? { long().flatMap { bytes(count: $0) } }

    /// So many bytes as they stand there: of fixed, float, double, boolean.
    package mutating func bytes(count: Int64) -> [UInt8]? {
        let start = position
        return skip(count) ? Array(content[start..<position]) : nil
    }

    /// Passes over so many bytes; false where there are fewer, or the number makes no sense.
    package mutating func skip(_ count: Int64) -> Bool {
        guard count >= 0, count <= Int64(content.count - position) else { return false }
        position += Int(count)
        return true
    }

    mutating func string() -> String? { bytes().map { String(decoding: $0, as: UTF8.self) } }

    /// A union of null and something: nil when it makes no sense, `.some(nil)` for null.
    mutating func optional<T>(_ read: (inout AvroReader) -> T?) -> T?? {
        switch long() {
        case 0: return .some(nil)
        case 1: return read(&self).map { .some($0) }
        default: return nil
        }
    }
}
