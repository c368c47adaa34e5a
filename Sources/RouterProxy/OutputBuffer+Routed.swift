// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Routing

/// Commands that routes make: the client's own with another key or expiry, or others.
extension OutputBuffer {
    /// Appends the client's own command, under another key if there is one, and with an expiry of the route's. A meta
    /// get asks for the flags `added` too.
    mutating func appendOwn(_ routed: RoutedRequest, key other: CommandKey?, exptime: Int64?, added: [UInt8]) {
        var request = routed.request
        let bytes = routed.bytes
        if let exptime { request.exptime = exptime }
        let key = other?.bytes ?? routed.key
        switch request.form {
        case .classic:
            switch request.verb {
            case .get, .gets, .gat, .gats:
                appendGet(request.verb, exptime: request.exptime, key: key.span)
                appendLineEnd()
            default: appendForwarded(request, key: key.span, bytes.span)
            }
        case .meta:
            if other == nil, exptime == nil, added.isEmpty, !routed.asksNoKey {
                appendForwarded(request, key: key.span, bytes.span)
            } else {
                appendMetaLine(
                    request, bytes.span, key: other, exptime: exptime, added: added, asksNoKey: routed.asksNoKey)
            }
        case .binary: appendPacket(request, bytes.span, key: key.span, exptime: exptime)
        }
    }

    /// A meta command's tokens without `q`, under another key, and with another `T`. As in servers nothing but a space
    /// ends a token, and nothing but a line feed the line; how long a value is, is said as it was understood.
    private mutating func appendMetaLine(
        _ request: Request, _ line: Span<UInt8>, key: CommandKey?, exptime: Int64?, added: [UInt8], asksNoKey: Bool
    ) {
        var index = 0
        var tokens = 0
        let end = line.lineTextEnd
        while index < end {
            while index < end, line[index] == UInt8(ascii: " ") { index += 1 }
            let start = index
            while index < end, line[index] != UInt8(ascii: " ") { index += 1 }
            guard index > start else { break }
            tokens += 1
            let isFlag = tokens > (request.verb == .metaSet ? 3 : 2)
            if isFlag, line[start] == UInt8(ascii: "q") { continue }
            if isFlag, line[start] == UInt8(ascii: "T"), exptime != nil { continue }
            if isFlag, line[start] == UInt8(ascii: "k"), asksNoKey { continue }
            if tokens > 1 { append(UInt8(ascii: " ")) }
            if tokens == 2, let key {
                append(key)
            } else if tokens == 3, request.verb == .metaSet {
                append(decimal: UInt64(request.valueLength))
            } else {
                append(line.extracting(start..<index))
            }
        }
        if let exptime {
            append(" T")
            append(decimal: exptime)
        }
        for letter in added {
            append(UInt8(ascii: " "))
            append(letter)
        }
        append("\r\n")
        guard request.verb == .metaSet else { return }
        append(line.extracting(request.valueOffset..<request.valueOffset + request.valueLength))
        append("\r\n")
    }

    /// A packet with another key and expiry, and the opcode that answers.
    private mutating func appendPacket(
        _ request: Request, _ input: Span<UInt8>, key: Span<UInt8>, exptime: Int64?
    ) {
        let extras = Int(input[4])
        let at = count
        append(input.extracting(0..<BinaryHeader.bytes + extras))
        append(key)
        if request.verb.stores {
            append(input.extracting(request.valueOffset..<request.valueOffset + request.valueLength))
        }
        patch(bigEndian: BinaryOpcode.loud(request.opcode), at: at + 1)
        patch(bigEndian: UInt16(truncatingIfNeeded: key.count), at: at + 2)
        patch(bigEndian: UInt32(truncatingIfNeeded: count - at - BinaryHeader.bytes), at: at + 8)
        // Of a store and a count the expiry is the last four bytes of the extras, of a touch all of them.
        if let exptime, extras >= 4 {
            patch(
                bigEndian: UInt32(truncatingIfNeeded: exptime), at: at + BinaryHeader.bytes + extras - 4)
        }
    }
}

extension Span<UInt8> {
    /// Where the text of the line ends that begins here: before its line feed, and a carriage return just before that.
    var lineTextEnd: Int {
        guard let feed = firstOffset(of: UInt8(ascii: "\n"), from: 0, to: count) else { return count }
        return feed > 0 && self[feed - 1] == UInt8(ascii: "\r") ? feed - 1 : feed
    }
}
