// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory

/// Commands of the binary protocol. Source: memcached's protocol_binary definitions; 0x20 to 0x22 (SASL) are refused.
@usableFromInline
package enum BinaryOpcode {
    package static let get: UInt8 = 0x00
    package static let set: UInt8 = 0x01
    package static let add: UInt8 = 0x02
    package static let replace: UInt8 = 0x03
    package static let delete: UInt8 = 0x04
    package static let increment: UInt8 = 0x05
    package static let decrement: UInt8 = 0x06
    package static let quit: UInt8 = 0x07
    package static let flush: UInt8 = 0x08
    package static let getQuiet: UInt8 = 0x09
    package static let noop: UInt8 = 0x0a
    package static let version: UInt8 = 0x0b
    package static let getKey: UInt8 = 0x0c
    package static let getKeyQuiet: UInt8 = 0x0d
    package static let append: UInt8 = 0x0e
    package static let prepend: UInt8 = 0x0f
    package static let stat: UInt8 = 0x10
    package static let setQuiet: UInt8 = 0x11
    package static let addQuiet: UInt8 = 0x12
    package static let replaceQuiet: UInt8 = 0x13
    package static let deleteQuiet: UInt8 = 0x14
    package static let incrementQuiet: UInt8 = 0x15
    package static let decrementQuiet: UInt8 = 0x16
    package static let quitQuiet: UInt8 = 0x17
    package static let flushQuiet: UInt8 = 0x18
    package static let appendQuiet: UInt8 = 0x19
    package static let prependQuiet: UInt8 = 0x1a
    package static let touch: UInt8 = 0x1c
    package static let getAndTouch: UInt8 = 0x1d
    package static let getAndTouchQuiet: UInt8 = 0x1e
    package static let saslMechanisms: UInt8 = 0x20
    package static let saslStart: UInt8 = 0x21
    package static let saslStep: UInt8 = 0x22
    package static let getAndTouchKey: UInt8 = 0x23
    package static let getAndTouchKeyQuiet: UInt8 = 0x24
}

/// The status field of a binary reply.
@usableFromInline
package enum BinaryStatus: UInt16, Sendable, CaseIterable {
    case success = 0x00
    case notFound = 0x01
    case exists = 0x02
    case tooLarge = 0x03
    case invalidArguments = 0x04
    case notStored = 0x05
    case nonNumeric = 0x06
    case authenticationFailed = 0x20
    case unknownCommand = 0x81
    case outOfMemory = 0x82
    /// Nobody knows whether it was done.
    case internalError = 0x84
    /// It was not done: too much is asked of the server.
    case busy = 0x85
    /// It was not done, and may work later.
    case temporaryFailure = 0x86

    /// The text that goes as the body of a reply with this status.
    package var text: StaticString {
        switch self {
        case .success: ""
        case .notFound: "Not found"
        case .exists: "Data exists for key."
        case .tooLarge: "Too large."
        case .invalidArguments: "Invalid arguments"
        case .notStored: "Not stored."
        case .nonNumeric: "Non-numeric server-side value for incr or decr"
        case .authenticationFailed: "Auth failure."
        case .unknownCommand: "Unknown command"
        case .outOfMemory: "Out of memory"
        case .internalError: "Internal error"
        case .busy: "Busy"
        case .temporaryFailure: "Temporary failure"
        }
    }
}

/// The fixed start of every binary request and reply.
@usableFromInline
package enum BinaryHeader {
    /// Bytes of a header.
    @usableFromInline package static let bytes = 24
    /// The first byte of a request.
    @usableFromInline package static let requestMagic: UInt8 = 0x80
    /// The first byte of a reply.
    @usableFromInline package static let replyMagic: UInt8 = 0x81
}

extension OutputBuffer {
    /// Appends the header of a reply to `request`. Extras, key and value follow; `bodyLength` is what they have
    /// together.
    @inlinable
    package mutating func appendBinaryHeader(
        replyTo request: borrowing Request, status: BinaryStatus = .success, extrasLength: Int = 0, keyLength: Int = 0,
        bodyLength: Int = 0, cas: UInt64 = 0
    ) {
        appendBinaryHeader(
            opcode: request.opcode, status: status, extrasLength: extrasLength, keyLength: keyLength,
            bodyLength: bodyLength, opaque: request.opaque, cas: cas)
    }

    /// Appends the header of a reply, field by field.
    @inlinable
    package mutating func appendBinaryHeader(
        opcode: UInt8, status: BinaryStatus, extrasLength: Int, keyLength: Int, bodyLength: Int, opaque: UInt32,
        cas: UInt64
    ) {
        let first = UInt64(0x81) << 56 | UInt64(opcode) << 48 | UInt64(keyLength & 0xffff) << 32
        let second = UInt64(extrasLength & 0xff) << 24 | UInt64(status.rawValue)
        append(bigEndian: first | second)
        append(bigEndian: UInt64(UInt32(truncatingIfNeeded: bodyLength)) << 32 | UInt64(opaque))
        append(bigEndian: cas)
    }

    /// Appends a reply that is nothing but a status and its text.
    package mutating func appendBinaryStatus(_ status: BinaryStatus, replyTo request: borrowing Request) {
        appendBinaryText(status.text, status: status, replyTo: request)
    }

    /// Appends a reply whose body is `text`.
    package mutating func appendBinaryText(
        _ text: StaticString, status: BinaryStatus = .success, replyTo request: borrowing Request
    ) {
        appendBinaryHeader(replyTo: request, status: status, bodyLength: text.utf8CodeUnitCount)
        append(text)
    }

    /// Appends the answer to a request that is refused, in the protocol that it came in.
    package mutating func append(_ error: ErrorReply, replyTo request: borrowing Request) {
        if request.form == .binary {
            appendBinaryStatus(error.status, replyTo: request)
        } else {
            error.appendText(to: &self)
        }
    }

    /// Appends one statistic of a binary `stat`; an empty name and value end the list.
    package mutating func appendBinaryStatistic(
        name: Span<UInt8>, value: Span<UInt8>, replyTo request: borrowing Request
    ) {
        appendBinaryHeader(
            opcode: BinaryOpcode.stat, status: .success, extrasLength: 0, keyLength: name.count,
            bodyLength: name.count + value.count, opaque: request.opaque, cas: 0)
        append(name)
        append(value)
    }
}
