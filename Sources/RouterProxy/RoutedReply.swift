// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Routing

extension RoutedRequest.Part {
    /// Reads what came back for a client's request.
    mutating func read(_ request: Request) {
        (reply, value) = form == .binary ? Self.packet(bytes.span) : Self.text(bytes.span, operation)
        // memcached makes an item without a value for whoever gets the lease of a miss. (What is `recached` has one.)
        guard isSame, reply.hasLease, reply.result == .found, request.options.contains(.vivify) else { return }
        if value.isEmpty, request.options.contains(.value) || !request.options.contains(.recache) {
            reply.result = .notFound
        }
    }

    private static func text(_ input: Span<UInt8>, _ operation: RouteOperation) -> (RouteReply, Range<Int>) {
        guard case .unit(let unit) = ReplyParser.next(in: input, at: 0) else {
            return (RouteReply(.remoteError), 0..<0)
        }
        let value = unit.lineEnd..<unit.lineEnd + unit.blockLength
        var reply = RouteReply(.unknown)
        switch unit.kind {
        case .value: return (RouteReply(.found, flags: unit.clientFlags, casToken: unit.number), value)
        case .metaValue: reply.result = operation.group == .arithmetic ? .stored : .found
        case .metaDone: reply.result = done(operation)
        case .end, .metaMiss, .notFound, .metaNotFound: reply.result = .notFound
        case .stored: reply.result = .stored
        case .notStored, .metaNotStored: reply.result = .notStored
        case .exists, .metaExists: reply.result = .exists
        case .deleted: reply.result = .deleted
        case .touched: reply.result = .touched
        case .ok: reply.result = .ok
        case .number: return (RouteReply(.stored), 0..<unit.textEnd)
        case .metaDebug: reply.result = .found
        case .error: reply.result = .badCommand
        case .clientError: reply.result = .clientError
        case .serverError: reply.result = serverError(input.extracting(unit.restStart..<unit.textEnd))
        case .metaNoop, .reset, .version, .stat, .other: reply.result = .remoteError
        }
        if [.metaValue, .metaDone].contains(unit.kind) {
            readFlags(input.extracting(unit.restStart..<unit.textEnd), into: &reply)
        }
        return (reply, unit.kind == .metaValue ? value : 0..<0)
    }

    private static func done(_ operation: RouteOperation) -> RouteResult {
        switch operation.group {
        case .get: .found
        case .delete: .deleted
        case .update, .arithmetic: .stored
        case .other: .touched
        }
    }

    /// What a server's own words say of it.
    private static func serverError(_ text: Span<UInt8>) -> RouteResult {
        if text.holds("out of memory", at: 0) || text.holds("307", at: 0) { return .busy }
        if text.holds("302", at: 0) { return .tryAgain }
        if text.holds("301", at: 0) { return .shutdown }
        return .remoteError
    }

    /// Flags of a meta reply: `f`, `c`, `t`, and who may replace the value.
    private static func readFlags(_ text: Span<UInt8>, into reply: inout RouteReply) {
        var isWon = false
        var isTaken = false
        var isStale = false
        for token in String(decoding: [UInt8](copying: text), as: UTF8.self).split(separator: " ") {
            let rest = token.dropFirst()
            switch token.first {
            case "f": reply.flags = UInt32(rest) ?? 0
            case "c": reply.casToken = UInt64(rest) ?? 0
            case "t": reply.exptime = Int64(rest)
            case "W": isWon = true
            case "X": isStale = true
            case "Z": isTaken = true
            default: break
            }
        }
        reply.hasLease = isWon
        guard reply.result == .found else { return }
        if isStale { reply.result = .foundStale } else if isTaken { reply.result = .notFoundHot }
    }

    private static func packet(_ input: Span<UInt8>) -> (RouteReply, Range<Int>) {
        guard input.count >= BinaryHeader.bytes else { return (RouteReply(.remoteError), 0..<0) }
        let status = BinaryStatus(rawValue: input.bigEndian(at: 6, as: UInt16.self))
        var reply = RouteReply(result(status, opcode: input[1]))
        guard status == .success else { return (reply, 0..<0) }
        let start = BinaryHeader.bytes + Int(input[4]) + Int(input.bigEndian(at: 2, as: UInt16.self))
        reply.casToken = input.bigEndian(at: 16, as: UInt64.self)
        if input[4] >= 4 { reply.flags = input.bigEndian(at: BinaryHeader.bytes, as: UInt32.self) }
        return (reply, min(start, input.count)..<input.count)
    }

    private static func result(_ status: BinaryStatus?, opcode: UInt8) -> RouteResult {
        switch status {
        case .success:
            switch opcode {
            case BinaryOpcode.get, BinaryOpcode.getKey, BinaryOpcode.getAndTouch, BinaryOpcode.getAndTouchKey: .found
            case BinaryOpcode.delete: .deleted
            case BinaryOpcode.touch: .touched
            default: .stored
            }
        case .notFound: .notFound
        case .exists: .exists
        case .notStored: .notStored
        case .tooLarge, .internalError: .remoteError
        case .invalidArguments, .nonNumeric: .clientError
        case .authenticationFailed: .permissionDenied
        case .unknownCommand: .badCommand
        case .outOfMemory, .busy: .busy
        case .temporaryFailure: .tryAgain
        case nil: .remoteError
        }
    }
}

/// What a client is answered, from what a machine decided.
struct ReplyWriter {
    let result: RouteResult
    let flags: UInt32
    let casToken: UInt64
    let hasLease: Bool
    /// An error's words, if they are not the result's own.
    let text: String?

    /// Whether the client asked not to be told.
    func isHidden(_ request: Request) -> Bool {
        guard request.isQuiet else { return false }
        switch request.form {
        case .classic: return true
        case .meta:
            if result.isError || hasLease { return false }
            return request.verb == .metaGet
                ? result.isMiss : result.isStored || result == .deleted || result == .touched
        case .binary:
            return request.hidesMiss ? result.isMiss : result.isStored || result == .deleted || result == .touched
        }
    }

    /// Appends the reply to `routed` with this value. Of a classic get that has more keys the `END` is left out.
    func append(
        to output: inout OutputBuffer, _ routed: RoutedRequest, value: Span<UInt8>, isPartOfGet: Bool
    ) {
        switch routed.request.form {
        case .classic: appendClassic(to: &output, routed, value, isPartOfGet: isPartOfGet)
        case .meta: appendMeta(to: &output, routed, value)
        case .binary: appendPacket(to: &output, routed, value)
        }
    }

    /// An error's line.
    func appendError(to output: inout OutputBuffer) {
        if let text {
            output.append(isClients ? "CLIENT_ERROR " : "SERVER_ERROR ")
            output.append(string: text)
            return output.append("\r\n")
        }
        switch result {
        case .badCommand: output.append("ERROR\r\n")
        case .clientError, .badKey, .badFlags, .badExptime, .badLease, .badCAS, .badValue, .permissionDenied:
            output.append(string: "CLIENT_ERROR \(result.name)\r\n")
        default: output.append(RouteFailure(result).text)
        }
    }

    /// Whether an error is the client's.
    private var isClients: Bool {
        switch result {
        case .clientError, .badKey, .badFlags, .badExptime, .badLease, .badCAS, .badValue, .permissionDenied: true
        default: false
        }
    }

    private var isFound: Bool { result == .found || result == .foundStale }

    private func appendClassic(
        to output: inout OutputBuffer, _ routed: RoutedRequest, _ value: Span<UInt8>, isPartOfGet: Bool
    ) {
        if result.isError { return appendError(to: &output) }
        let verb = routed.request.verb
        switch routed.operation.group {
        case .get:
            if isFound {
                let key = routed.key
                let withCAS = verb == .gets || verb == .gats
                output.appendValueLine(
                    key: key.span, clientFlags: flags, length: value.count, cas: withCAS ? casToken : nil)
                output.append(value)
                output.append("\r\n")
            }
            if !isPartOfGet { output.append("END\r\n") }
        case .arithmetic where result.isStored:
            output.append(value)
            output.append("\r\n")
        default: output.append(line)
        }
    }

    private var line: StaticString {
        switch result {
        case .stored, .staleStored: "STORED\r\n"
        case .notStored: "NOT_STORED\r\n"
        case .exists: "EXISTS\r\n"
        case .deleted: "DELETED\r\n"
        case .touched: "TOUCHED\r\n"
        case .ok: "OK\r\n"
        default: "NOT_FOUND\r\n"
        }
    }

    private func appendMeta(to output: inout OutputBuffer, _ routed: RoutedRequest, _ value: Span<UInt8>) {
        if result.isError { return appendError(to: &output) }
        let request = routed.request
        // Whoever has the lease of a miss finds what memcached makes of it: a value without bytes.
        let isLeased = hasLease && request.verb == .metaGet && result == .notFound
        let isFound = isFound || isLeased
        let isMiss = !isLeased && (result == .notFound || result == .notFoundHot)
        let withValue = !isMiss && request.options.contains(.value) && (isFound || result.isStored)
        if withValue {
            output.appendMetaValue(length: value.count)
        } else if request.verb == .metaGet, isMiss {
            output.append("EN")
        } else {
            output.append(isLeased ? "HD" : code)
        }
        if !isMiss || request.verb != .metaGet { appendFlags(to: &output, routed, value, isFound: isFound) }
        output.append("\r\n")
        guard withValue else { return }
        output.append(value)
        output.append("\r\n")
    }

    private var code: StaticString {
        switch result {
        case .notStored: "NS"
        case .exists: "EX"
        case .notFound, .notFoundHot: "NF"
        default: "HD"
        }
    }

    private func appendFlags(
        to output: inout OutputBuffer, _ routed: RoutedRequest, _ value: Span<UInt8>, isFound: Bool
    ) {
        let request = routed.request
        var steps = request.steps
        walk: while true {
            switch steps.next() {
            case .end: break walk
            case .cas where isFound || result.isStored: output.appendMetaFlag(UInt8(ascii: "c"), casToken)
            case .clientFlags where isFound: output.appendMetaFlag(UInt8(ascii: "f"), UInt64(flags))
            case .size where isFound: output.appendMetaFlag(UInt8(ascii: "s"), UInt64(value.count))
            case .ttl where isFound: output.append(" t-1")
            case .key:
                let key = routed.key
                output.appendMetaKey(key.span, isBinary: request.keyIsDecoded)
            case .opaque:
                let bytes = routed.bytes
                output.appendMetaOpaque(of: request, in: bytes.span)
            default: break
            }
        }
        if hasLease { output.appendMetaMark(UInt8(ascii: "W")) }
    }

    private func appendPacket(to output: inout OutputBuffer, _ routed: RoutedRequest, _ value: Span<UInt8>) {
        let request = routed.request
        let status = self.status
        guard status == .success else { return output.appendBinaryStatus(status, replyTo: request) }
        switch routed.operation.group {
        case .get:
            let key = request.returnsKey ? routed.key : []
            output.appendBinaryHeader(
                replyTo: request, extrasLength: 4, keyLength: key.count, bodyLength: 4 + key.count + value.count,
                cas: casToken)
            output.append(bigEndian: flags)
            output.append(key.span)
            output.append(value)
        case .arithmetic:
            output.appendBinaryHeader(replyTo: request, bodyLength: value.count, cas: casToken)
            output.append(value)
        default: output.appendBinaryHeader(replyTo: request, cas: casToken)
        }
    }

    private var status: BinaryStatus {
        switch result {
        case .stored, .staleStored, .ok, .found, .foundStale, .deleted, .touched: .success
        case .notFound, .notFoundHot: .notFound
        case .notStored: .notStored
        case .exists: .exists
        case .badCommand: .unknownCommand
        case .clientError, .badKey, .badValue: .invalidArguments
        case .timeout, .remoteError, .aborted: .internalError
        case .busy, .overloaded: .busy
        default: .temporaryFailure
        }
    }
}

extension RouteFailure {
    /// The words for a result that is an error.
    init(_ result: RouteResult) {
        self =
            switch result {
            case .timeout, .deadlineExceeded: .timeout
            case .connectTimeout: .connectTimeout
            case .connectError: .connectError
            case .busy, .overloaded: .busy
            case .tko, .shutdown: .unavailable
            case .remoteError, .aborted: .lost
            default: .local
            }
    }

    /// What it is to routes.
    var result: RouteResult {
        switch self {
        case .none: .ok
        case .timeout: .timeout
        case .lost: .remoteError
        case .connectTimeout: .connectTimeout
        case .connectError: .connectError
        case .unavailable: .tko
        case .busy: .busy
        case .local: .localError
        }
    }
}
