// Martlet
// SPDX-License-Identifier: Apache-2.0

package import MemcacheProtocol
package import Memory

/// Where a trace's context travels in memcached's protocol: in the `L` token of a meta command, which servers pass
/// over.
///
/// The token holds fields with `;` between them. The first that spells a `traceparent` is the context; everything else
/// is the client's, and stays as it is. `O` is no place for it: it is the client's own, and has 32 bytes at most.
package enum TraceToken {
    /// Fields of a token that are looked at.
    static var fieldLimit: Int { 16 }
    /// Tokens of a meta command at most. Source: memcached 1.6.45, PARSER_MAX_TOKENS.
    static var tokenLimit: Int { 20 }
    /// Bytes of a line that a context is put into at most: memcached closes connections whose lines grow past 2,048.
    static var lineLimit: Int { 1900 }

    /// The context that a request carries; nil when it carries none. Allocates nothing.
    package static func context(of request: borrowing Request, in input: Span<UInt8>) -> SpanContext? {
        guard request.form == .meta, request.options.contains(MetaOptions(letter: UInt8(ascii: "L"))) else {
            return nil
        }
        let line = MetaLineScan(input, from: request.lineOffset)
        guard let token = line.token, let field = contextField(input, token) else { return nil }
        return SpanContext(input.extracting(field))
    }

    /// The field of a token's content that is a context.
    static func contextField(_ input: Span<UInt8>, _ content: Range<Int>) -> Range<Int>? {
        var start = content.lowerBound
        for _ in 0..<fieldLimit {
            var end = start
            while end < content.upperBound, input[end] != UInt8(ascii: ";") { end += 1 }
            if SpanContext(input.extracting(start..<end)) != nil { return start..<end }
            guard end < content.upperBound else { return nil }
            start = end + 1
        }
        return nil
    }
}

/// What is to be known of a meta command's line to read or change its `L` token.
struct MetaLineScan {
    /// Where the line ends, before its line end.
    let end: Int
    /// How many tokens it has.
    private(set) var tokens = 0
    /// What stands behind the letter of its `L` token; nil when it has none.
    private(set) var token: Range<Int>?
    /// Whether it is a command that may have one: mg, ms, md or ma.
    let takesToken: Bool

    init(_ input: Span<UInt8>, from start: Int) {
        let feed = input.firstOffset(of: UInt8(ascii: "\n"), from: start, to: input.count) ?? input.count
        end = feed > start && input[feed - 1] == UInt8(ascii: "\r") ? feed - 1 : feed
        var stores = false
        if end - start > 3, input[start] == UInt8(ascii: "m"), input[start + 2] == UInt8(ascii: " ") {
            let letter = input[start + 1]
            stores = letter == UInt8(ascii: "s")
            takesToken = stores || [UInt8(ascii: "g"), UInt8(ascii: "d"), UInt8(ascii: "a")].contains(letter)
        } else {
            takesToken = false
        }
        guard takesToken else { return }
        // Behind the name, the key and, where something is stored, its length.
        let first = stores ? 3 : 2
        var index = start
        while index < end {
            while index < end, input[index] == UInt8(ascii: " ") { index += 1 }
            let begin = index
            while index < end, input[index] != UInt8(ascii: " ") { index += 1 }
            guard index > begin else { return }
            if tokens >= first, token == nil, input[begin] == UInt8(ascii: "L") { token = begin + 1..<index }
            tokens += 1
        }
    }
}

extension OutputBuffer {
    /// Puts `context` into the meta command that begins at `start` and goes to the buffer's end: in place of the one
    /// that its `L` token has, in front of what else that holds, or in a token of its own. False, and nothing done,
    /// where the command can carry none, or has no room. Allocates: for requests that are recorded.
    @discardableResult
    package mutating func carry(_ context: SpanContext, from start: Int) -> Bool {
        let command = withSpan { [UInt8](copying: $0.extracting(start..<$0.count)) }
        let text = context.traceparent
        let line = MetaLineScan(command.span, from: 0)
        guard line.takesToken, line.end + text.utf8.count + 2 <= TraceToken.lineLimit else { return false }
        var (head, tail) = (line.end, line.end)
        var (before, after) = (" L", "")
        if let token = line.token {
            before = ""
            if let field = TraceToken.contextField(command.span, token) {
                (head, tail) = (field.lowerBound, field.upperBound)
            } else {
                (head, tail) = (token.lowerBound, token.lowerBound)
                if !token.isEmpty { after = ";" }
            }
        } else if line.tokens >= TraceToken.tokenLimit {
            return false
        }
        truncate(to: start, externalCount: externals.count)
        append(command.span.extracting(0..<head))
        append(string: before)
        append(string: text)
        append(string: after)
        append(command.span.extracting(tail..<command.count))
        return true
    }
}
