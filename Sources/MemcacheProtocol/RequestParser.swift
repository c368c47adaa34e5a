// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Memory

/// What a look at the input came to.
@usableFromInline
package enum ParseOutcome: Sendable, Equatable {
    /// The request is filled; the offset is past it, and past its data block.
    case complete
    /// The request is not all there, nothing was consumed. Not worth another call before `needed` bytes lie from the
    /// offset on, or any more at all when it is 0.
    case incomplete(needed: Int)
    /// The command of a request that stores is filled, and the offset is where its data block starts, but the block
    /// (and in text the line end after it) is not all there. Whoever executes takes ``Request/valueLength`` bytes, then
    /// in text forms two more, which must be a line end or the answer is ``ErrorReply/badDataChunk``. To wait for the
    /// rest instead, set the offset back to ``Request/lineOffset``: the parser has not moved on.
    case valuePending
    /// The request is a ``Verb/protocolError``, and the next `count` bytes, here or still to come, are to be skipped.
    case swallow(count: Int)
    /// Close without an answer, as memcached does: a line too long, HTTP, a binary request with a wrong first byte.
    case close
}

/// What a ``RequestParser`` is told about its connection.
@usableFromInline
package struct RequestParserConfiguration: Sendable {
    /// Which protocols a connection may speak.
    @usableFromInline
    package enum Restriction: Sendable {
        /// The first byte decides, once for the connection.
        case automatic
        /// Text only (classic and meta).
        case text
        /// Binary only.
        case binary
    }

    /// What a connection may speak.
    package var restriction: Restriction
    /// The longest `get` or `gets` line in bytes; a longer one closes the connection. (memcached has no limit.)
    package var getLineBytes: Int

    /// The rules for a listener.
    package init(restriction: Restriction = .automatic, getLineBytes: Int = 64 << 20) {
        self.restriction = restriction
        self.getLineBytes = getLineBytes
    }
}

/// Cuts a connection's input into requests. One parser for each connection; 48 bytes, no allocation.
///
/// A `get` line with several keys yields a request for each, and the parser keeps its place in the line: the offset
/// always stands at what is left of it, and bytes before the offset are never looked at again. Texts, limits and
/// oddities are memcached 1.6.45's (proto_parser.c, proto_text.c, proto_bin.c). Known differences, on purpose:
///
/// - A `get` with a key that is too long answers one line, and the replies of requests before it are sent. (1.6.45
///   sends an empty line as well and drops replies not yet sent.)
/// - `mg` and `ma` with an opaque that is too long are refused before they act, not afterwards.
@usableFromInline
package struct RequestParser: Sendable {
    enum State: UInt8, Sendable {
        /// Nothing came yet.
        case fresh
        case text, binary
        /// In the middle of a `get` line.
        case keys
    }

    var state: State
    /// Text: how many bytes from the offset on are known to have no line feed.
    var scanned = 0
    /// In a `get` line: bytes from the offset to the line's end, and of the line end itself.
    var keysLeft = 0
    var lineEndLength = 0
    var keysVerb: Verb = .get
    var keysExptime: Int32 = 0
    let getLineBytes: Int

    /// A parser at the start of a connection.
    package init(_ configuration: RequestParserConfiguration = RequestParserConfiguration()) {
        getLineBytes = configuration.getLineBytes
        switch configuration.restriction {
        case .automatic: state = .fresh
        case .text: state = .text
        case .binary: state = .binary
        }
    }

    /// The protocol of the connection: nil before its first byte.
    package var isBinary: Bool? {
        switch state {
        case .fresh: nil
        case .binary: true
        case .text, .keys: false
        }
    }

    /// Looks at `input` from `offset` on, fills `request` and moves `offset` past what it used.
    ///
    /// `input` may be moved and cut off before `offset` between calls; what was from `offset` on must stay. A base64
    /// key is appended to `decodedKeys`, which the caller empties before a batch. Any byte may come: what is no command
    /// of memcached's gets memcached's refusal. Takes time linear in the input, whatever the lines and however they
    /// arrive.
    package mutating func next(
        _ input: Span<UInt8>, at offset: inout Int, into request: inout Request, decodedKeys: inout OutputBuffer
    ) -> ParseOutcome {
        precondition(offset >= 0 && offset <= input.count, "offset outside of the input")
        guard offset < input.count else { return .incomplete(needed: 0) }
        switch state {
        case .text:
            return nextText(input, at: &offset, into: &request, decodedKeys: &decodedKeys)
        case .keys:
            return nextKey(input, at: &offset, into: &request)
        case .binary:
            return nextBinary(input, at: &offset, into: &request)
        case .fresh:
            state = input[offset] == BinaryHeader.requestMagic ? .binary : .text
            return next(input, at: &offset, into: &request, decodedKeys: &decodedKeys)
        }
    }
}

// MARK: - Text: the common commands, and lines

extension RequestParser {
    /// The command at `offset`: the common ones straight from its bytes, all others as a line.
    private mutating func nextText(
        _ input: Span<UInt8>, at offset: inout Int, into request: inout Request, decodedKeys: inout OutputBuffer
    ) -> ParseOutcome {
        if scanned == 0, input.count &- offset >= 8 {
            let start = input.word(at: offset)
            var outcome: ParseOutcome?
            switch UInt32(truncatingIfNeeded: start) {
            case CommandWord.get:
                outcome = fastGet(.get, input, key: offset &+ 4, at: &offset, into: &request)
            case CommandWord.set:
                outcome = fastSet(input, key: offset &+ 4, at: &offset, into: &request)
            case CommandWord.gets where UInt8(truncatingIfNeeded: start &>> 32) == UInt8(ascii: " "):
                outcome = fastGet(.gets, input, key: offset &+ 5, at: &offset, into: &request)
            default:
                switch UInt32(truncatingIfNeeded: start) & 0xff_ffff {
                case CommandWord.mg:
                    outcome = meta(.metaGet, input, at: &offset, into: &request, decodedKeys: &decodedKeys)
                case CommandWord.ms:
                    outcome = meta(.metaSet, input, at: &offset, into: &request, decodedKeys: &decodedKeys)
                case CommandWord.md:
                    outcome = meta(.metaDelete, input, at: &offset, into: &request, decodedKeys: &decodedKeys)
                case CommandWord.ma:
                    outcome = meta(.metaArithmetic, input, at: &offset, into: &request, decodedKeys: &decodedKeys)
                default: break
                }
            }
            if let outcome { return outcome }
        }
        return nextLine(input, at: &offset, into: &request, decodedKeys: &decodedKeys)
    }

    /// A command by its whole line, if that is there.
    private mutating func nextLine(
        _ input: Span<UInt8>, at offset: inout Int, into request: inout Request, decodedKeys: inout OutputBuffer
    ) -> ParseOutcome {
        let searchStart = offset &+ scanned
        guard let feed = input.firstOffset(of: UInt8(ascii: "\n"), from: searchStart, to: input.count) else {
            let available = input.count &- offset
            guard available <= ProtocolLimits.unterminatedBytes || mayBeLong(input, offset, length: available) else {
                return .close
            }
            scanned = available
            return .incomplete(needed: 0)
        }
        let length = feed &+ 1 &- offset
        guard length <= ProtocolLimits.lineBytes || mayBeLong(input, offset, length: length) else { return .close }
        scanned = 0
        request = Request()
        request.lineOffset = offset
        return line(input, length: length, at: &offset, into: &request, decodedKeys: &decodedKeys)
    }

    /// Whether the line at `offset`, `length` bytes so far, may be longer than the limits: a get that is not too long
    /// either.
    private func mayBeLong(_ input: Span<UInt8>, _ offset: Int, length: Int) -> Bool {
        guard length <= getLineBytes else { return false }
        var start = offset
        while start &- offset <= ProtocolLimits.leadingSpaces, input[start] == UInt8(ascii: " ") { start &+= 1 }
        guard start &- offset <= ProtocolLimits.leadingSpaces else { return false }
        return input.holds("get ", at: start) || input.holds("gets ", at: start)
    }
}

/// The first bytes of the common commands as little-endian words.
enum CommandWord {
    static let get: UInt32 = 0x20_746567
    static let set: UInt32 = 0x20_746573
    static let gets: UInt32 = 0x73_746567
    static let mg: UInt32 = 0x20_676d
    static let ms: UInt32 = 0x20_736d
    static let md: UInt32 = 0x20_646d
    static let ma: UInt32 = 0x20_616d
}

// MARK: - get

extension RequestParser {
    /// A get of one key whose line is there and holds nothing else; nil for everything else.
    @inline(__always)
    private func fastGet(
        _ verb: Verb, _ input: Span<UInt8>, key: Int, at offset: inout Int, into request: inout Request
    ) -> ParseOutcome? {
        guard let (length, end) = Self.onlyKey(input, at: key) else { return nil }
        request = Request()
        request.verb = verb
        request.lineOffset = offset
        request.keyOffset = key
        request.keyLength = length
        request.traits = .lastKey
        offset = end
        return .complete
    }

    /// The length of the key at `key`, and where the next line begins, where the line is there and holds nothing else.
    @inline(__always)
    private static func onlyKey(_ input: Span<UInt8>, at key: Int) -> (length: Int, end: Int)? {
        let end = input.tokenEnd(from: key)
        guard end < input.count, end > key, input[end] == UInt8(ascii: "\n") else { return nil }
        let keyEnd = input[end &- 1] == UInt8(ascii: "\r") ? end &- 1 : end
        guard keyEnd > key, keyEnd &- key <= ProtocolLimits.keyBytes else { return nil }
        return (keyEnd &- key, end &+ 1)
    }

    /// Moves `offset` past the next request where that is a classic `get` of one key and all there, as most requests
    /// are: for those who answer it without a look at it. False, and nothing moves, for everything else.
    package func skipPlainGet(_ input: Span<UInt8>, at offset: inout Int) -> Bool {
        guard state == .text, scanned == 0, input.count &- offset >= 8,
            UInt32(truncatingIfNeeded: input.word(at: offset)) == CommandWord.get,
            let (_, end) = Self.onlyKey(input, at: offset &+ 4)
        else { return false }
        offset = end
        return true
    }

    /// Starts on the keys of a get line and yields the first. `firstKey` is cut out of the line by the tokenizer.
    mutating func beginKeys(
        _ verb: Verb, _ input: Span<UInt8>, firstKey: Range<Int>, lineEnd: Int, end: Int, at offset: inout Int,
        into request: inout Request
    ) -> ParseOutcome {
        guard firstKey.count <= ProtocolLimits.keyBytes, !hasLongKey(input, from: firstKey.upperBound, to: lineEnd)
        else {
            offset = end
            return refuse(.badCommandLine, &request)
        }
        state = .keys
        keysVerb = verb
        keysExptime = Int32(truncatingIfNeeded: request.exptime)
        lineEndLength = end &- lineEnd
        yield(firstKey, input, lineEnd: lineEnd, at: &offset, into: &request)
        return .complete
    }

    /// The next key of the line that the parser is in.
    private mutating func nextKey(
        _ input: Span<UInt8>, at offset: inout Int, into request: inout Request
    ) -> ParseOutcome {
        // The line was all there when its first key was yielded, and what is from the offset on stays.
        let lineEnd = offset &+ keysLeft
        precondition(lineEnd &+ lineEndLength <= input.count, "input was cut off in the middle of a line")
        request = Request()
        request.lineOffset = offset
        request.exptime = Int64(keysExptime)
        yield(offset..<min(input.tokenEnd(from: offset), lineEnd), input, lineEnd: lineEnd, at: &offset, into: &request)
        return .complete
    }

    private mutating func yield(
        _ key: Range<Int>, _ input: Span<UInt8>, lineEnd: Int, at offset: inout Int, into request: inout Request
    ) {
        request.verb = keysVerb
        request.keyOffset = key.lowerBound
        request.keyLength = key.count
        var next = key.upperBound
        while next < lineEnd, input[next] == UInt8(ascii: " ") { next &+= 1 }
        if next < lineEnd {
            keysLeft = lineEnd &- next
            offset = next
        } else {
            request.traits = .lastKey
            state = .text
            keysLeft = 0
            offset = lineEnd &+ lineEndLength
        }
    }

    /// Whether a token of [start, end) is longer than a key may be.
    ///
    /// From the start of a token, the last space within reach of a key tells that everything before it is short enough:
    /// a few bytes in 250 are looked at.
    private func hasLongKey(_ input: Span<UInt8>, from start: Int, to end: Int) -> Bool {
        var index = start
        while end &- index > ProtocolLimits.keyBytes {
            var space = index &+ ProtocolLimits.keyBytes
            while space >= index, input[space] != UInt8(ascii: " ") { space &-= 1 }
            if space < index { return true }
            index = space &+ 1
        }
        return false
    }

    /// Makes `request` a refusal with `error`.
    func refuse(_ error: ErrorReply, _ request: inout Request) -> ParseOutcome {
        request.verb = .protocolError
        request.error = error
        // Nobody looks for the key of what is refused.
        request.traits.remove(.keyIsDecoded)
        return .complete
    }
}
