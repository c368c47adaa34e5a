// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// What a step of logging in came to.
package enum AuthenticationOutcome: Sendable, Equatable {
    /// More bytes are wanted: at least `needed` from the offset on, or any more when it is 0. Nothing was consumed.
    case incomplete(needed: Int)
    /// A name and a password to check. The answer is `STORED` and the end of this parser's work, or
    /// ``ErrorReply/loginFailed`` and another try.
    case credentials(user: Range<Int>, password: Range<Int>)
    /// Answer this and go on.
    case refused(ErrorReply)
    /// Close without a word.
    case close
}

/// The login of a text connection under `-Y`: until it succeeds, every line must be `set <any key> <any> <any> <bytes>`
/// with `user password` as its data.
///
/// Lines that are something else are answered with ``ErrorReply/unauthenticated``. Bounded: a line of 2,048 bytes,
/// login data of 16,384.
package struct AuthenticationParser: Sendable {
    /// Bytes of login data that a `set` line announced, with the line end; 0 before one came.
    private var announced = 0

    package init() {}

    /// Looks at `input` from `offset` on and moves `offset` past what it used.
    package mutating func next(_ input: Span<UInt8>, at offset: inout Int) -> AuthenticationOutcome {
        if announced == 0 {
            if let outcome = readLine(input, at: &offset) { return outcome }
        }
        guard input.count - offset >= announced else { return .incomplete(needed: announced) }
        let start = offset
        let end = offset + announced - 2
        offset += announced
        announced = 0
        guard input[end] == UInt8(ascii: "\r"), input[end + 1] == UInt8(ascii: "\n") else {
            return .refused(.badLoginEnd)
        }
        guard let space = input.firstOffset(of: UInt8(ascii: " "), from: start, to: end) else {
            return .refused(.badLoginFormat)
        }
        return .credentials(user: start..<space, password: space + 1..<end)
    }

    /// Takes the line that announces the login data; nil when it is well.
    private mutating func readLine(_ input: Span<UInt8>, at offset: inout Int) -> AuthenticationOutcome? {
        let available = input.count - offset
        guard available >= 3 else { return .incomplete(needed: 3) }
        guard let feed = input.firstOffset(of: UInt8(ascii: "\n"), from: offset, to: input.count) else {
            return available > ProtocolLimits.unterminatedBytes ? .close : .incomplete(needed: 0)
        }
        // memcached hands its tokenizer the line without the line feed, so that one more byte is cut off the end: the
        // carriage return, or where there is none, the last digit.
        guard feed - offset >= 6 else { return .close }
        let line = input.extracting(offset..<feed)
        offset = feed + 1
        let tokens = Tokenizer(line)
        guard tokens.count >= 5, line.holds("set", at: 0), let size = tokens.uint32(4, in: line) else {
            return .refused(.unauthenticated)
        }
        guard Int(size) <= ProtocolLimits.loginBytes else { return .refused(.loginTooLong) }
        announced = Int(size) + 2
        return nil
    }
}
