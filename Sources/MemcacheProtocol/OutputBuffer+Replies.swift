// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory

extension OutputBuffer {
    /// Appends the line before a value of a classic get: `VALUE <key> <flags> <bytes>`, and the CAS value of gets and
    /// gats.
    @inlinable @inline(__always)
    package mutating func appendValueLine(key: Span<UInt8>, clientFlags: UInt32, length: Int, cas: UInt64?) {
        append("VALUE ")
        append(key)
        append(UInt8(ascii: " "))
        append(decimal: UInt64(clientFlags))
        append(UInt8(ascii: " "))
        append(decimal: UInt64(length))
        if let cas {
            append(UInt8(ascii: " "))
            append(decimal: cas)
        }
        append("\r\n")
    }

    /// Appends the start of a meta reply with a value: `VA <bytes>`. Flags, line end, value and line end follow.
    @inlinable @inline(__always)
    package mutating func appendMetaValue(length: Int) {
        append("VA ")
        append(decimal: UInt64(length))
    }

    /// Appends one flag of a meta reply with its number: ` c123`.
    @inlinable @inline(__always)
    package mutating func appendMetaFlag(_ letter: UInt8, _ value: UInt64) {
        append(UInt8(ascii: " "))
        append(letter)
        append(decimal: value)
    }

    /// Appends the time left: ` t9`, or ` t-1` for ever.
    @inlinable @inline(__always)
    package mutating func appendMetaTTL(_ seconds: UInt32?) {
        if let seconds {
            appendMetaFlag(UInt8(ascii: "t"), UInt64(seconds))
        } else {
            append(" t-1")
        }
    }

    /// Appends a flag that has no value: ` W`, ` X`, ` Z`.
    @inlinable @inline(__always)
    package mutating func appendMetaMark(_ letter: UInt8) {
        append(UInt8(ascii: " "))
        append(letter)
    }

    /// Appends the `O` token of `request` as it came.
    @inlinable @inline(__always)
    package mutating func appendMetaOpaque(of request: borrowing Request, in input: Span<UInt8>) {
        append(UInt8(ascii: " "))
        let start = request.opaqueOffset
        append(input.extracting(start..<start &+ request.opaqueLength))
    }

    /// Appends the key: ` k<key>`, or ` k<base64> b` for a binary one.
    @inlinable @inline(__always)
    package mutating func appendMetaKey(_ key: Span<UInt8>, isBinary: Bool) {
        append(" k")
        if isBinary {
            appendBase64(key)
            append(" b")
        } else {
            append(key)
        }
    }

    /// Appends `bytes` in base64.
    @usableFromInline @inline(never)
    package mutating func appendBase64(_ bytes: Span<UInt8>) {
        Base64.encode(bytes, into: &self)
    }
}
