// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Two decimal digits for each number from 0 to 99, as one 16-bit word in memory order.
@usableFromInline
let digitPairs: InlineArray<100, UInt16> = InlineArray { (index: Int) -> UInt16 in
    UInt16(48 + index / 10) | UInt16(48 + index % 10) << 8
}

/// How many decimal digits `value` has: 1 to 20.
@inlinable @inline(__always)
package func decimalLength(_ value: UInt64) -> Int {
    if value < 10 { return 1 }
    if value < 100 { return 2 }
    if value < 1000 { return 3 }
    if value < 10_000 { return 4 }
    var length = 4
    var rest = value / 10_000
    while rest > 0 {
        length += 1
        rest /= 10
    }
    return length
}

/// A number's decimal digits.
package struct DecimalText: Sendable {
    /// The digits, from the first byte on.
    package private(set) var bytes = InlineArray<20, UInt8>(repeating: 0)
    /// How many there are: 1 to 20.
    package let count: Int

    /// The digits of `value`. Does not allocate.
    package init(_ value: UInt64) {
        var digits = InlineArray<20, UInt8>(repeating: 0)
        // SAFETY: twenty bytes are what writeDecimal asks for; they live during the closure.
        count = unsafe withUnsafeMutableBytes(of: &digits) { buffer in
            guard let base = buffer.baseAddress else { return 0 }
            return unsafe writeDecimal(value, to: base)
        }
        bytes = digits
    }
}

extension MemoryBlock {
    /// Writes `value` in decimal at `offset`; traps when the digits do not fit.
    package func storeDecimal(_ value: UInt64, at offset: Int) {
        let text = DecimalText(value)
        copy(text.bytes.span.extracting(0..<text.count), at: offset)
    }
}

/// Writes `value` in decimal at `target` and returns how many bytes that took (1 to 20). `target` has room for 20.
@inlinable @inline(__always)
package func writeDecimal(_ value: UInt64, to target: UnsafeMutableRawPointer) -> Int {
    // SAFETY: the caller gives room for 20 bytes, and no number has more digits than that.
    if value < 10 {
        unsafe target.storeBytes(of: UInt8(truncatingIfNeeded: 48 &+ value), as: UInt8.self)
        return 1
    }
    let length = decimalLength(value)
    var rest = value
    var position = length
    while rest >= 100 {
        let pair = Int(truncatingIfNeeded: rest % 100)
        rest /= 100
        position &-= 2
        unsafe target.storeBytes(of: digitPairs[pair], toByteOffset: position, as: UInt16.self)
    }
    if rest >= 10 {
        unsafe target.storeBytes(of: digitPairs[Int(truncatingIfNeeded: rest)], as: UInt16.self)
    } else {
        unsafe target.storeBytes(of: UInt8(truncatingIfNeeded: 48 &+ rest), as: UInt8.self)
    }
    return length
}
