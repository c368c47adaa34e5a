// Martlet
// SPDX-License-Identifier: Apache-2.0

// Two kinds of number, as memcached 1.6.45 has them: strict ones (digits to the token's end) nearly everywhere, and
// lenient ones, C's strtoul and strtol, for the flags and exptime of classic storage commands.

extension Span where Element == UInt8 {
    /// The bytes of [start, end) as a strict number below 2^32: at most 11 digits and nothing else.
    func uint32(_ start: Int, _ end: Int) -> UInt32? {
        guard end - start <= 11, let value = uint64(start, end) else { return nil }
        return UInt32(exactly: value)
    }

    /// The bytes of [start, end) as a strict number below 2^64: at most 22 digits and nothing else.
    func uint64(_ start: Int, _ end: Int) -> UInt64? {
        var value: UInt64 = 0
        if end &- start <= 19 {
            // No number of 19 digits overflows.
            var index = start
            while index < end {
                let digit = self[index] &- 48
                guard digit < 10 else { return nil }
                value = value &* 10 &+ UInt64(digit)
                index &+= 1
            }
            return value
        }
        guard end &- start <= 22 else { return nil }
        for index in start..<end {
            let digit = self[index] &- 48
            guard digit < 10 else { return nil }
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(digit))
            guard !overflow, !carry else { return nil }
            value = sum
        }
        return value
    }

    /// The bytes of [start, end) as a strict signed number of 32 bits: at most 11 bytes. A lone `-` is 0.
    func int32(_ start: Int, _ end: Int) -> Int32? {
        guard end - start <= 11, let value = int64(start, end) else { return nil }
        return Int32(exactly: value)
    }

    /// The bytes of [start, end) as a strict signed number of 64 bits: at most 22 bytes. A lone `-` is 0.
    func int64(_ start: Int, _ end: Int) -> Int64? {
        guard end - start <= 22 else { return nil }
        let negative = start < end && self[start] == UInt8(ascii: "-")
        guard let magnitude = uint64(negative ? start + 1 : start, end) else { return nil }
        if negative { return magnitude <= 1 << 63 ? Int64(truncatingIfNeeded: 0 &- magnitude) : nil }
        return Int64(exactly: magnitude)
    }

    /// The number at `start` as C's strtoul reads it, cut to 32 bits; nil for what memcached refuses.
    ///
    /// White space before it is skipped, even past the token's end; a sign is allowed, but not a negative number that
    /// wraps to 2^63 or more; white space or a NUL must follow.
    func lenientUInt32(_ start: Int) -> UInt32? {
        guard let (magnitude, negative) = lenientMagnitude(start) else { return nil }
        let value = negative ? 0 &- magnitude : magnitude
        if negative, value >= 1 << 63 { return nil }
        return UInt32(truncatingIfNeeded: value)
    }

    /// The number at `start` as C's strtol reads it, cut to 32 bits; nil for what memcached refuses.
    func lenientInt32(_ start: Int) -> Int32? {
        guard let (magnitude, negative) = lenientMagnitude(start) else { return nil }
        guard magnitude < 1 << 63 || (negative && magnitude == 1 << 63) else { return nil }
        return Int32(truncatingIfNeeded: negative ? 0 &- magnitude : magnitude)
    }

    private func lenientMagnitude(_ start: Int) -> (magnitude: UInt64, negative: Bool)? {
        var index = start
        while index < count, isWhiteSpace(self[index]) { index += 1 }
        guard index < count else { return nil }
        let negative = self[index] == UInt8(ascii: "-")
        if negative || self[index] == UInt8(ascii: "+") { index += 1 }
        let firstDigit = index
        var value: UInt64 = 0
        while index < count, self[index] &- 48 < 10 {
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(self[index] &- 48))
            guard !overflow, !carry else { return nil }
            value = sum
            index += 1
        }
        guard index > firstDigit, index < count, self[index] == 0 || isWhiteSpace(self[index]) else { return nil }
        return (value, negative)
    }
}

/// C's isspace: space, tab, line feed, vertical tab, form feed, carriage return.
private func isWhiteSpace(_ byte: UInt8) -> Bool {
    byte == 0x20 || (byte >= 0x09 && byte <= 0x0d)
}
