// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

extension RequestParser {
    /// `set <key> <flags> <exptime> <bytes>[ noreply]` with plain numbers and single spaces; nil for everything else.
    @inline(__always)
    func fastSet(
        _ input: Span<UInt8>, key: Int, at offset: inout Int, into request: inout Request
    ) -> ParseOutcome? {
        let keyEnd = input.tokenEnd(from: key)
        // The shortest rest of a line is " 0 0 0\n".
        guard keyEnd <= input.count &- 7, keyEnd > key, keyEnd &- key <= ProtocolLimits.keyBytes,
            input[keyEnd] == UInt8(ascii: " ")
        else { return nil }
        var cursor = keyEnd &+ 1
        guard let flags = number(input, &cursor), input[cursor] == UInt8(ascii: " ") else { return nil }
        cursor &+= 1
        guard let exptime = number(input, &cursor), input[cursor] == UInt8(ascii: " ") else { return nil }
        cursor &+= 1
        guard let length = number(input, &cursor) else { return nil }
        var traits: RequestTraits = []
        if input[cursor] == UInt8(ascii: " ") {
            guard input.holds(" noreply\r\n", at: cursor) else { return nil }
            traits = .quiet
            cursor &+= 8
        }
        if input[cursor] == UInt8(ascii: "\r") {
            cursor &+= 1
            guard cursor < input.count else { return nil }
        }
        guard input[cursor] == UInt8(ascii: "\n") else { return nil }
        request = Request()
        request.verb = .set
        request.lineOffset = offset
        request.keyOffset = key
        request.keyLength = keyEnd &- key
        request.clientFlags = flags
        request.exptime = Int64(exptime)
        request.traits = traits
        return takeValue(input, from: cursor &+ 1, length: Int(length), at: &offset, into: &request)
    }

    /// Up to nine digits at `cursor`, which is moved past them; nil when there are none, more, or no byte after them.
    @inline(__always)
    private func number(_ input: Span<UInt8>, _ cursor: inout Int) -> UInt32? {
        let start = cursor
        var value: UInt32 = 0
        while cursor < input.count {
            let digit = input[cursor] &- 48
            guard digit < 10 else { break }
            value = value &* 10 &+ UInt32(digit)
            cursor &+= 1
        }
        guard cursor > start, cursor &- start <= 9, cursor < input.count else { return nil }
        return value
    }

    /// Looks for the data block of a text command, `length` bytes and a line end from `start` on.
    @inline(__always)
    func takeValue(
        _ input: Span<UInt8>, from start: Int, length: Int, at offset: inout Int, into request: inout Request
    ) -> ParseOutcome {
        request.valueOffset = start
        request.valueLength = length
        guard length &+ 2 <= input.count &- start else {
            offset = start
            return .valuePending
        }
        let end = start &+ length
        if input[end] != UInt8(ascii: "\r") || input[end &+ 1] != UInt8(ascii: "\n") { request.error = .badDataChunk }
        offset = end &+ 2
        return .complete
    }
}
