// Martlet
// SPDX-License-Identifier: Apache-2.0

public import CPlatform

extension Span where Element == UInt8 {
    /// The eight bytes at `offset` as one word, the first byte lowest. Any alignment; traps outside of the span.
    @inlinable @inline(__always)
    package func word(at offset: Int) -> UInt64 {
        precondition(offset >= 0 && offset <= count &- 8, "word outside of its span")
        // SAFETY: in bounds by the line above; an unaligned load has no alignment to keep.
        return unsafe withUnsafeBytes {
            unsafe UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        }
    }

    /// A number in network byte order at `offset`. Any alignment; traps outside of the span.
    @inlinable @inline(__always)
    package func bigEndian<T: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as type: T.Type) -> T {
        precondition(offset >= 0 && offset <= count &- MemoryLayout<T>.size, "number outside of its span")
        // SAFETY: in bounds by the line above; an unaligned load has no alignment to keep.
        return unsafe withUnsafeBytes {
            unsafe T(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self))
        }
    }

    /// Where the token that holds `start` ends: the offset of the first space or line feed at or after `start`, or
    /// `count` when there is none.
    ///
    /// Looks at eight bytes a step: a byte below 33 is rare inside of a token, and only those are looked at one by one.
    @inlinable @inline(__always)
    package func tokenEnd(from start: Int) -> Int {
        var index = start
        while index <= count &- 8 {
            let eight = word(at: index)
            // The high bit of each byte below 33. A borrow may mark a byte of 33 above a true mark; never misses one.
            var marks = (eight &- 0x2121_2121_2121_2121) & ~eight & 0x8080_8080_8080_8080
            while marks != 0 {
                let bit = UInt64(truncatingIfNeeded: marks.trailingZeroBitCount)
                let byte = UInt8(truncatingIfNeeded: eight &>> (bit &- 7))
                if byte == 0x20 || byte == 0x0a { return index &+ Int(truncatingIfNeeded: bit &>> 3) }
                marks &= marks &- 1
            }
            index &+= 8
        }
        while index < count {
            if self[index] == 0x20 || self[index] == 0x0a { return index }
            index &+= 1
        }
        return count
    }

    /// The offset of the first `byte` at or after `start` and before `end`; nil when there is none.
    @inlinable
    package func firstOffset(of byte: UInt8, from start: Int, to end: Int) -> Int? {
        precondition(start >= 0 && start <= end && end <= count, "range outside of its span")
        // SAFETY: the range is in bounds by the line above; the span keeps the bytes alive in the closure.
        return unsafe withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress, end > start else { return nil }
            guard let found = unsafe memchr(base + start, Int32(byte), end &- start) else { return nil }
            return unsafe UnsafeRawPointer(found) - base
        }
    }

    /// Whether the bytes at `offset` are `text`; false when there are too few of them.
    @inlinable
    package func holds(_ text: StaticString, at offset: Int) -> Bool {
        holds(text, length: text.utf8CodeUnitCount, at: offset)
    }

    /// Whether the bytes at `offset` are the first `length` of `text`, which has that many; false when there are too
    /// few.
    @inlinable
    package func holds(_ text: StaticString, length: Int, at offset: Int) -> Bool {
        precondition(length >= 0 && length <= text.utf8CodeUnitCount, "more than the text")
        guard offset >= 0, offset <= count &- length else { return false }
        // SAFETY: both are in bounds by the lines above; a static string's bytes live for ever.
        return unsafe withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return length == 0 }
            return unsafe memcmp(base + offset, text.utf8Start, length) == 0
        }
    }
}
