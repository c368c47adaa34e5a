// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory

/// Requests as servers are asked: always aloud, because a reply is known by its place.
extension OutputBuffer {
    /// Appends a get, gets, gat or gats of one key, without the line's end: more keys may follow.
    @inlinable
    package mutating func appendGet(_ verb: Verb, exptime: Int64, key: Span<UInt8>) {
        switch verb {
        case .get: append("get ")
        case .gets: append("gets ")
        default:
            append(verb == .gats ? "gats " : "gat ")
            append(decimal: exptime)
            append(UInt8(ascii: " "))
        }
        append(key)
    }

    /// Appends a request that goes to one server: classic ones spelled anew, meta ones as they came without `q`, binary
    /// ones with the opcode that answers.
    package mutating func appendForwarded(_ request: borrowing Request, key: Span<UInt8>, _ input: Span<UInt8>) {
        switch request.form {
        case .classic: appendClassic(request, key: key, input)
        case .meta: appendMeta(request, input)
        case .binary: appendPacket(request, input)
        }
    }

    private mutating func appendClassic(_ request: borrowing Request, key: Span<UInt8>, _ input: Span<UInt8>) {
        if let verb = StoreVerb(request.verb) {
            appendStoreLine(
                verb, key: key, clientFlags: request.clientFlags, expiry: request.exptime, length: request.valueLength,
                cas: request.cas)
            append(input.extracting(request.valueOffset..<request.valueOffset &+ request.valueLength))
            return appendLineEnd()
        }
        switch request.verb {
        case .delete: appendDelete(key: key)
        case .incr: appendArithmetic("incr ", key: key, delta: request.delta)
        case .decr: appendArithmetic("decr ", key: key, delta: request.delta)
        case .touch: appendTouch(key: key, expiry: request.exptime)
        default: preconditionFailure("not a command with a key")
        }
    }

    /// The line as it came, without a `q`, and the value.
    private mutating func appendMeta(_ request: borrowing Request, _ input: Span<UInt8>) {
        let start = request.lineOffset
        guard let feed = input.firstOffset(of: UInt8(ascii: "\n"), from: start, to: input.count) else { return }
        let end = input[feed &- 1] == UInt8(ascii: "\r") ? feed &- 1 : feed
        if request.isQuiet {
            appendLine(input, from: start, to: end, without: UInt8(ascii: "q"))
        } else {
            append(input.extracting(start..<end))
        }
        append("\r\n")
        guard request.verb == .metaSet else { return }
        append(input.extracting(request.valueOffset..<request.valueOffset &+ request.valueLength))
        append("\r\n")
    }

    /// The tokens of a line but for those, from the third on, that begin with the letter: of a flag without an argument
    /// memcached looks at nothing else.
    private mutating func appendLine(_ input: Span<UInt8>, from start: Int, to end: Int, without letter: UInt8) {
        var index = start
        var tokens = 0
        while index < end {
            while index < end, input[index] == UInt8(ascii: " ") { index &+= 1 }
            let token = index
            while index < end, input[index] != UInt8(ascii: " ") { index &+= 1 }
            guard index > token else { return }
            tokens &+= 1
            if tokens > 2, input[token] == letter { continue }
            if tokens > 1 { append(UInt8(ascii: " ")) }
            append(input.extracting(token..<index))
        }
    }

    /// Appends `flush_all` in the protocol of the request.
    package mutating func appendFlush(_ request: borrowing Request) {
        guard request.form == .binary else {
            append("flush_all")
            if request.exptime != 0 {
                append(UInt8(ascii: " "))
                append(decimal: request.exptime)
            }
            return append("\r\n")
        }
        append(bigEndian: UInt64(BinaryHeader.requestMagic) << 56 | UInt64(BinaryOpcode.flush) << 48)
        patch(bigEndian: UInt8(4), at: count &- 4)
        append(bigEndian: UInt64(4) << 32)
        append(bigEndian: UInt64(0))
        append(bigEndian: UInt32(truncatingIfNeeded: request.exptime))
    }

    /// The packet as it came, with the opcode that answers.
    private mutating func appendPacket(_ request: borrowing Request, _ input: Span<UInt8>) {
        let start = request.lineOffset
        let body = Int(input.bigEndian(at: start &+ 8, as: UInt32.self))
        // A request that takes no value may have announced more than it has: memcached reads the rest as the next one.
        let length =
            request.verb.stores
            ? BinaryHeader.bytes &+ body
            : request.keyOffset &+ request.keyLength &- start
        let at = count
        append(input.extracting(start..<start &+ length))
        patch(bigEndian: BinaryOpcode.loud(request.opcode), at: at &+ 1)
        patch(bigEndian: UInt32(truncatingIfNeeded: length &- BinaryHeader.bytes), at: at &+ 8)
    }
}

extension BinaryOpcode {
    /// The opcode that does the same and always answers.
    package static func loud(_ opcode: UInt8) -> UInt8 {
        switch opcode {
        case getQuiet: get
        case getKeyQuiet: getKey
        case setQuiet: set
        case addQuiet: add
        case replaceQuiet: replace
        case deleteQuiet: delete
        case incrementQuiet: increment
        case decrementQuiet: decrement
        case appendQuiet: append
        case prependQuiet: prepend
        case getAndTouchQuiet: getAndTouch
        case getAndTouchKeyQuiet: getAndTouchKey
        default: opcode
        }
    }
}
