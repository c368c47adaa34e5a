// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory

/// A storage command of the classic protocol.
@usableFromInline
package enum StoreVerb: UInt8, BitwiseCopyable, Sendable, CaseIterable {
    case set, add, replace, append, prepend, cas

    /// The command's name.
    @inlinable package var text: StaticString {
        switch self {
        case .set: "set "
        case .add: "add "
        case .replace: "replace "
        case .append: "append "
        case .prepend: "prepend "
        case .cas: "cas "
        }
    }

    /// The storage command that a classic verb is; nil of others.
    package init?(_ verb: Verb) {
        switch verb {
        case .set: self = .set
        case .add: self = .add
        case .replace: self = .replace
        case .append: self = .append
        case .prepend: self = .prepend
        case .cas: self = .cas
        default: return nil
        }
    }
}

/// The client's side: requests of the text protocols. Keys are the caller's to check: 1 to 250 bytes above 32, no 127.
extension OutputBuffer {
    /// Appends `get key`, or the start of a longer line that ``appendAnotherKey(_:)`` and ``appendLineEnd()`` go on
    /// with. `verb` is `get ` or `gets `.
    @inlinable @inline(__always)
    package mutating func appendKeyLine(_ verb: StaticString, key: Span<UInt8>) {
        append(verb)
        append(key)
    }

    /// Appends one more key to a get.
    @inlinable @inline(__always)
    package mutating func appendAnotherKey(_ key: Span<UInt8>) {
        append(UInt8(ascii: " "))
        append(key)
    }

    /// Ends a line.
    @inlinable @inline(__always)
    package mutating func appendLineEnd() { append("\r\n") }

    /// Appends a storage command's line; the data block and a line end follow. `cas` belongs to ``StoreVerb/cas``.
    @inlinable @inline(__always)
    package mutating func appendStoreLine(
        _ verb: StoreVerb, key: Span<UInt8>, clientFlags: UInt32, expiry: Int64, length: Int, cas: UInt64 = 0
    ) {
        append(verb.text)
        append(key)
        append(UInt8(ascii: " "))
        append(decimal: UInt64(clientFlags))
        append(UInt8(ascii: " "))
        append(decimal: expiry)
        append(UInt8(ascii: " "))
        append(decimal: UInt64(length))
        if verb == .cas {
            append(UInt8(ascii: " "))
            append(decimal: cas)
        }
        append("\r\n")
    }

    /// Appends `delete key`.
    @inlinable
    package mutating func appendDelete(key: Span<UInt8>) {
        appendKeyLine("delete ", key: key)
        appendLineEnd()
    }

    /// Appends `incr key delta` or `decr key delta`; `verb` is `incr ` or `decr `.
    @inlinable
    package mutating func appendArithmetic(_ verb: StaticString, key: Span<UInt8>, delta: UInt64) {
        appendKeyLine(verb, key: key)
        append(UInt8(ascii: " "))
        append(decimal: delta)
        appendLineEnd()
    }

    /// Appends `touch key expiry`.
    @inlinable
    package mutating func appendTouch(key: Span<UInt8>, expiry: Int64) {
        appendKeyLine("touch ", key: key)
        append(UInt8(ascii: " "))
        append(decimal: expiry)
        appendLineEnd()
    }

    /// Appends `gat expiry key`; `verb` is `gat ` or `gats `.
    @inlinable
    package mutating func appendGetAndTouch(_ verb: StaticString, key: Span<UInt8>, expiry: Int64) {
        append(verb)
        append(decimal: expiry)
        append(UInt8(ascii: " "))
        append(key)
        appendLineEnd()
    }

    /// Appends `ms key length`, and the expiry when it is not 0; the data block and a line end follow. `mode` is the
    /// token of another mode, such as ` ME`, or empty.
    @inlinable @inline(__always)
    package mutating func appendMetaStoreLine(key: Span<UInt8>, length: Int, expiry: Int64, mode: StaticString = "") {
        append("ms ")
        append(key)
        append(UInt8(ascii: " "))
        append(decimal: UInt64(length))
        if expiry != 0 {
            append(" T")
            append(decimal: expiry)
        }
        append(mode)
        append("\r\n")
    }
}
