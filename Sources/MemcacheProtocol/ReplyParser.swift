// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory

/// The client's side of the text protocols: takes a server's replies apart, a line at a time.
///
/// Keeps no state and copies nothing. A value's unit is found as soon as its line is whole, so that long values can be
/// passed on or received in place. Sources: memcached's protocol.txt for the classic replies, and its chapter on meta
/// commands.
@usableFromInline
package enum ReplyParser {
    /// The longest line that is waited for.
    @inlinable package static var lineLimitBytes: Int { 64 << 10 }
    /// The longest data block.
    @inlinable package static var blockLimitBytes: Int { 1 << 30 }

    /// The reply line that starts at `start`.
    @inlinable
    package static func next(in input: Span<UInt8>, at start: Int) -> ReplyStep {
        let limit = min(input.count, start &+ lineLimitBytes)
        guard start < limit, let feed = input.firstOffset(of: UInt8(ascii: "\n"), from: start, to: limit) else {
            return input.count &- start >= lineLimitBytes ? .malformed(.lineTooLong) : .incomplete
        }
        var unit = ReplyUnit()
        unit.start = start
        unit.lineEnd = feed &+ 1
        unit.textEnd = feed > start && input[feed &- 1] == UInt8(ascii: "\r") ? feed &- 1 : feed
        unit.restStart = unit.textEnd
        let length = unit.textEnd &- start
        if length >= 3, input[start &+ 2] == UInt8(ascii: " ") {
            unit.restStart = start &+ 3
            return metaLine(input, unit)
        }
        switch length {
        case 2: return metaLine(input, unit)
        case 3 where input.holds("END", at: start): unit.kind = .end
        case 6 where input.holds("STORED", at: start): unit.kind = .stored
        case 6... where input.holds("VALUE ", at: start): return valueLine(input, unit)
        default: return otherLine(input, unit)
        }
        return .unit(unit)
    }

    /// Whether the data block of `unit`, which is all there, ends with a line end.
    @inlinable @inline(__always)
    package static func isTerminated(_ unit: ReplyUnit, in input: Span<UInt8>) -> Bool {
        input[unit.end &- 2] == UInt8(ascii: "\r") && input[unit.end &- 1] == UInt8(ascii: "\n")
    }

    @inlinable
    static func metaLine(_ input: Span<UInt8>, _ line: ReplyUnit) -> ReplyStep {
        var unit = line
        switch (input[unit.start], input[unit.start &+ 1]) {
        case (UInt8(ascii: "H"), UInt8(ascii: "D")): unit.kind = .metaDone
        case (UInt8(ascii: "E"), UInt8(ascii: "N")): unit.kind = .metaMiss
        case (UInt8(ascii: "V"), UInt8(ascii: "A")):
            unit.kind = .metaValue
            let end = tokenEnd(input, unit.restStart, unit.textEnd)
            guard let bytes = number(input, unit.restStart, end) else { return .malformed(.badNumber) }
            guard bytes <= UInt64(blockLimitBytes) else { return .malformed(.blockTooLong) }
            unit.blockLength = Int(truncatingIfNeeded: bytes)
            unit.restStart = min(end &+ 1, unit.textEnd)
        case (UInt8(ascii: "N"), UInt8(ascii: "S")): unit.kind = .metaNotStored
        case (UInt8(ascii: "E"), UInt8(ascii: "X")): unit.kind = .metaExists
        case (UInt8(ascii: "N"), UInt8(ascii: "F")): unit.kind = .metaNotFound
        case (UInt8(ascii: "M"), UInt8(ascii: "N")): unit.kind = .metaNoop
        case (UInt8(ascii: "M"), UInt8(ascii: "E")): unit.kind = .metaDebug
        default: return otherLine(input, line)
        }
        return .unit(unit)
    }

    @inlinable
    static func valueLine(_ input: Span<UInt8>, _ line: ReplyUnit) -> ReplyStep {
        var unit = line
        unit.kind = .value
        unit.keyStart = unit.start &+ 6
        let keyEnd = tokenEnd(input, unit.keyStart, unit.textEnd)
        unit.keyLength = keyEnd &- unit.keyStart
        let flagsEnd = tokenEnd(input, min(keyEnd &+ 1, unit.textEnd), unit.textEnd)
        let bytesEnd = tokenEnd(input, min(flagsEnd &+ 1, unit.textEnd), unit.textEnd)
        guard unit.keyLength > 0, let flags = number(input, keyEnd &+ 1, flagsEnd), flags <= UInt64(UInt32.max),
            let bytes = number(input, flagsEnd &+ 1, bytesEnd)
        else { return .malformed(.badNumber) }
        guard bytes <= UInt64(blockLimitBytes) else { return .malformed(.blockTooLong) }
        if bytesEnd < unit.textEnd {
            guard let cas = number(input, bytesEnd &+ 1, unit.textEnd) else { return .malformed(.badNumber) }
            unit.number = cas
        }
        unit.clientFlags = UInt32(truncatingIfNeeded: flags)
        unit.blockLength = Int(truncatingIfNeeded: bytes)
        unit.restStart = unit.textEnd
        return .unit(unit)
    }

    @usableFromInline
    static func otherLine(_ input: Span<UInt8>, _ line: ReplyUnit) -> ReplyStep {
        var unit = line
        let length = unit.textEnd - unit.start
        func isWord(_ word: StaticString) -> Bool {
            let size = word.utf8CodeUnitCount
            guard length >= size, input.holds(word, at: unit.start) else { return false }
            guard length == size || input[unit.start + size] == UInt8(ascii: " ") else { return false }
            unit.restStart = min(unit.start + size + 1, unit.textEnd)
            return true
        }
        if isWord("NOT_FOUND") {
            unit.kind = .notFound
        } else if isWord("DELETED") {
            unit.kind = .deleted
        } else if isWord("NOT_STORED") {
            unit.kind = .notStored
        } else if isWord("EXISTS") {
            unit.kind = .exists
        } else if isWord("TOUCHED") {
            unit.kind = .touched
        } else if isWord("STAT") {
            unit.kind = .stat
        } else if isWord("SERVER_ERROR") || isWord("SERVER_ERROR:") {
            unit.kind = .serverError
        } else if isWord("CLIENT_ERROR") {
            unit.kind = .clientError
        } else if isWord("ERROR") {
            unit.kind = .error
        } else if isWord("OK") {
            unit.kind = .ok
        } else if isWord("VERSION") {
            unit.kind = .version
        } else if isWord("RESET") {
            unit.kind = .reset
        } else if isWord("END") {
            unit.kind = .end
        } else if let value = number(input, unit.start, tokenEnd(input, unit.start, unit.textEnd)) {
            unit.kind = .number
            unit.number = value
            unit.restStart = unit.textEnd
        } else {
            unit.kind = .other
            unit.restStart = unit.start
        }
        return .unit(unit)
    }

    @inlinable @inline(__always)
    static func tokenEnd(_ input: Span<UInt8>, _ start: Int, _ end: Int) -> Int {
        var index = start
        while index < end, input[index] != UInt8(ascii: " ") { index &+= 1 }
        return index
    }

    /// The digits of [start, end) as a number; nil when there are none, anything else, or too many.
    @inlinable @inline(__always)
    static func number(_ input: Span<UInt8>, _ start: Int, _ end: Int) -> UInt64? {
        guard start < end, end &- start <= 20 else { return nil }
        var value: UInt64 = 0
        var index = start
        while index < end {
            let digit = input[index] &- 48
            guard digit < 10 else { return nil }
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(digit))
            guard !overflow, !carry else { return nil }
            value = sum
            index &+= 1
        }
        return value
    }
}
