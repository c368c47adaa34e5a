// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// A command's line: where it starts, where its text ends, where what follows it starts.
struct CommandLine {
    let start: Int
    let textEnd: Int
    let end: Int
    let tokens: Tokenizer

    init(_ input: Span<UInt8>, start: Int, length: Int) {
        self.start = start
        end = start + length
        textEnd = input[end - 2] == UInt8(ascii: "\r") ? end - 2 : end - 1
        tokens = Tokenizer(input.extracting(start..<end))
    }
}

extension RequestParser {
    /// The command of the line of `length` bytes at `offset`, whatever it is; the exact way, for what the fast ways
    /// leave.
    ///
    /// `request` is empty but for where its line starts.
    mutating func line(
        _ input: Span<UInt8>, length: Int, at offset: inout Int, into request: inout Request,
        decodedKeys: inout OutputBuffer
    ) -> ParseOutcome {
        let start = offset
        guard length >= 4 else {
            offset += length
            return refuse(.badCommandLine, &request)
        }
        let textEnd = input[start + length - 2] == UInt8(ascii: "\r") ? start + length - 2 : start + length - 1
        let nameEnd = input.firstOffset(of: UInt8(ascii: " "), from: start, to: textEnd) ?? textEnd
        let known = Self.command(input, start, nameEnd)
        switch known {
        case .metaGet?, .metaSet?, .metaDelete?, .metaArithmetic?:
            guard
                let verb = known,
                let outcome = meta(verb, input, at: &offset, into: &request, decodedKeys: &decodedKeys)
            else { return .close }
            return outcome
        default: break
        }
        let line = CommandLine(input, start: start, length: length)
        offset = line.end
        guard let verb = known else { return lineByFirstToken(line, input, into: &request) }
        request.verb = verb
        switch verb {
        case .get, .gets, .gat, .gats:
            return keys(line, input, at: &offset, into: &request)
        case .set, .add, .replace, .append, .prepend, .cas:
            return storage(line, input, at: &offset, into: &request)
        case .delete, .incr, .decr, .touch:
            return keyed(line, input, into: &request)
        case .metaNoop:
            request.form = .meta
            return .complete
        case .metaDebug:
            return debug(line, input, into: &request, decodedKeys: &decodedKeys)
        case .quit:
            request.traits.insert(.closesAfterReply)
            return .complete
        default:
            request.lineLength = length
            return .complete
        }
    }

    /// The commands that memcached knows by the bytes before the line's first space.
    private static func command(_ input: Span<UInt8>, _ start: Int, _ end: Int) -> Verb? {
        func matches(_ name: StaticString) -> Bool { input.holds(name, at: start) }
        switch end - start {
        case 2:
            if matches("mg") { return .metaGet }
            if matches("ms") { return .metaSet }
            if matches("md") { return .metaDelete }
            if matches("mn") { return .metaNoop }
            if matches("ma") { return .metaArithmetic }
            if matches("me") { return .metaDebug }
        case 3:
            if matches("get") { return .get }
            if matches("gat") { return .gat }
            if matches("set") { return .set }
            if matches("add") { return .add }
            if matches("cas") { return .cas }
        case 4:
            if matches("gets") { return .gets }
            if matches("incr") { return .incr }
            if matches("decr") { return .decr }
            if matches("gats") { return .gats }
            if matches("quit") { return .quit }
        case 5:
            if matches("touch") { return .touch }
            if matches("stats") { return .stats }
            if matches("watch") { return .watch }
        case 6:
            if matches("delete") { return .delete }
            if matches("append") { return .append }
        case 7:
            if matches("replace") { return .replace }
            if matches("prepend") { return .prepend }
            if matches("version") { return .version }
        default: break
        }
        return nil
    }

    /// The commands known by their first token, which spaces may precede; anything else is no command.
    private func lineByFirstToken(
        _ line: CommandLine, _ input: Span<UInt8>, into request: inout Request
    ) -> ParseOutcome {
        let text = input.extracting(line.start..<line.end)
        let tokens = line.tokens
        if tokens.endsWithNoreply(in: text) { request.traits.insert(.quiet) }
        guard let verb = Self.operatorCommand(tokens, text) else {
            let last = tokens.range(tokens.count - 1)
            if tokens.count > 1, last.count >= 5, text.holds("HTTP/", at: last.lowerBound) { return .close }
            return refuse(.error, &request)
        }
        request.verb = verb
        request.lineLength = line.end - line.start
        if verb == .flushAll, tokens.count != (request.isQuiet ? 2 : 1) {
            if let exptime = tokens.int32(1, in: text) {
                request.exptime = Int64(exptime)
            } else {
                request.error = .invalidExptime
            }
        } else if verb == .verbosity {
            guard let level = tokens.uint32(1, in: text) else { return refuse(.badCommandLine, &request) }
            request.delta = UInt64(level)
        }
        return .complete
    }

    private static func operatorCommand(_ tokens: Tokenizer, _ text: Span<UInt8>) -> Verb? {
        func matches(_ name: StaticString) -> Bool { tokens.equals(0, name, in: text) }
        switch tokens.range(0).count {
        case 3:
            if matches("lru") { return .lru }
        case 5:
            if matches("slabs") { return .slabs }
        case 6:
            if matches("config") { return .config }
        case 8:
            if matches("shutdown") { return .shutdown }
            if matches("extstore") { return .extstore }
        case 9:
            if matches("flush_all") { return .flushAll }
            if matches("verbosity") { return .verbosity }
            if matches("debugtime") { return .debugtime }
        case 11:
            if matches("lru_crawler") { return .lruCrawler }
        case 13:
            if matches("refresh_certs") { return .refreshCerts }
        case 14:
            if matches("cache_memlimit") { return .cacheMemlimit }
        default: break
        }
        return nil
    }
}

// MARK: - Commands with keys

extension RequestParser {
    /// get, gets, gat, gats.
    private mutating func keys(
        _ line: CommandLine, _ input: Span<UInt8>, at offset: inout Int, into request: inout Request
    ) -> ParseOutcome {
        let text = input.extracting(line.start..<line.end)
        let touches = request.verb == .gat || request.verb == .gats
        let keyToken = touches ? 2 : 1
        guard line.tokens.count > keyToken else { return refuse(.badCommandLine, &request) }
        if touches {
            guard let exptime = line.tokens.int32(1, in: text) else { return refuse(.invalidExptime, &request) }
            request.exptime = Int64(exptime)
        }
        let key = line.tokens.range(keyToken)
        return beginKeys(
            request.verb, input, firstKey: line.start + key.lowerBound..<line.start + key.upperBound,
            lineEnd: line.textEnd, end: line.end, at: &offset, into: &request)
    }

    /// set, add, replace, append, prepend, cas.
    private func storage(
        _ line: CommandLine, _ input: Span<UInt8>, at offset: inout Int, into request: inout Request
    ) -> ParseOutcome {
        let text = input.extracting(line.start..<line.end)
        let tokens = line.tokens
        guard tokens.count >= 5, let length = tokens.int32(4, in: text), length >= 0,
            length <= ProtocolLimits.valueBytes
        else { return refuse(.badCommandLine, &request) }
        if tokens.endsWithNoreply(in: text) { request.traits.insert(.quiet) }
        let key = tokens.range(1)
        guard key.count <= ProtocolLimits.keyBytes,
            let flags = text.lenientUInt32(tokens.range(2).lowerBound),
            let exptime = text.lenientInt32(tokens.range(3).lowerBound)
        else {
            _ = refuse(.badCommandLine, &request)
            return .swallow(count: Int(length) + 2)
        }
        if request.verb == .cas {
            guard let cas = tokens.uint64(5, in: text) else {
                _ = refuse(.badCommandLine, &request)
                return .swallow(count: Int(length) + 2)
            }
            request.cas = cas
        }
        request.keyOffset = line.start + key.lowerBound
        request.keyLength = key.count
        request.clientFlags = flags
        request.exptime = Int64(exptime)
        return takeValue(input, from: line.end, length: Int(length), at: &offset, into: &request)
    }

    /// delete, incr, decr, touch.
    private func keyed(_ line: CommandLine, _ input: Span<UInt8>, into request: inout Request) -> ParseOutcome {
        let text = input.extracting(line.start..<line.end)
        let tokens = line.tokens
        let needed = request.verb == .delete ? 2 : 3
        guard tokens.count >= needed else { return refuse(.badCommandLine, &request) }
        if tokens.endsWithNoreply(in: text) { request.traits.insert(.quiet) }
        let key = tokens.range(1)
        guard key.count <= ProtocolLimits.keyBytes else { return refuse(.badCommandLine, &request) }
        switch request.verb {
        case .delete: break
        case .touch:
            guard let exptime = tokens.int32(2, in: text) else { return refuse(.invalidExptime, &request) }
            request.exptime = Int64(exptime)
        default:
            guard let delta = tokens.uint64(2, in: text) else { return refuse(.invalidDelta, &request) }
            request.delta = delta
        }
        request.keyOffset = line.start + key.lowerBound
        request.keyLength = key.count
        return .complete
    }

    /// me. (Its `b` counts only where another token follows it.)
    private func debug(
        _ line: CommandLine, _ input: Span<UInt8>, into request: inout Request, decodedKeys: inout OutputBuffer
    ) -> ParseOutcome {
        request.form = .meta
        let tokens = line.tokens
        let key = tokens.range(1)
        guard tokens.count >= 2, key.count <= ProtocolLimits.keyBytes else { return refuse(.badCommandLine, &request) }
        for token in 2..<max(tokens.count, 2) {
            let first = input[line.start + tokens.range(token).lowerBound]
            guard (first > 64 && first < 123) || first &- 48 < 10 else { return refuse(.badCommandLine, &request) }
        }
        request.keyOffset = line.start + key.lowerBound
        request.keyLength = key.count
        let flag = tokens.range(2)
        if tokens.count >= 4, flag.count == 1, input[line.start + flag.lowerBound] == UInt8(ascii: "b") {
            let text = input.extracting(request.keyOffset..<request.keyOffset + key.count)
            request.keyOffset = decodedKeys.count
            request.keyLength = Base64.decode(text, into: &decodedKeys)
            request.traits.insert(.keyIsDecoded)
            if request.keyLength == 0 { return refuse(.badCommandLine, &request) }
        }
        return .complete
    }
}
