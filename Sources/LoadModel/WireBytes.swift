// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Bytes from another machine that are not what they should be.
package struct WireProblem: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    /// What is wrong with them.
    package init(_ description: String) { self.description = description }
}

/// Writes numbers and texts one after another, for a ``WireReader``. Whole numbers are LEB128.
package struct WireWriter {
    /// What was written so far.
    package private(set) var bytes: [UInt8] = []

    package init() {}

    /// Appends a whole number.
    package mutating func put(_ number: UInt64) {
        var rest = number
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    /// Appends a whole number that is not negative.
    package mutating func put(_ number: Int) { put(UInt64(max(0, number))) }

    /// Appends a number, bit by bit.
    package mutating func put(_ number: Double) {
        for shift in stride(from: UInt64(0), to: 64, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: number.bitPattern >> shift))
        }
    }

    /// Appends bytes and how many they are.
    package mutating func put(_ some: [UInt8]) {
        put(some.count)
        bytes += some
    }

    /// Appends a text.
    package mutating func put(_ text: String) { put(Array(text.utf8)) }
}

/// Reads what a ``WireWriter`` wrote. Whatever the bytes are, it reads none that are not there, and makes nothing
/// larger than they are.
package struct WireReader {
    private let bytes: [UInt8]
    private var offset: Int

    /// Reads `bytes` from `start` on.
    package init(_ bytes: [UInt8], from start: Int = 0) { (self.bytes, offset) = (bytes, start) }

    /// Bytes that were not read yet.
    package var left: Int { bytes.count - offset }

    private mutating func byte() throws(WireProblem) -> UInt8 {
        guard offset < bytes.count else { throw WireProblem("a message ends too early") }
        defer { offset += 1 }
        return bytes[offset]
    }

    /// A whole number.
    package mutating func number() throws(WireProblem) -> UInt64 {
        var (result, shift) = (UInt64(0), UInt64(0))
        while true {
            let next = try byte()
            guard shift < 63 || next <= 1 else { throw WireProblem("a number of more than 64 bits") }
            result |= UInt64(next & 0x7f) << shift
            if next & 0x80 == 0 { return result }
            shift += 7
        }
    }

    /// A whole number of at most `limit`.
    package mutating func number(upTo limit: Int) throws(WireProblem) -> Int {
        let number = try number()
        guard number <= UInt64(limit) else { throw WireProblem("a number that is more than \(limit)") }
        return Int(number)
    }

    /// How many elements follow: at most `limit`, and of at least a byte each.
    package mutating func count(upTo limit: Int) throws(WireProblem) -> Int {
        let count = try number(upTo: limit)
        guard count <= left else { throw WireProblem("a list that is longer than its message") }
        return count
    }

    /// A number that is none of infinite or none.
    package mutating func finite() throws(WireProblem) -> Double {
        var bits: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 64, by: 8) { bits |= UInt64(try byte()) << shift }
        let number = Double(bitPattern: bits)
        guard number.isFinite else { throw WireProblem("a number that is none") }
        return number
    }

    /// Bytes.
    package mutating func blob() throws(WireProblem) -> [UInt8] {
        let count = try count(upTo: .max)
        defer { offset += count }
        return Array(bytes[offset..<offset + count])
    }

    /// A text; what is no UTF-8 is replaced.
    package mutating func text() throws(WireProblem) -> String { String(decoding: try blob(), as: UTF8.self) }
}
