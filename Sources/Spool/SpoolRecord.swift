// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// A delete that a server missed, as it lies in a segment: 16 bytes and the key.
///
/// Two bytes of length, two that are 0, four of the time in seconds since 1970, eight of XXH3 over those eight and the
/// key, seeded by the record's place; all little-endian. A record that was moved, cut off or overwritten has another
/// sum, so that what a crash left behind is never taken for a record.
struct SpoolRecord: Equatable {
    let key: [UInt8]
    let seconds: UInt32

    static var headerBytes: Int { 16 }
    /// Bytes of a key at most.
    static var keyLimit: Int { Int(UInt16.max) }

    var byteCount: Int { Self.headerBytes + key.count }

    /// Appends it to a segment that has `offset` bytes so far.
    func append(to bytes: inout [UInt8], at offset: Int) {
        let start = bytes.count
        Self.append(UInt64(UInt16(truncatingIfNeeded: key.count)), 4, to: &bytes)
        Self.append(UInt64(seconds), 4, to: &bytes)
        let sum = Self.sum(Array(bytes[start...]), key, at: offset)
        Self.append(sum, 8, to: &bytes)
        bytes += key
    }

    /// The record at `start` of bytes that begin at `base` in their segment; nil when there is none, or not all of it.
    static func read(_ bytes: [UInt8], at start: Int, base: Int) -> SpoolRecord? {
        guard start + headerBytes <= bytes.count else { return nil }
        let length = Int(number(bytes, start, 4))
        guard 1...keyLimit ~= length, start + headerBytes + length <= bytes.count else { return nil }
        let key = Array(bytes[start + headerBytes..<start + headerBytes + length])
        guard number(bytes, start + 8, 8) == sum(Array(bytes[start..<start + 8]), key, at: base + start) else {
            return nil
        }
        return SpoolRecord(key: key, seconds: UInt32(truncatingIfNeeded: number(bytes, start + 4, 4)))
    }

    private static func sum(_ head: [UInt8], _ key: [UInt8], at offset: Int) -> UInt64 {
        stableHash((head + key).span, seed: UInt64(offset))
    }

    private static func append(_ value: UInt64, _ count: Int, to bytes: inout [UInt8]) {
        for index in 0..<count { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
    }

    private static func number(_ bytes: [UInt8], _ start: Int, _ count: Int) -> UInt64 {
        (0..<count).reduce(0) { $0 | UInt64(bytes[start + $1]) << (8 * $1) }
    }
}
