// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Routing

/// Commands that routes make: the client's own with another key or expiry, or others.
extension OutputBuffer {
    /// Appends the client's own command under `key`, with an expiry of the route's if there is one. A meta get asks for
    /// the flags `added` too.
    mutating func appendOwn(
        _ routed: RoutedRequest, key: Span<UInt8>, isClientsKey: Bool, exptime: Int64?, added: [UInt8]
    ) {
        var request = routed.request
        let bytes = routed.bytes
        if let exptime { request.exptime = exptime }
        switch request.form {
        case .classic:
            switch request.verb {
            case .get, .gets, .gat, .gats:
                if request.verb == .get {
                    append("get ")
                } else {
                    appendTouchingGet(request.verb, exptime: request.exptime)
                }
                append(key)
                append("\r\n")
            default: appendForwarded(request, key: key, bytes.span)
            }
        case .meta:
            if isClientsKey, exptime == nil, added.isEmpty {
                appendForwarded(request, key: key, bytes.span)
            } else {
                appendMetaLine(
                    request, bytes.span, key: isClientsKey ? nil : [UInt8](copying: key), exptime: exptime,
                    added: added)
            }
        case .binary: appendPacket(request, bytes.span, key: key, exptime: exptime)
        }
    }

    /// A meta command's tokens without `q`, under another key, and with another `T`.
    private mutating func appendMetaLine(
        _ request: Request, _ line: Span<UInt8>, key: [UInt8]?, exptime: Int64?, added: [UInt8]
    ) {
        var index = 0
        var tokens = 0
        let isDecoded = request.keyIsDecoded
        while index < line.count {
            while index < line.count, line[index] == UInt8(ascii: " ") { index += 1 }
            let start = index
            while index < line.count, line[index] > 0x20 { index += 1 }
            guard index > start else { break }
            tokens += 1
            let isFlag = tokens > (request.verb == .metaSet ? 3 : 2)
            if isFlag, line[start] == UInt8(ascii: "q") { continue }
            if isFlag, line[start] == UInt8(ascii: "T"), exptime != nil { continue }
            if tokens > 1 { append(UInt8(ascii: " ")) }
            if tokens == 2, let key {
                if isDecoded { Base64.encode(key.span, into: &self) } else { append(key.span) }
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

    /// Appends a command of a route's own making, in text.
    mutating func appendMade(
        _ sub: SubRequest, key: Span<UInt8>, value: Span<UInt8>, exptime: Int64, flags: UInt32, casToken: UInt64,
        delta: UInt64
    ) {
        switch sub.operation {
        case .get: append("get ")
        case .gets: append("gets ")
        case .gat: appendTouchingGet(.gat, exptime: exptime)
        case .gats: appendTouchingGet(.gats, exptime: exptime)
        case .metaGet, .leaseGet: append("mg ")
        case .set: append("set ")
        case .add: append("add ")
        case .replace: append("replace ")
        case .append: append("append ")
        case .prepend: append("prepend ")
        case .cas: append("cas ")
        case .leaseSet: append("ms ")
        case .delete: append("delete ")
        case .increment: append("incr ")
        case .decrement: append("decr ")
        case .touch: append("touch ")
        }
        append(key)
        switch sub.operation {
        case .metaGet: append(" t f s c")
        case .leaseGet: append(" v f c")
        case .set, .add, .replace, .append, .prepend, .cas:
            for number in [Int64(flags), exptime, Int64(value.count)] {
                append(UInt8(ascii: " "))
                append(decimal: number)
            }
            if sub.operation == .cas {
                append(UInt8(ascii: " "))
                append(decimal: casToken)
            }
        case .leaseSet:
            append(UInt8(ascii: " "))
            append(decimal: UInt64(value.count))
            for (letter, number) in [("T", exptime), ("F", Int64(flags)), ("C", Int64(bitPattern: casToken))] {
                append(UInt8(ascii: " "))
                append(string: letter)
                append(decimal: UInt64(bitPattern: number))
            }
        case .increment, .decrement:
            append(UInt8(ascii: " "))
            append(decimal: delta)
        case .touch:
            append(UInt8(ascii: " "))
            append(decimal: exptime)
        case .get, .gets, .gat, .gats, .delete: break
        }
        append("\r\n")
        guard sub.operation.group == .update else { return }
        append(value)
        append("\r\n")
    }
}
