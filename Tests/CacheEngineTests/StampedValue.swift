// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing

/// Values that can be checked by whoever reads them: a row of records, each with its key's number, its length, a number
/// of its own, bytes that follow from that number, and a hash over all of it.
///
/// Appending or prepending a record gives a value of the same kind, so every mode of storing can be used on one key; a
/// torn, mixed or foreign value is seen.
enum StampedValue {
    static let headerBytes = 16
    static let overheadBytes = headerBytes + 8
    /// The first byte: nothing that a number could begin with, so that arithmetic leaves records alone.
    static let mark: UInt64 = 0xA5

    /// One record of `length` payload bytes.
    static func record(key: Int, nonce: UInt64, length: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(overheadBytes + length)
        append(UInt64(key) << 40 | UInt64(length) << 8 | mark, to: &bytes)
        append(nonce, to: &bytes)
        for index in 0..<length { bytes.append(UInt8(truncatingIfNeeded: nonce &+ UInt64(index))) }
        append(stableHash(bytes.span), to: &bytes)
        return bytes
    }

    private static func append(_ word: UInt64, to bytes: inout [UInt8]) {
        for shift in stride(from: UInt64(0), to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: word >> shift)) }
    }

    /// The records' own numbers, in order; nil when the value is not a row of whole records of `key`.
    static func nonces(in value: Span<UInt8>, key: Int) -> [UInt64]? {
        var found: [UInt64] = []
        var offset = 0
        while offset < value.count {
            guard offset + overheadBytes <= value.count else { return nil }
            let first = value.word(at: offset)
            let end = offset + headerBytes + Int(first >> 8 & 0xFFFF_FFFF)
            guard first & 0xFF == mark, first >> 40 == UInt64(key), end + 8 <= value.count else { return nil }
            guard value.word(at: end) == stableHash(value.extracting(offset..<end)) else { return nil }
            found.append(value.word(at: offset + 8))
            offset = end + 8
        }
        return found.isEmpty ? nil : found
    }

    /// Whether the value is what arithmetic leaves: digits, then perhaps spaces.
    static func isNumber(_ value: Span<UInt8>) -> Bool {
        var digits = 0
        while digits < value.count, (48...57).contains(value[digits]) { digits += 1 }
        for index in digits..<value.count where value[index] != 32 { return false }
        return digits > 0
    }
}

/// The checker itself must see what is wrong.
struct StampedValueTests {
    private func nonces(_ value: [UInt8], key: Int) -> [UInt64]? { StampedValue.nonces(in: value.span, key: key) }

    private func isNumber(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        return StampedValue.isNumber(bytes.span)
    }

    @Test func knowsItsOwnRecords() {
        let both = StampedValue.record(key: 7, nonce: 5, length: 100) + StampedValue.record(key: 7, nonce: 6, length: 0)
        #expect(nonces(both, key: 7) == [5, 6])
    }

    @Test func seesForeignTornAndCutValues() {
        let value = StampedValue.record(key: 7, nonce: 5, length: 100)
        #expect(nonces(value, key: 8) == nil)
        #expect(nonces(value.dropLast(), key: 7) == nil)
        #expect(nonces([], key: 7) == nil)
        let other = StampedValue.record(key: 7, nonce: 99, length: 100)
        let torn = Array(value.prefix(60) + other.suffix(64))
        #expect(torn.count == value.count && nonces(torn, key: 7) == nil)
    }

    @Test func tellsNumbersFromOtherText() {
        #expect(isNumber("120  "))
        #expect(!isNumber("12a"))
        #expect(!isNumber("  "))
    }
}
