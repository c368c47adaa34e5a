// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A value read as memcached's `safe_strtoull` reads it: white space and a sign as strtoull takes them, digits up to
/// 2^64-1, then the end or white space. A negative one wraps around, and is refused unless that makes it less than
/// 2^63. Nil for what is no number.
package func parseStoredNumber(_ bytes: Span<UInt8>) -> UInt64? {
    var position = 0
    while position < bytes.count, isSpace(bytes[position]) { position += 1 }
    var isNegative = false
    if position < bytes.count, bytes[position] == UInt8(ascii: "+") || bytes[position] == UInt8(ascii: "-") {
        isNegative = bytes[position] == UInt8(ascii: "-")
        position += 1
    }
    let first = position
    var value: UInt64 = 0
    while position < bytes.count, bytes[position] >= 48, bytes[position] <= 57 {
        let (product, overflow) = value.multipliedReportingOverflow(by: 10)
        let (sum, carry) = product.addingReportingOverflow(UInt64(bytes[position] - 48))
        if overflow || carry { return nil }
        value = sum
        position += 1
    }
    guard position > first, position == bytes.count || isSpace(bytes[position]) else { return nil }
    guard isNegative else { return value }
    value = 0 &- value
    return Int64(bitPattern: value) < 0 ? nil : value
}

private func isSpace(_ byte: UInt8) -> Bool { byte == 32 || (9...13).contains(byte) }
