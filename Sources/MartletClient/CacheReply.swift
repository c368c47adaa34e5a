// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory

/// A server's whole reply to one request.
struct CacheReply: Sendable, Equatable {
    enum Kind: Sendable, Equatable {
        /// A value, or a counter's new number in `bytes`.
        case value
        /// Done as asked: HD, STORED, DELETED, TOUCHED, MN, VERSION.
        case done
        /// Not there: EN, NF, END, NOT_FOUND.
        case missing
        /// NS, NOT_STORED.
        case notStored
        /// EX, EXISTS.
        case exists
        /// An error, with its text.
        case refused(String)
    }

    var kind: Kind
    var bytes: [UInt8] = []
    var flags: UInt32 = 0
    var cas: UInt64 = 0
    /// The marks W, Z and X of meta replies.
    var hasWon = false
    var isTaken = false
    var isStale = false
}

/// What the bytes of a connection hold of the next reply.
enum ReplyReading: Sendable {
    /// A whole reply.
    case reply(CacheReply)
    /// More must arrive: at least so many bytes from the reply's first on; 0 when that is not known.
    case incomplete(needed: Int)
    /// What is there is no reply to such a request.
    case nonsense(String)

    /// Reads the reply to `operation` at `offset`, which moves behind a whole one. Copies the value.
    static func next(
        _ input: Span<UInt8>, at offset: inout Int, _ operation: CacheRequest.Operation, valueLimit: Int
    ) -> ReplyReading {
        switch ReplyParser.next(in: input, at: offset) {
        case .incomplete: return .incomplete(needed: 0)
        case .malformed(let defect): return .nonsense(defect.description)
        case .unit(let unit):
            guard unit.kind.hasBlock else { return line(unit, input, at: &offset, operation) }
            guard unit.blockLength <= valueLimit else { return .nonsense("a value of \(unit.blockLength) bytes") }
            guard unit.end <= input.count else { return .incomplete(needed: unit.end &- offset) }
            guard ReplyParser.isTerminated(unit, in: input) else {
                return .nonsense(ReplyDefect.blockWithoutEnd.description)
            }
            return value(unit, input, at: &offset, operation)
        }
    }

    private static func value(
        _ unit: ReplyUnit, _ input: Span<UInt8>, at offset: inout Int, _ operation: CacheRequest.Operation
    ) -> ReplyReading {
        var reply = CacheReply(kind: .value)
        reply.bytes = [UInt8](copying: input.extracting(unit.lineEnd..<unit.lineEnd &+ unit.blockLength))
        if unit.kind == .metaValue {
            reply.readMarks(input, from: unit.restStart, to: unit.textEnd)
            offset = unit.end
            return operation.takesValue ? .reply(reply) : .nonsense("a value nobody asked for")
        }
        guard operation.takesValue else { return .nonsense("a value nobody asked for") }
        reply.flags = unit.clientFlags
        reply.cas = unit.number
        // A classic value ends with a line of its own.
        switch ReplyParser.next(in: input, at: unit.end) {
        case .unit(let end) where end.kind == .end:
            offset = end.end
            return .reply(reply)
        case .incomplete: return .incomplete(needed: unit.end &- offset &+ 5)
        default: return .nonsense("a value without END")
        }
    }

    private static func line(
        _ unit: ReplyUnit, _ input: Span<UInt8>, at offset: inout Int, _ operation: CacheRequest.Operation
    ) -> ReplyReading {
        func text(from start: Int) -> String {
            String(decoding: [UInt8](copying: input.extracting(start..<unit.textEnd)), as: UTF8.self)
        }
        var reply = CacheReply(kind: .done)
        switch unit.kind {
        case .metaDone, .stored, .deleted, .touched, .ok, .metaNoop, .version:
            reply.readMarks(input, from: unit.restStart, to: unit.kind == .metaDone ? unit.textEnd : unit.restStart)
        case .metaMiss, .metaNotFound, .end, .notFound: reply.kind = .missing
        case .metaNotStored, .notStored: reply.kind = .notStored
        case .metaExists, .exists: reply.kind = .exists
        case .number:
            guard operation == .increment || operation == .decrement else {
                return .nonsense("the number \(unit.number)")
            }
            reply.kind = .value
            reply.bytes = [UInt8](copying: input.extracting(unit.start..<unit.textEnd))
        case .error, .clientError, .serverError:
            reply.kind = .refused(text(from: unit.restStart))
        case .value, .metaValue, .metaDebug, .stat, .reset, .other: return .nonsense(text(from: unit.start))
        }
        guard operation.canEnd(with: unit.kind) else { return .nonsense(text(from: unit.start)) }
        offset = unit.end
        return .reply(reply)
    }
}

extension CacheRequest.Operation {
    /// Whether a value can be its reply.
    var takesValue: Bool {
        switch self {
        case .get, .getAndTouch, .lease, .exists, .increment, .decrement: true
        case .touch, .store, .delete, .invalidate, .ping: false
        }
    }

    /// Whether a line that brings no value can be its reply.
    func canEnd(with kind: ReplyKind) -> Bool {
        if kind.isError { return true }
        return switch self {
        case .get, .getAndTouch, .lease: kind == .end || kind == .metaMiss
        case .exists: kind == .end || kind == .metaMiss || kind == .metaDone
        case .touch:
            kind == .metaDone || kind == .metaMiss || kind == .touched || kind == .notFound
        case .store:
            [.stored, .notStored, .exists, .notFound, .metaDone, .metaNotStored, .metaExists, .metaNotFound].contains(
                kind)
        case .delete, .invalidate: [.deleted, .notFound, .metaDone, .metaNotFound, .metaExists].contains(kind)
        case .increment, .decrement: [.number, .notFound, .metaNotFound, .metaNotStored, .metaDone].contains(kind)
        case .ping: kind == .metaNoop || kind == .version
        }
    }
}

extension CacheReply {
    /// Reads the flags of a meta reply: `f`, `c`, and the marks.
    mutating func readMarks(_ input: Span<UInt8>, from start: Int, to end: Int) {
        var index = start
        while index < end {
            let flag = input[index]
            var (number, next): (UInt64, Int) = (0, index &+ 1)
            while next < end, input[next] != UInt8(ascii: " ") {
                let digit = input[next] &- 48
                if digit < 10 { number = number &* 10 &+ UInt64(digit) }
                next &+= 1
            }
            switch flag {
            case UInt8(ascii: "f"): flags = UInt32(truncatingIfNeeded: number)
            case UInt8(ascii: "c"): cas = number
            case UInt8(ascii: "W"): hasWon = true
            case UInt8(ascii: "Z"): isTaken = true
            case UInt8(ascii: "X"): isStale = true
            default: break
            }
            index = next &+ 1
        }
    }
}
