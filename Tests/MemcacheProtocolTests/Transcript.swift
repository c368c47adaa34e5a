// Martlet
// SPDX-License-Identifier: Apache-2.0

import MemcacheProtocol
import Memory

/// One request as a test sees it: the bytes instead of where they lie.
struct Event: Equatable, CustomStringConvertible {
    enum Kind: Equatable {
        /// A request, whole.
        case request
        /// A request whose data block never came whole.
        case truncated
        /// The connection is closed without an answer.
        case close
    }

    var kind: Kind = .request
    var verb: Verb = .protocolError
    var form: ProtocolForm = .classic
    var error: ErrorReply = .none
    var traits: RequestTraits = []
    var key: [UInt8] = []
    var value: [UInt8] = []
    var line: [UInt8] = []
    var opaqueToken: [UInt8] = []
    var clientFlags: UInt32 = 0
    var exptime: Int64 = 0
    var vivifyTTL: Int32 = 0
    var recacheTTL: Int32 = 0
    var cas: UInt64 = 0
    var casIn: UInt64 = 0
    var delta: UInt64 = 0
    var initial: UInt64 = 0
    var options: UInt64 = 0
    var steps: [MetaStep] = []
    var mode: UInt8 = 0
    var opcode: UInt8 = 0
    var opaque: UInt32 = 0
    var swallowed = 0

    static var close: Event {
        var event = Event()
        event.kind = .close
        return event
    }

    /// What a refusal means to a client; the rest of a refused request is nobody's business.
    var normalized: Event {
        guard verb == .protocolError, kind == .request else { return self }
        var event = Event()
        event.form = form
        event.error = error
        event.traits = traits.intersection([.quiet, .closesAfterReply])
        event.swallowed = swallowed
        event.opcode = opcode
        event.opaque = opaque
        return event
    }

    var description: String {
        func text(_ bytes: [UInt8]) -> String {
            String(decoding: bytes.prefix(80), as: UTF8.self) + (bytes.count > 80 ? "…(\(bytes.count))" : "")
        }
        var parts = ["\(kind) \(form) \(verb)"]
        if !error.isNone { parts.append("error=\(error)") }
        if traits.rawValue != 0 { parts.append("traits=\(traits.rawValue)") }
        if !key.isEmpty { parts.append("key=\(text(key))") }
        if !value.isEmpty { parts.append("value=\(text(value))") }
        if !line.isEmpty { parts.append("line=\(text(line).debugDescription)") }
        if !opaqueToken.isEmpty { parts.append("O=\(text(opaqueToken))") }
        parts.append("flags=\(clientFlags) exp=\(exptime) N=\(vivifyTTL) R=\(recacheTTL) cas=\(cas) E=\(casIn)")
        parts.append(
            "delta=\(delta) initial=\(initial) options=\(String(options, radix: 16)) steps=\(steps) mode=\(mode)")
        if form == .binary { parts.append("opcode=\(opcode) opaque=\(opaque)") }
        if swallowed != 0 { parts.append("swallow=\(swallowed)") }
        return parts.joined(separator: " ")
    }
}

/// Plays a connection: hands a parser a stream as it arrives in pieces, and takes data blocks as an executor does.
struct Transcript: ~Copyable {
    /// Commands without a key.
    private static let keyless: Set<Verb> = [
        .metaNoop, .flushAll, .version, .verbosity, .quit, .stats, .shutdown, .watch, .cacheMemlimit, .lruCrawler,
        .lru, .slabs, .extstore, .refreshCerts, .debugtime, .config, .noop,
    ]

    private var parser: RequestParser
    private var decodedKeys = OutputBuffer(capacity: 4096)
    private let stream: [UInt8]
    /// Whether the input is cut off before the offset whenever a piece arrives.
    private let compacts: Bool
    private var base = 0
    private var offset = 0
    private var toSkip = 0
    private var pending: Event?
    private var pendingLength = 0
    private(set) var events: [Event] = []
    /// Set when the parser broke its word.
    private(set) var violation: String?

    /// What `stream` is taken for when it arrives in pieces that end at `cuts` (rising) and at its end.
    static func events(
        of stream: [UInt8], cuts: [Int] = [], restriction: RequestParserConfiguration.Restriction = .automatic,
        compacts: Bool = false
    ) -> (events: [Event], violation: String?) {
        var transcript = Transcript(stream, restriction, compacts)
        for cut in cuts + [stream.count] {
            if transcript.isClosed { break }
            transcript.arrive(upTo: cut)
        }
        transcript.finish()
        return (transcript.events, transcript.violation)
    }

    private init(_ stream: [UInt8], _ restriction: RequestParserConfiguration.Restriction, _ compacts: Bool) {
        parser = RequestParser(RequestParserConfiguration(restriction: restriction, getLineBytes: 1 << 20))
        self.stream = stream
        self.compacts = compacts
    }

    private var isClosed: Bool {
        guard let last = events.last else { return violation != nil }
        return last.kind == .close || last.traits.contains(.closesAfterReply) || violation != nil
    }

    private mutating func finish() {
        guard !isClosed, var event = pending else { return }
        event.kind = .truncated
        event.error = .none
        events.append(event)
    }

    private mutating func arrive(upTo end: Int) {
        if compacts {
            base += offset
            offset = 0
        }
        let held = stream
        let input = held.span.extracting(base..<end)
        while !isClosed {
            if toSkip > 0 {
                let taken = min(toSkip, input.count - offset)
                offset += taken
                toSkip -= taken
                if toSkip > 0 { return }
            }
            if pending != nil, !takePending(input) { return }
            if !step(input) { return }
        }
    }

    /// Takes the pending data block; false when it is not all there.
    private mutating func takePending(_ input: Span<UInt8>) -> Bool {
        guard var event = pending else { return true }
        let tail = event.form == .binary ? 0 : 2
        guard input.count - offset >= pendingLength + tail else { return false }
        event.value = bytes(input, offset, pendingLength)
        offset += pendingLength
        if tail == 2, bytes(input, offset, 2) != [13, 10] { event.error = .badDataChunk }
        offset += tail
        events.append(event)
        pending = nil
        return true
    }

    /// One call of the parser; false when it wants more bytes.
    private mutating func step(_ input: Span<UInt8>) -> Bool {
        let before = offset
        var request = Request()
        // A caller's request is reused, and holds what it held.
        request.cas = 0xdead
        request.keyLength = 77
        request.options = .quiet
        let outcome = parser.next(input, at: &offset, into: &request, decodedKeys: &decodedKeys)
        guard offset >= before, offset <= input.count else {
            violation = "offset \(before) became \(offset) of \(input.count)"
            return false
        }
        switch outcome {
        case .incomplete(let needed):
            if offset != before { violation = "incomplete, but the offset moved" }
            if needed > 0, input.count - offset >= needed { violation = "\(needed) bytes needed and there" }
            return false
        case .close:
            events.append(.close)
            return false
        case .complete, .swallow, .valuePending:
            guard offset > before else {
                violation = "no progress at \(before): \(outcome)"
                return false
            }
        }
        guard let event = check(request, outcome, input) else { return false }
        switch outcome {
        case .valuePending:
            pending = event
            pendingLength = request.valueLength
        case .swallow(let count):
            toSkip = count
            events.append(event)
        default:
            events.append(event)
        }
        return true
    }

    /// Turns a request into an event; nil, with the violation noted, when its fields make no sense.
    private mutating func check(_ request: Request, _ outcome: ParseOutcome, _ input: Span<UInt8>) -> Event? {
        guard parser.isBinary == (request.form == .binary) else {
            violation = "\(request.form) on a connection whose isBinary is \(String(describing: parser.isBinary))"
            return nil
        }
        var event = Event()
        event.verb = request.verb
        event.form = request.form
        event.error = request.error
        event.traits = request.traits
        event.clientFlags = request.clientFlags
        event.exptime = request.exptime
        event.vivifyTTL = request.vivifyTTL
        event.recacheTTL = request.recacheTTL
        event.cas = request.cas
        event.casIn = request.casIn
        event.delta = request.delta
        event.initial = request.initial
        event.options = request.options.rawValue
        event.mode = request.mode
        event.opcode = request.opcode
        event.opaque = request.opaque
        var steps = request.steps
        while !steps.isEmpty { event.steps.append(steps.next()) }
        if case .swallow(let count) = outcome {
            event.swallowed = count
            if request.verb != .protocolError { violation = "swallow of \(request.verb)" }
        }
        guard request.verb != .protocolError else {
            if request.error.isNone { violation = "refusal without an error" }
            return violation == nil ? event.normalized : nil
        }
        guard readBytes(request, outcome, input, &event) else { return nil }
        return event
    }

    private mutating func readBytes(
        _ request: Request, _ outcome: ParseOutcome, _ input: Span<UInt8>, _ event: inout Event
    ) -> Bool {
        if request.keyIsDecoded {
            let end = request.keyOffset + request.keyLength
            guard end <= decodedKeys.count else { return violate("decoded key out of bounds") }
            event.key = decodedKeys.withSpan { bytes($0, request.keyOffset, request.keyLength) }
        } else {
            guard request.keyOffset + request.keyLength <= offset else { return violate("key out of bounds") }
            event.key = bytes(input, request.keyOffset, request.keyLength)
            if request.form != .binary, event.key.contains(where: { $0 == 32 || $0 == 10 }) {
                return violate("key with a space or line feed")
            }
        }
        guard event.key.count <= 250, Self.keyless.contains(request.verb) || !event.key.isEmpty else {
            return violate("key of \(event.key.count) bytes")
        }
        if request.verb.stores, outcome == .complete {
            guard request.valueOffset + request.valueLength <= offset else { return violate("value out of bounds") }
            event.value = bytes(input, request.valueOffset, request.valueLength)
        } else if outcome == .valuePending {
            guard request.verb.stores, request.valueOffset == offset else { return violate("value is elsewhere") }
        }
        guard request.lineOffset + request.lineLength <= offset else { return violate("line out of bounds") }
        event.line = bytes(input, request.lineOffset, request.lineLength)
        guard request.opaqueOffset + request.opaqueLength <= offset else { return violate("opaque out of bounds") }
        event.opaqueToken = bytes(input, request.opaqueOffset, request.opaqueLength)
        return true
    }

    private mutating func violate(_ what: String) -> Bool {
        violation = what
        return false
    }
}

private func bytes(_ span: Span<UInt8>, _ start: Int, _ count: Int) -> [UInt8] {
    unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
        for index in 0..<count { unsafe buffer.initializeElement(at: index, to: span[start + index]) }
        initialized = count
    }
}
