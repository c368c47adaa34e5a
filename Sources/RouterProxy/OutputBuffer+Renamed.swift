// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory

/// Replies of servers to the client's own command, which went there under another key or with more flags.
extension OutputBuffer {
    /// Appends a server's meta or binary reply under the client's key and opcode.
    mutating func appendRenamed(_ part: RoutedRequest.Part, _ routed: RoutedRequest) {
        let (bytes, key) = (part.bytes, routed.key)
        guard part.form == .binary else {
            return append(
                metaReply: bytes.span, key: key, isDecoded: routed.request.keyIsDecoded, without: part.added,
                withheldKey: routed.asksNoKey ? key : nil)
        }
        let at = count
        let extras = BinaryHeader.bytes + Int(bytes[4])
        let length = Int(bytes.span.bigEndian(at: 2, as: UInt16.self))
        append(bytes.span.extracting(0..<min(extras, bytes.count)))
        if length > 0 { append(key.span) }
        append(bytes.span.extracting(min(extras + length, bytes.count)..<bytes.count))
        patch(bigEndian: routed.request.opcode, at: at + 1)
        if length > 0 { patch(bigEndian: UInt16(truncatingIfNeeded: key.count), at: at + 2) }
        patch(bigEndian: UInt32(truncatingIfNeeded: count - at - BinaryHeader.bytes), at: at + 8)
    }

    /// Appends a meta reply with another key where it names one, and without the flags of these letters; with the key
    /// that was not asked for.
    mutating func append(
        metaReply reply: Span<UInt8>, key: [UInt8]?, isDecoded: Bool = false, without letters: [UInt8],
        withheldKey: [UInt8]? = nil
    ) {
        let end = reply.lineTextEnd
        // `VA` has the length behind it, `ME` the key.
        let namesKey = reply.holds("ME ", at: 0)
        let fixed = reply.holds("VA ", at: 0) || namesKey ? 2 : 1
        let isBinary = Self.hasFlag(UInt8(ascii: "b"), reply, end, from: fixed)
        var index = 0
        var words = 0
        while index < end {
            let start = index
            index += 1
            while index < end, reply[index] != UInt8(ascii: " ") { index += 1 }
            words += 1
            if words <= fixed {
                if namesKey, words == 2, let key {
                    append(UInt8(ascii: " "))
                    if isDecoded { appendBase64(key.span) } else { append(key.span) }
                } else {
                    append(reply.extracting(start..<index))
                }
                continue
            }
            let letter = start + 1 < index ? reply[start + 1] : 0
            if letters.contains(letter) { continue }
            if let key, !namesKey, letter == UInt8(ascii: "k") {
                appendMetaKey(key.span, isBinary: isBinary)
            } else if key == nil || namesKey || letter != UInt8(ascii: "b") {
                append(reply.extracting(start..<index))
            }
        }
        if let withheldKey { appendMetaKey(withheldKey.span, isBinary: true) }
        append(reply.extracting(end..<reply.count))
    }

    /// Whether a reply's line has a flag behind its first words.
    private static func hasFlag(_ letter: UInt8, _ reply: Span<UInt8>, _ end: Int, from fixed: Int) -> Bool {
        var words = 0
        var isFirst = true
        for index in 0..<end {
            if reply[index] == UInt8(ascii: " ") {
                words += 1
                isFirst = true
            } else {
                if isFirst, words >= fixed, reply[index] == letter { return true }
                isFirst = false
            }
        }
        return false
    }
}
