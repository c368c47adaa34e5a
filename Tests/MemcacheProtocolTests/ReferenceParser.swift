// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc
import MemcacheProtocol

/// A second parser of the same protocols, written for being obviously right: whole streams, arrays, one rule a line.
///
/// It shares no code with the real one. What it does is what memcached 1.6.45 was read and seen to do.
struct ReferenceParser {
    private let stream: [UInt8]
    private var at = 0
    private var events: [Event] = []
    private var closed = false

    static func events(
        of stream: [UInt8], restriction: RequestParserConfiguration.Restriction = .automatic
    ) -> [Event] {
        var parser = ReferenceParser(stream: stream)
        guard let first = stream.first else { return [] }
        let binary = restriction == .binary || (restriction == .automatic && first == 0x80)
        while !parser.closed, parser.at < stream.count {
            guard binary ? parser.binaryRequest() : parser.textLine() else { break }
        }
        return parser.events
    }

    private init(stream: [UInt8]) { self.stream = stream }

    private mutating func emit(_ event: Event) {
        events.append(event)
        if event.traits.contains(.closesAfterReply) { closed = true }
    }

    private mutating func refuse(
        _ error: ErrorReply, form: ProtocolForm = .classic, quiet: Bool = false, swallow: Int = 0
    ) {
        var event = Event()
        event.form = form
        event.error = error
        if quiet { event.traits.insert(.quiet) }
        event.swallowed = swallow
        emit(event)
        at = min(at + swallow, stream.count)
    }

    private mutating func close() {
        events.append(.close)
        closed = true
    }

    /// Takes the data block of `event`, and in text the line end after it.
    private mutating func store(_ event: Event, length: Int) {
        var event = event
        let tail = event.form == .binary ? 0 : 2
        guard at + length + tail <= stream.count else {
            event.kind = .truncated
            closed = true
            return emit(event)
        }
        event.value = Array(stream[at..<at + length])
        if tail == 2, stream[at + length..<at + length + 2] != [13, 10] { event.error = .badDataChunk }
        at += length + tail
        emit(event)
    }
}

// MARK: - Numbers

private func strict(_ token: [UInt8], _ range: ClosedRange<Int64>, longest: Int) -> Int64? {
    guard token.count <= longest else { return nil }
    var digits = token[...]
    let negative = digits.first == UInt8(ascii: "-") && range.lowerBound < 0
    if negative { digits = digits.dropFirst() }
    guard digits.allSatisfy({ $0 >= 48 && $0 <= 57 }) else { return nil }
    let text = String(decoding: digits, as: UTF8.self)
    guard let value = Int64((negative ? "-0" : "0") + text), range.contains(value) else { return nil }
    return value
}

private func number32(_ token: [UInt8]) -> Int32? {
    strict(token, Int64(Int32.min)...Int64(Int32.max), longest: 11).map(Int32.init)
}

private func unsigned32(_ token: [UInt8]) -> UInt32? {
    strict(token, 0...Int64(UInt32.max), longest: 11).map(UInt32.init)
}

private func unsigned64(_ token: [UInt8]) -> UInt64? {
    guard token.count <= 22, token.allSatisfy({ $0 >= 48 && $0 <= 57 }) else { return nil }
    return UInt64("0" + String(decoding: token, as: UTF8.self))
}

/// C's own conversion, with what memcached asks of it.
private func library<T>(
    _ text: ArraySlice<UInt8>,
    _ convert: (UnsafePointer<CChar>, UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> T
) -> (value: T, sawMinus: Bool)? {
    let characters = text.map { CChar(bitPattern: $0) } + [0]
    return unsafe characters.withUnsafeBufferPointer { buffer in
        guard let start = buffer.baseAddress else { return nil }
        var end: UnsafeMutablePointer<CChar>?
        errno = 0
        let value = unsafe withUnsafeMutablePointer(to: &end) { unsafe convert(start, $0) }
        guard errno != ERANGE, let stop = unsafe end, unsafe stop != UnsafeMutablePointer(mutating: start) else {
            return nil
        }
        let next = unsafe stop.pointee
        guard next == 0 || isspace(Int32(UInt8(bitPattern: next))) != 0 else { return nil }
        let length = unsafe UnsafePointer(stop) - start
        return (value, text.prefix(length).contains(UInt8(ascii: "-")))
    }
}

private func libraryUInt32(_ text: ArraySlice<UInt8>) -> UInt32? {
    guard let (value, sawMinus) = unsafe library(text, { unsafe strtoul($0, $1, 10) }) else { return nil }
    if Int(bitPattern: value) < 0, sawMinus { return nil }
    return UInt32(truncatingIfNeeded: value)
}

private func libraryInt32(_ text: ArraySlice<UInt8>) -> Int32? {
    unsafe library(text) { unsafe strtol($0, $1, 10) }.map { Int32(truncatingIfNeeded: $0.value) }
}

// MARK: - Text

extension ReferenceParser {
    private struct Line {
        var bytes: [UInt8]
        var text: [UInt8]
        var tokens: [[UInt8]]
        var starts: [Int]

        init(_ bytes: [UInt8]) {
            self.bytes = bytes
            text = bytes
            text.removeLast()
            if text.last == 13 { text.removeLast() }
            var looked = Array(bytes.prefix(65534))
            looked.removeLast(looked.dropLast().last == 13 ? 2 : 1)
            let parts = looked.split(separator: 32).prefix(23)
            tokens = parts.map(Array.init)
            starts = parts.map(\.startIndex)
        }

        func token(_ index: Int) -> [UInt8] { index < tokens.count ? tokens[index] : [] }
        var noreply: Bool { tokens.last == Array("noreply".utf8) }
    }

    private func startsLongGet(_ bytes: ArraySlice<UInt8>) -> Bool {
        let rest = bytes.drop { $0 == 32 }
        return rest.startIndex - bytes.startIndex <= 100
            && (rest.starts(with: Array("get ".utf8)) || rest.starts(with: Array("gets ".utf8)))
    }

    /// One line; false when it is not there to its end.
    private mutating func textLine() -> Bool {
        let rest = stream[at...]
        guard let feed = rest.firstIndex(of: 10) else {
            if rest.count > 2048, !startsLongGet(rest) { close() }
            return false
        }
        let line = Line(Array(stream[at...feed]))
        if line.bytes.count > 16384, !startsLongGet(rest) {
            close()
            return false
        }
        at = feed + 1
        command(line)
        return true
    }

    private mutating func command(_ line: Line) {
        guard line.bytes.count >= 4 else { return refuse(.badCommandLine) }
        let name = String(decoding: line.text.prefix { $0 != 32 }, as: UTF8.self)
        switch name {
        case "get", "gets": keys(line, name == "get" ? .get : .gets, first: 1)
        case "gat", "gats": keys(line, name == "gat" ? .gat : .gats, first: 2)
        case "set": storage(line, .set)
        case "add": storage(line, .add)
        case "replace": storage(line, .replace)
        case "append": storage(line, .append)
        case "prepend": storage(line, .prepend)
        case "cas": storage(line, .cas)
        case "delete", "incr", "decr", "touch": keyed(line, name)
        case "mg": meta(line, .metaGet)
        case "ms": meta(line, .metaSet)
        case "md": meta(line, .metaDelete)
        case "ma": meta(line, .metaArithmetic)
        case "me": debug(line)
        case "mn": emit(event(.metaNoop, .meta))
        case "quit":
            var quit = event(.quit)
            quit.traits = .closesAfterReply
            emit(quit)
        case "version", "stats", "watch":
            var plain = event(name == "version" ? .version : name == "stats" ? .stats : .watch)
            plain.line = line.bytes
            emit(plain)
        default: operators(line)
        }
    }

    private func event(_ verb: Verb, _ form: ProtocolForm = .classic, quiet: Bool = false) -> Event {
        var event = Event()
        event.verb = verb
        event.form = form
        if quiet { event.traits.insert(.quiet) }
        return event
    }

    private static let operatorVerbs: [String: Verb] = [
        "shutdown": .shutdown, "slabs": .slabs, "cache_memlimit": .cacheMemlimit, "debugtime": .debugtime,
        "flush_all": .flushAll, "lru_crawler": .lruCrawler, "verbosity": .verbosity, "lru": .lru,
        "extstore": .extstore, "refresh_certs": .refreshCerts, "config": .config,
    ]

    private mutating func operators(_ line: Line) {
        guard let verb = Self.operatorVerbs[String(decoding: line.token(0), as: UTF8.self)] else {
            if line.tokens.count > 1, let last = line.tokens.last, last.starts(with: Array("HTTP/".utf8)) {
                return close()
            }
            return refuse(.error, quiet: line.noreply)
        }
        var event = event(verb, quiet: line.noreply)
        event.line = line.bytes
        if verb == .verbosity {
            guard let level = unsigned32(line.token(1)), line.tokens.count > 1 else {
                return refuse(.badCommandLine, quiet: line.noreply)
            }
            event.delta = UInt64(level)
        }
        if verb == .flushAll, line.tokens.count != (line.noreply ? 2 : 1) {
            if let exptime = number32(line.token(1)) {
                event.exptime = Int64(exptime)
            } else {
                event.error = .invalidExptime
            }
        }
        emit(event)
    }

    private mutating func keys(_ line: Line, _ verb: Verb, first: Int) {
        guard line.tokens.count > first else { return refuse(.badCommandLine) }
        var exptime: Int32 = 0
        if first == 2 {
            guard let seconds = number32(line.token(1)) else { return refuse(.invalidExptime) }
            exptime = seconds
        }
        let firstKey = line.token(first)
        let rest = line.text[(line.starts[first] + firstKey.count)...]
        let keys = [firstKey] + rest.split(separator: 32).map(Array.init)
        guard keys.allSatisfy({ $0.count <= 250 }) else { return refuse(.badCommandLine) }
        for (index, key) in keys.enumerated() {
            var event = event(verb)
            event.key = key
            event.exptime = Int64(exptime)
            if index == keys.count - 1 { event.traits.insert(.lastKey) }
            emit(event)
        }
    }

    private mutating func storage(_ line: Line, _ verb: Verb) {
        guard line.tokens.count >= 5, let length = number32(line.token(4)), length >= 0, length <= Int32.max - 2 else {
            return refuse(.badCommandLine)
        }
        var event = event(verb, quiet: line.noreply)
        event.key = line.token(1)
        guard event.key.count <= 250, let flags = libraryUInt32(line.bytes[line.starts[2]...]),
            let exptime = libraryInt32(line.bytes[line.starts[3]...])
        else { return refuse(.badCommandLine, quiet: line.noreply, swallow: Int(length) + 2) }
        event.clientFlags = flags
        event.exptime = Int64(exptime)
        if verb == .cas {
            guard line.tokens.count > 5, let cas = unsigned64(line.token(5)) else {
                return refuse(.badCommandLine, quiet: line.noreply, swallow: Int(length) + 2)
            }
            event.cas = cas
        }
        store(event, length: Int(length))
    }

    private mutating func keyed(_ line: Line, _ name: String) {
        guard line.tokens.count >= (name == "delete" ? 2 : 3) else { return refuse(.badCommandLine) }
        let verb: Verb = name == "delete" ? .delete : name == "incr" ? .incr : name == "decr" ? .decr : .touch
        var event = event(verb, quiet: line.noreply)
        event.key = line.token(1)
        guard event.key.count <= 250 else { return refuse(.badCommandLine, quiet: line.noreply) }
        if name == "touch" {
            guard let exptime = number32(line.token(2)) else { return refuse(.invalidExptime, quiet: line.noreply) }
            event.exptime = Int64(exptime)
        } else if name != "delete" {
            guard let delta = unsigned64(line.token(2)) else { return refuse(.invalidDelta, quiet: line.noreply) }
            event.delta = delta
        }
        emit(event)
    }
}

// MARK: - Meta

private let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
/// What a letter stands for; nil for other bytes.
private let values: [UInt32?] = {
    var values = [UInt32?](repeating: nil, count: 256)
    for (value, letter) in alphabet.enumerated() { values[Int(letter)] = UInt32(value) }
    return values
}()

/// Base64 by text, as memcached takes it: other bytes are skipped, padding ends it.
func referenceDecode(_ text: [UInt8]) -> [UInt8]? {
    let letters = text.filter { values[Int($0)] != nil || $0 == UInt8(ascii: "=") }
    guard !letters.isEmpty, letters.count % 4 == 0 else { return nil }
    var result: [UInt8] = []
    for group in stride(from: 0, to: letters.count, by: 4) {
        let four = Array(letters[group..<group + 4])
        let bits = four.map { letter in values[Int(letter)] ?? 0 }
        let word = bits[0] << 18 | bits[1] << 12 | bits[2] << 6 | bits[3]
        let three = [UInt8(word >> 16), UInt8(word >> 8 & 255), UInt8(word & 255)]
        let padding = four.count { $0 == UInt8(ascii: "=") }
        if padding > 2 { return nil }
        result += three.dropLast(padding)
        if padding > 0 { break }
    }
    return result
}

extension ReferenceParser {
    /// Whether the tokenizer of meta lines takes the flags from token `first` on.
    private func areFlags(_ line: Line, from first: Int) -> Bool {
        line.tokens.dropFirst(first).allSatisfy { token in
            guard let letter = token.first else { return false }
            return (letter > 64 && letter < 123) || (letter >= 48 && letter <= 57)
        }
    }

    private mutating func debug(_ line: Line) {
        guard line.tokens.count >= 2, areFlags(line, from: 2), line.token(1).count <= 250 else {
            return refuse(.badCommandLine, form: .meta)
        }
        var event = event(.metaDebug, .meta)
        event.key = line.token(1)
        if line.tokens.count >= 4, line.token(2) == [UInt8(ascii: "b")] {
            guard let key = referenceDecode(event.key) else { return refuse(.badCommandLine, form: .meta) }
            event.key = key
            event.traits.insert(.keyIsDecoded)
        }
        emit(event)
    }

    private static let answeredSteps: [Verb: [MetaStep]] = [
        .metaSet: [.opaque, .key, .cas, .size], .metaDelete: [.opaque, .key],
        .metaArithmetic: [.opaque, .key, .cas, .ttl, .setTTL, .vivify],
    ]

    private mutating func meta(_ line: Line, _ verb: Verb) {
        let first = verb == .metaSet ? 3 : 2
        guard line.tokens.count >= first, areFlags(line, from: first) else {
            return refuse(.badCommandLine, form: .meta)
        }
        var length = 0
        if verb == .metaSet {
            guard let announced = number32(line.token(2)), announced >= 0, announced <= Int32.max - 2 else {
                return refuse(.badCommandLine, form: .meta)
            }
            length = Int(announced)
        }
        var event = event(verb, .meta)
        event.key = line.token(1)
        event.delta = 1
        var error = flags(line, first, &event)
        if verb == .metaArithmetic, error != nil { error = .invalidOrDuplicateFlag }
        if error == nil { error = mode(&event) }
        if error == nil, event.opaqueToken.count > 32 { error = .opaqueTooLong }
        if let error {
            return refuse(error, form: .meta, swallow: verb == .metaSet ? length + 2 : 0)
        }
        if event.traits.contains(.quiet), verb == .metaGet { event.traits.insert(.hidesMiss) }
        if let answered = Self.answeredSteps[verb] { event.steps = event.steps.filter(answered.contains) }
        if verb == .metaSet { store(event, length: length) } else { emit(event) }
    }

    private static let canonicalModes: [Verb: [Character: Character]] = [
        .metaSet: ["\0": "S", "S": "S", "E": "E", "A": "A", "P": "P", "R": "R"],
        .metaArithmetic: ["\0": "I", "I": "I", "+": "I", "D": "D", "-": "D"],
    ]

    private func mode(_ event: inout Event) -> ErrorReply? {
        guard let modes = Self.canonicalModes[event.verb] else { return nil }
        let given = Character(Unicode.Scalar(event.mode))
        guard let mode = modes[given]?.asciiValue else {
            return event.verb == .metaSet ? .invalidSetMode : .invalidArithmeticMode
        }
        event.mode = mode
        return nil
    }

    private func flags(_ line: Line, _ first: Int, _ event: inout Event) -> ErrorReply? {
        if event.key.count > 250 { return .badCommandLine }
        if line.tokens.count > 20 { return .optionsTooLong }
        var failed = false
        var error: ErrorReply = .badCommandLine
        var seen: Set<UInt8> = []
        for index in first..<max(first, line.tokens.count) {
            let token = line.tokens[index]
            guard seen.insert(token[0]).inserted else { return .duplicateFlag }
            guard "bNTRlOPLkstcfvhuqxFCEMJDI".utf8.contains(token[0]) else { return .invalidFlag }
            event.options |= 1 << UInt64(token[0] - 65)
            let argument = Array(token.dropFirst())
            let signed = argument.isEmpty ? nil : number32(argument)
            let unsigned = argument.isEmpty ? nil : unsigned64(argument)
            func fail(_ reply: ErrorReply?) {
                failed = true
                error = reply ?? error
            }
            switch Character(Unicode.Scalar(token[0])) {
            case "b":
                if let key = referenceDecode(line.token(1)) { event.key = key } else { fail(.badKeyEncoding) }
                event.traits.insert(.keyIsDecoded)
            case "N":
                if let signed { event.vivifyTTL = signed } else { fail(.badToken) }
                event.steps.append(.vivify)
            case "T":
                if let signed { event.exptime = Int64(signed) } else { fail(.badToken) }
                event.steps.append(.setTTL)
            case "R":
                if let signed { event.recacheTTL = signed } else { fail(.badToken) }
                event.steps.append(.recache)
            case "C": if let unsigned { event.cas = unsigned } else { fail(.badToken) }
            case "E": if let unsigned { event.casIn = unsigned } else { fail(.badToken) }
            case "J": if let unsigned { event.initial = unsigned } else { fail(.invalidInitialFlag) }
            case "D": if let unsigned { event.delta = unsigned } else { fail(.invalidDeltaFlag) }
            case "F":
                if !argument.isEmpty, let flags = unsigned32(argument) { event.clientFlags = flags } else { fail(nil) }
            case "M": event.mode = line.bytes[line.starts[index] + 1]
            case "O":
                event.opaqueToken = token
                event.steps.append(.opaque)
            case "k": event.steps.append(.key)
            case "s": event.steps.append(.size)
            case "t": event.steps.append(.ttl)
            case "c": event.steps.append(.cas)
            case "f": event.steps.append(.clientFlags)
            case "h": event.steps.append(.hitBefore)
            case "l": event.steps.append(.lastAccess)
            case "q": event.traits.insert(.quiet)
            default: break
            }
        }
        return failed ? error : nil
    }
}

// MARK: - Binary

extension ReferenceParser {
    private func number(_ start: Int, _ count: Int) -> UInt64 {
        stream[start..<start + count].reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// One binary request; false when its header, extras and key are not there.
    private mutating func binaryRequest() -> Bool {
        guard stream.count - at >= 24 else { return false }
        guard stream[at] == 0x80 else {
            close()
            return false
        }
        let (key, extras, body) = (Int(number(at + 2, 2)), Int(stream[at + 4]), Int(number(at + 8, 4)))
        guard stream.count - at >= 24 + key + extras else {
            if 24 + key + extras > 16384, stream.count - at >= 16384 { close() }
            return false
        }
        var event = Event()
        event.form = .binary
        event.opcode = stream[at + 1]
        event.opaque = UInt32(number(at + 12, 4))
        event.cas = number(at + 16, 8)
        let first = at + 24
        at = first + extras + key
        if key + extras > body {
            binaryRefusal(.unknownCommand, event, closing: true)
        } else if body > 1 << 30 || key > 250 {
            binaryRefusal(.invalidArguments, event, closing: true)
        } else {
            event.key = Array(stream[first + extras..<at])
            binaryCommand(event, extras: extras, first: first, body: body)
        }
        return true
    }

    private mutating func binaryRefusal(_ error: ErrorReply, _ event: Event, closing: Bool = false, swallow: Int = 0) {
        var refusal = Event()
        refusal.form = .binary
        refusal.opcode = event.opcode
        refusal.opaque = event.opaque
        refusal.error = error
        refusal.swallowed = swallow
        if closing { refusal.traits = .closesAfterReply }
        emit(refusal)
        at = min(at + swallow, stream.count)
    }

    private static let quietTwins: [UInt8: UInt8] = [
        0x09: 0, 0x0d: 0x0c, 0x11: 1, 0x12: 2, 0x13: 3, 0x14: 4, 0x15: 5, 0x16: 6, 0x17: 7, 0x18: 8, 0x19: 0xe,
        0x1a: 0xf, 0x1e: 0x1d, 0x24: 0x23,
    ]

    private mutating func binaryCommand(_ given: Event, extras: Int, first: Int, body: Int) {
        var event = given
        let rest = body - extras - event.key.count
        let loud = Self.quietTwins[event.opcode] ?? event.opcode
        if loud != event.opcode { event.traits.insert(.quiet) }
        if loud != event.opcode, [0, 0x0c, 0x1d, 0x23].contains(loud) { event.traits.insert(.hidesMiss) }
        if [0x0c, 0x23].contains(loud) { event.traits.insert(.returnsKey) }
        let hasKey = !event.key.isEmpty
        var wellFormed = true
        switch loud {
        case 0x00, 0x0c, 0x04:
            wellFormed = extras == 0 && hasKey && rest == 0
            event.verb = loud == 4 ? .delete : .get
        case 0x01, 0x02, 0x03:
            wellFormed = extras == 8 && hasKey
            event.verb = event.cas != 0 ? .cas : [.set, .add, .replace][Int(loud) - 1]
            if wellFormed {
                event.clientFlags = UInt32(number(first, 4))
                event.exptime = Int64(number(first + 4, 4))
                return store(event, length: rest)
            }
        case 0x0e, 0x0f:
            wellFormed = extras == 0 && hasKey
            event.verb = loud == 0x0e ? .append : .prepend
            if wellFormed { return store(event, length: rest) }
        case 0x05, 0x06:
            wellFormed = extras == 20 && hasKey && rest == 0
            event.verb = loud == 5 ? .incr : .decr
            if wellFormed {
                event.delta = number(first, 8)
                event.initial = number(first + 8, 8)
                event.exptime = Int64(number(first + 16, 4))
            }
        case 0x1c, 0x1d, 0x23:
            wellFormed = extras == 4 && hasKey
            event.verb = loud == 0x1c ? .touch : .gat
            if wellFormed { event.exptime = Int64(number(first, 4)) }
        case 0x08:
            wellFormed = (extras == 0 || extras == 4) && !hasKey && rest == 0
            event.verb = .flushAll
            if wellFormed, extras == 4 { event.exptime = Int64(number(first, 4)) }
        case 0x07, 0x0a, 0x0b, 0x20:
            wellFormed = body == 0
            event.verb = loud == 7 ? .quit : loud == 0x0a ? .noop : .version
            if loud == 7 { event.traits.insert(.closesAfterReply) }
            if loud == 0x20, wellFormed { return binaryRefusal(.unknownCommand, event) }
        case 0x10:
            wellFormed = extras == 0
            event.verb = .stats
        case 0x21, 0x22:
            wellFormed = extras == 0 && hasKey
            if wellFormed { return binaryRefusal(.unknownCommand, event, swallow: rest) }
        default:
            return binaryRefusal(.unknownCommand, event, swallow: body)
        }
        if wellFormed { emit(event) } else { binaryRefusal(.invalidArguments, event, closing: true) }
    }
}
