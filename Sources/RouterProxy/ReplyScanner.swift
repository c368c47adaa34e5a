// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory

/// What the replies of a server to one command look like.
enum ReplyShape: UInt8, BitwiseCopyable, Sendable {
    /// get, gets, gat, gats: any number of values, then `END` or an error.
    case values
    /// One line.
    case line
    /// A meta command's: one line, or `VA` with a value.
    case meta
    /// A packet of the binary protocol.
    case binary
    /// Any number of `STAT` lines, then `END` or an error.
    case statistics
}

/// What lies next in a server's output.
enum ReplyStep: Equatable {
    /// A value with the line before it: `total` bytes with both line ends, which need not be all there. More follows,
    /// unless it `ends` the reply.
    case block(total: Int, ends: Bool)
    /// The line, of `length` bytes, that ends the reply.
    case last(length: Int)
    /// Not even the line (or header) is all there; not worth a look before `needed` bytes lie from the offset on.
    case incomplete(needed: Int)
    /// No reply of a memcached: what comes after cannot be told apart either.
    case malformed
}

/// Cuts a server's output into replies, without copying and without state: a step looks at what lies at an offset.
enum ReplyScanner {
    /// Bytes of a line at most.
    static var lineLimit: Int { 8192 }
    /// Bytes of a value at most: the largest that a server can be told to keep.
    static var valueLimit: Int { 1 << 30 }

    /// What lies at `start`, where a reply of this shape begins or goes on.
    @inline(__always)
    static func next(_ input: Span<UInt8>, at start: Int, _ shape: ReplyShape) -> ReplyStep {
        switch shape {
        case .values:
            if input.holds("VALUE ", at: start) { return value(input, at: start) }
            return line(input, at: start)
        case .line: return line(input, at: start)
        case .meta:
            if input.holds("VA ", at: start) { return metaValue(input, at: start) }
            return line(input, at: start)
        case .binary: return packet(input, at: start)
        case .statistics:
            let step = line(input, at: start)
            guard case .last(let length) = step, input.holds("STAT ", at: start) else { return step }
            return .block(total: length, ends: false)
        }
    }

    /// Whether a line says that something went wrong.
    static func isError(_ input: Span<UInt8>, at start: Int) -> Bool {
        input.holds("SERVER_ERROR", at: start) || input.holds("CLIENT_ERROR", at: start)
            || input.holds("ERROR", at: start)
    }

    private static func line(_ input: Span<UInt8>, at start: Int) -> ReplyStep {
        let end = min(input.count, start &+ lineLimit)
        guard let feed = input.firstOffset(of: UInt8(ascii: "\n"), from: start, to: end) else {
            return end &- start < lineLimit ? .incomplete(needed: 0) : .malformed
        }
        guard feed > start, input[feed &- 1] == UInt8(ascii: "\r") else { return .malformed }
        return .last(length: feed &+ 1 &- start)
    }

    /// `VALUE <key> <flags> <bytes>[ <cas>]`.
    @inline(__always)
    private static func value(_ input: Span<UInt8>, at start: Int) -> ReplyStep {
        let key = input.tokenEnd(from: start &+ 6)
        guard key < input.count, input[key] == UInt8(ascii: " ") else { return unfinished(input, start, key) }
        var index = key &+ 1
        while index < input.count, input[index] &- 48 < 10 { index &+= 1 }
        guard index < input.count, input[index] == UInt8(ascii: " "), index > key &+ 1 else {
            return unfinished(input, start, index)
        }
        return block(input, start, number: index &+ 1, ends: false)
    }

    /// `VA <bytes>[ <flag>…]`.
    @inline(__always)
    private static func metaValue(_ input: Span<UInt8>, at start: Int) -> ReplyStep {
        block(input, start, number: start &+ 3, ends: true)
    }

    /// The block whose length stands at `number`.
    @inline(__always)
    private static func block(_ input: Span<UInt8>, _ start: Int, number: Int, ends: Bool) -> ReplyStep {
        var length = 0
        var index = number
        while index < input.count {
            let digit = input[index] &- 48
            guard digit < 10 else { break }
            length = length &* 10 &+ Int(digit)
            guard length <= valueLimit else { return .malformed }
            index &+= 1
        }
        guard index < input.count, index > number else { return unfinished(input, start, index) }
        // Up to the line's end: a CAS value, or flags.
        let limit = min(input.count, start &+ lineLimit)
        guard let feed = input.firstOffset(of: UInt8(ascii: "\n"), from: min(index, limit), to: limit) else {
            return limit &- start < lineLimit ? .incomplete(needed: 0) : .malformed
        }
        guard input[feed &- 1] == UInt8(ascii: "\r"), input[index] == UInt8(ascii: " ") || index == feed &- 1 else {
            return .malformed
        }
        let total = feed &+ 1 &- start &+ length &+ 2
        let end = start &+ total
        if end <= input.count, input[end &- 2] != UInt8(ascii: "\r") || input[end &- 1] != UInt8(ascii: "\n") {
            return .malformed
        }
        return .block(total: total, ends: ends)
    }

    /// A line that stopped at `index`: because the input ends there, or because it is wrong.
    private static func unfinished(_ input: Span<UInt8>, _ start: Int, _ index: Int) -> ReplyStep {
        index >= input.count && index &- start < lineLimit ? .incomplete(needed: 0) : .malformed
    }

    private static func packet(_ input: Span<UInt8>, at start: Int) -> ReplyStep {
        guard input.count &- start >= BinaryHeader.bytes else { return .incomplete(needed: BinaryHeader.bytes) }
        guard input[start] == BinaryHeader.replyMagic else { return .malformed }
        let body = Int(input.bigEndian(at: start &+ 8, as: UInt32.self))
        guard body <= valueLimit &+ 1024 else { return .malformed }
        return .block(total: BinaryHeader.bytes &+ body, ends: true)
    }
}
