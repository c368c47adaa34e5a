// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// A key with something behind it, on the stack.
struct KeyBuffer {
    private var bytes = InlineArray<512, UInt8>(repeating: 0)
    private var count = 0

    /// Bytes that keys and salts may have together.
    static var maximumBytes: Int { 508 }

    init(_ key: Span<UInt8>) {
        append(key)
    }

    mutating func append(_ part: Span<UInt8>) {
        precondition(part.count <= Self.maximumBytes &- count, "a key longer than any protocol allows")
        for index in 0..<part.count { bytes[count &+ index] = part[index] }
        count &+= part.count
    }

    /// Forgets what follows the first `length` bytes.
    mutating func cut(to length: Int) { count = min(count, length) }

    /// Adds the decimal digits of a number below 1,000, the lowest first.
    mutating func appendReversedDecimal(_ number: Int) {
        var rest = number
        repeat {
            bytes[count] = UInt8(truncatingIfNeeded: 48 &+ rest % 10)
            count &+= 1
            rest /= 10
        } while rest > 0
    }

    var span: Span<UInt8> {
        @_lifetime(borrow self) get { bytes.span.extracting(0..<count) }
    }
}
