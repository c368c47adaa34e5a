// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// A token of a meta line; an empty one stands for the line's end.
private struct MetaToken {
    var start: Int
    var count: Int
    var end: Int { @inline(__always) get { start &+ count } }
}

/// What a meta line came to so far. Which fault is answered depends on all of the line, so faults are noted, not
/// returned.
private struct MetaLine {
    var key: MetaToken
    /// Tokens so far, the command's name included.
    var tokens = 2
    /// Bytes of the data block that `ms` announces; nil when that is no number.
    var announced: Int32? = 0
    /// A token that begins with no letter and no digit: the line counts as no command at all.
    var isMalformed = false
    /// The flag that ended the reading of flags: a repeated or an unknown one.
    var fatal: ErrorReply = .none
    /// The last fault in a flag's argument.
    var fault: ErrorReply = .none
    var opaqueIsTooLong = false
    var stepShift: UInt64 = 0
}

extension RequestParser {
    /// `mg`, `ms`, `md` or `ma` at `offset`, the name's length and one byte after it taken as read; nil when the line
    /// is not all there, or too long.
    @inline(__always)
    func meta(
        _ verb: Verb, _ input: Span<UInt8>, at offset: inout Int, into request: inout Request,
        decodedKeys: inout OutputBuffer
    ) -> ParseOutcome? {
        var cursor = offset &+ 3
        guard let key = nextToken(input, &cursor) else { return nil }
        request = Request()
        request.form = .meta
        request.verb = verb
        request.lineOffset = offset
        request.keyOffset = key.start
        request.delta = 1
        var line = MetaLine(key: key)
        var isShort = key.count == 0
        if verb == .metaSet, !isShort {
            guard let length = nextToken(input, &cursor) else { return nil }
            isShort = length.count == 0
            line.tokens = 3
            line.announced = input.int32(length.start, length.end)
        }
        if isShort {
            guard cursor &- offset <= ProtocolLimits.lineBytes else { return nil }
            offset = cursor
            return refuse(.badCommandLine, &request)
        }
        while let token = nextToken(input, &cursor) {
            if token.count == 0 {
                guard cursor &- offset <= ProtocolLimits.lineBytes else { return nil }
                offset = cursor
                return finish(line, input, at: &offset, into: &request)
            }
            line.tokens &+= 1
            if line.tokens <= ProtocolLimits.tokens {
                take(token, input, &line, into: &request, decodedKeys: &decodedKeys)
            }
        }
        return nil
    }

    /// The next token, with `cursor` moved to what ends it, or past the line feed for the empty token at the line's
    /// end; nil when the input ends first.
    @inline(__always)
    private func nextToken(_ input: Span<UInt8>, _ cursor: inout Int) -> MetaToken? {
        while cursor < input.count, input[cursor] == UInt8(ascii: " ") { cursor &+= 1 }
        let start = cursor
        // Most flags are one letter.
        if start &+ 1 < input.count, input[start &+ 1] == UInt8(ascii: " "), input[start] != UInt8(ascii: "\n") {
            cursor = start &+ 1
            return MetaToken(start: start, count: 1)
        }
        let end = input.tokenEnd(from: start)
        guard end < input.count else { return nil }
        if input[end] == UInt8(ascii: " ") {
            cursor = end
            return MetaToken(start: start, count: end &- start)
        }
        let tokenEnd = end > start && input[end &- 1] == UInt8(ascii: "\r") ? end &- 1 : end
        cursor = tokenEnd == start ? end &+ 1 : end
        return MetaToken(start: start, count: tokenEnd &- start)
    }

    /// Reads one flag.
    @inline(__always)
    private func take(
        _ token: MetaToken, _ input: Span<UInt8>, _ line: inout MetaLine, into request: inout Request,
        decodedKeys: inout OutputBuffer
    ) {
        let letter = input[token.start]
        guard letter >= UInt8(ascii: "A"), letter <= UInt8(ascii: "z") else {
            // A digit passes the tokenizer, but no flag is one.
            if letter &- 48 >= 10 { line.isMalformed = true } else if line.fatal.isNone { line.fatal = .invalidFlag }
            return
        }
        guard line.fatal.isNone else { return }
        let option = MetaOptions(letter: letter)
        guard request.options.isDisjoint(with: option) else {
            line.fatal = .duplicateFlag
            return
        }
        request.options.formUnion(option)
        switch letter {
        case UInt8(ascii: "v"), UInt8(ascii: "u"), UInt8(ascii: "x"), UInt8(ascii: "I"), UInt8(ascii: "P"),
            UInt8(ascii: "L"):
            break
        case UInt8(ascii: "q"): request.traits.insert(.quiet)
        case UInt8(ascii: "t"): note(.ttl, &line, &request)
        case UInt8(ascii: "c"): note(.cas, &line, &request)
        case UInt8(ascii: "f"): note(.clientFlags, &line, &request)
        case UInt8(ascii: "k"): note(.key, &line, &request)
        case UInt8(ascii: "s"): note(.size, &line, &request)
        case UInt8(ascii: "h"): note(.hitBefore, &line, &request)
        case UInt8(ascii: "l"): note(.lastAccess, &line, &request)
        case UInt8(ascii: "O"):
            line.opaqueIsTooLong = token.count > ProtocolLimits.opaqueBytes
            request.opaqueOffset = token.start
            request.opaqueLength = min(token.count, ProtocolLimits.opaqueBytes)
            note(.opaque, &line, &request)
        case UInt8(ascii: "M"): request.mode = input[token.start &+ 1]
        default: takeArgument(letter, token, input, &line, into: &request, decodedKeys: &decodedKeys)
        }
    }

    /// Reads a flag that has a number or decodes the key.
    private func takeArgument(
        _ letter: UInt8, _ token: MetaToken, _ input: Span<UInt8>, _ line: inout MetaLine, into request: inout Request,
        decodedKeys: inout OutputBuffer
    ) {
        let start = token.start &+ 1
        let isBare = token.count == 1
        switch letter {
        case UInt8(ascii: "T"), UInt8(ascii: "N"), UInt8(ascii: "R"):
            guard !isBare, let seconds = input.int32(start, token.end) else { return line.fault = .badToken }
            switch letter {
            case UInt8(ascii: "T"):
                request.exptime = Int64(seconds)
                note(.setTTL, &line, &request)
            case UInt8(ascii: "N"):
                request.vivifyTTL = seconds
                note(.vivify, &line, &request)
            default:
                request.recacheTTL = seconds
                note(.recache, &line, &request)
            }
        case UInt8(ascii: "C"), UInt8(ascii: "E"), UInt8(ascii: "J"), UInt8(ascii: "D"):
            let fault: ErrorReply =
                letter == UInt8(ascii: "J")
                ? .invalidInitialFlag : letter == UInt8(ascii: "D") ? .invalidDeltaFlag : .badToken
            guard !isBare, let value = input.uint64(start, token.end) else { return line.fault = fault }
            switch letter {
            case UInt8(ascii: "C"): request.cas = value
            case UInt8(ascii: "E"): request.casIn = value
            case UInt8(ascii: "J"): request.initial = value
            default: request.delta = value
            }
        case UInt8(ascii: "F"):
            // memcached notes this fault without a text of its own: an earlier one's stays.
            guard !isBare, let flags = input.uint32(start, token.end) else {
                if line.fault.isNone { line.fault = .badCommandLine }
                return
            }
            request.clientFlags = flags
        case UInt8(ascii: "b"):
            guard line.key.count <= ProtocolLimits.keyBytes else { return }
            request.keyOffset = decodedKeys.count
            request.keyLength = Base64.decode(input.extracting(line.key.start..<line.key.end), into: &decodedKeys)
            request.traits.insert(.keyIsDecoded)
            if request.keyLength == 0 { line.fault = .badKeyEncoding }
        default:
            line.fatal = .invalidFlag
        }
    }

    /// Adds a step to the reply, if `request` is of a kind that answers it.
    @inline(__always)
    private func note(_ step: MetaStep, _ line: inout MetaLine, _ request: inout Request) {
        let answered: UInt16
        switch request.verb {
        case .metaGet: answered = 0xffff
        case .metaSet: answered = Self.bit(.opaque) | Self.bit(.key) | Self.bit(.cas) | Self.bit(.size)
        case .metaDelete: answered = Self.bit(.opaque) | Self.bit(.key)
        default:
            answered =
                Self.bit(.opaque) | Self.bit(.key) | Self.bit(.cas) | Self.bit(.ttl) | Self.bit(.setTTL)
                | Self.bit(.vivify)
        }
        guard answered & Self.bit(step) != 0 else { return }
        request.steps.rawValue |= UInt64(step.rawValue) &<< line.stepShift
        line.stepShift &+= 4
    }

    @inline(__always)
    private static func bit(_ step: MetaStep) -> UInt16 { 1 &<< UInt16(step.rawValue) }

    /// Decides what the line, read to its end, is: a request or one of its faults.
    @inline(__always)
    private func finish(
        _ line: MetaLine, _ input: Span<UInt8>, at offset: inout Int, into request: inout Request
    ) -> ParseOutcome {
        guard !line.isMalformed, let announced = line.announced, announced >= 0,
            announced <= ProtocolLimits.valueBytes
        else {
            request.traits = []
            return refuse(.badCommandLine, &request)
        }
        if !request.traits.contains(.keyIsDecoded) { request.keyLength = min(line.key.count, ProtocolLimits.keyBytes) }
        let error = fault(line, &request)
        if !error.isNone {
            let hasValue = request.verb == .metaSet
            // No fault of a meta command is hidden by q.
            request.traits = []
            _ = refuse(error, &request)
            return hasValue ? .swallow(count: Int(announced) + 2) : .complete
        }
        guard request.verb == .metaSet else {
            if request.verb == .metaGet, request.traits.contains(.quiet) { request.traits.insert(.hidesMiss) }
            return .complete
        }
        return takeValue(input, from: offset, length: Int(announced), at: &offset, into: &request)
    }

    /// The fault to answer, in memcached's order; makes the mode canonical.
    private func fault(_ line: MetaLine, _ request: inout Request) -> ErrorReply {
        var error: ErrorReply
        if line.key.count > ProtocolLimits.keyBytes {
            error = .badCommandLine
        } else if line.tokens > ProtocolLimits.metaTokens {
            error = .optionsTooLong
        } else {
            error = line.fatal.isNone ? line.fault : line.fatal
        }
        switch (request.verb, request.mode) {
        case (.metaArithmetic, _) where !error.isNone: error = .invalidOrDuplicateFlag
        case _ where !error.isNone: break
        case (.metaSet, 0), (.metaSet, UInt8(ascii: "S")): request.mode = UInt8(ascii: "S")
        case (.metaSet, UInt8(ascii: "E")), (.metaSet, UInt8(ascii: "A")), (.metaSet, UInt8(ascii: "P")),
            (.metaSet, UInt8(ascii: "R")):
            break
        case (.metaSet, _): error = .invalidSetMode
        case (.metaArithmetic, 0), (.metaArithmetic, UInt8(ascii: "I")), (.metaArithmetic, UInt8(ascii: "+")):
            request.mode = UInt8(ascii: "I")
        case (.metaArithmetic, UInt8(ascii: "D")), (.metaArithmetic, UInt8(ascii: "-")):
            request.mode = UInt8(ascii: "D")
        case (.metaArithmetic, _): error = .invalidArithmeticMode
        default: break
        }
        return error.isNone && line.opaqueIsTooLong ? .opaqueTooLong : error
    }
}
