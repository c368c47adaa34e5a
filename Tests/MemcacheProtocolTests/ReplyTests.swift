// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing

@testable import MemcacheProtocol

@Suite struct ReplyTests {
    private func built(_ body: (inout OutputBuffer) -> Void) -> [UInt8] {
        var output = OutputBuffer(capacity: 64)
        body(&output)
        return output.withSpan { span in
            var bytes: [UInt8] = []
            for index in 0..<span.count { bytes.append(span[index]) }
            return bytes
        }
    }

    private func text(_ body: (inout OutputBuffer) -> Void) -> String { String(decoding: built(body), as: UTF8.self) }

    @Test func valueLines() {
        let key = Array("key".utf8)
        #expect(text { $0.appendValueLine(key: key.span, clientFlags: 0, length: 5, cas: nil) } == "VALUE key 0 5\r\n")
        #expect(
            text { $0.appendValueLine(key: key.span, clientFlags: .max, length: 1_048_576, cas: .max) }
                == "VALUE key 4294967295 1048576 18446744073709551615\r\n")
    }

    @Test func metaReplies() {
        let input = Array("mg key O123 k".utf8)
        var request = Request()
        request.opaqueOffset = 7
        request.opaqueLength = 4
        let line = text {
            $0.appendMetaValue(length: 12)
            $0.appendMetaFlag(UInt8(ascii: "c"), 77)
            $0.appendMetaTTL(nil)
            $0.appendMetaTTL(30)
            $0.appendMetaOpaque(of: request, in: input.span)
            $0.appendMetaKey(input.span.extracting(3..<6), isBinary: false)
            $0.appendMetaKey(input.span.extracting(3..<6), isBinary: true)
            $0.appendMetaMark(UInt8(ascii: "W"))
        }
        #expect(line == "VA 12 c77 t-1 t30 O123 kkey ka2V5 b W")
    }

    @Test func binaryReplies() {
        var request = Request()
        request.form = .binary
        request.opcode = BinaryOpcode.getKey
        request.opaque = 0x0102_0304
        let header = built {
            $0.appendBinaryHeader(
                replyTo: request, extrasLength: 4, keyLength: 0x103, bodyLength: 0x1_0205, cas: 0x0a0b)
        }
        #expect(header == [0x81, 0x0c, 1, 3, 4, 0, 0, 0, 0, 1, 2, 5, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 10, 11])
        let missing = built { $0.appendBinaryStatus(.notFound, replyTo: request) }
        #expect(
            missing == [0x81, 0x0c, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4] + [UInt8](repeating: 0, count: 8)
                + Array("Not found".utf8))
        let refused = built { $0.append(.invalidArguments, replyTo: request) }
        #expect(refused.suffix(17) == Array("Invalid arguments".utf8)[...] && refused[7] == 4)
        let name = Array("pid".utf8)
        let value = Array("42".utf8)
        let statistic = built { $0.appendBinaryStatistic(name: name.span, value: value.span, replyTo: request) }
        #expect(
            statistic[1] == BinaryOpcode.stat && statistic[3] == 3 && statistic[11] == 5
                && statistic.suffix(5) == Array("pid42".utf8)[...])
    }

    @Test func everyErrorHasItsOwnTextAndAStatus() {
        #expect(text { $0.append(.badDataChunk, replyTo: Request()) } == "CLIENT_ERROR bad data chunk\r\n")
        for error in ErrorReply.allCases where !error.isNone {
            let line = "\(error.text)"
            #expect(
                line.hasPrefix("CLIENT_ERROR ") || line.hasPrefix("SERVER_ERROR") || line.hasPrefix("ERROR"), "\(error)"
            )
            #expect(error.status != .success, "\(error)")
        }
        #expect(ErrorReply.none.status == .success)
        #expect(ErrorReply.flushNotAllowed.status == .authenticationFailed)
        #expect(ErrorReply.tooLarge.status == .tooLarge)
        #expect(Set(BinaryStatus.allCases.map { "\($0.text)" }).count == BinaryStatus.allCases.count)
    }

    @Test func datagramHeaders() {
        let bytes: [UInt8] = [1, 2, 0, 0, 0, 1, 0, 0, 120]
        let header = DatagramHeader(bytes.span)
        #expect(header == DatagramHeader(requestID: 0x0102, sequence: 0, count: 1))
        #expect(DatagramHeader(bytes.span.extracting(0..<8)) == nil, "nothing after the header")
        let parts: [UInt8] = [1, 2, 0, 0, 0, 2, 0, 0, 120]
        #expect(DatagramHeader(parts.span) == nil, "one of two parts")
        #expect(
            built { DatagramHeader(requestID: 0x0102, sequence: 3, count: 0x0405).append(to: &$0) } == [
                1, 2, 0, 3, 4, 5, 0, 0,
            ])
    }
}

@Suite struct Base64Tests {
    private func decode(_ text: [UInt8]) -> [UInt8]? {
        var output = OutputBuffer(capacity: 64)
        let length = Base64.decode(text.span, into: &output)
        guard length > 0 else {
            #expect(output.count == 0, "a refusal leaves nothing behind")
            return nil
        }
        return output.withSpan { span in (0..<span.count).map { span[$0] } }
    }

    @Test func encodesAndDecodesBack() {
        var random = SeededGenerator(seed: testSeed())
        for length in 1...60 {
            let bytes = (0..<length).map { _ in UInt8(random.below(256)) }
            var output = OutputBuffer(capacity: 64)
            Base64.encode(bytes.span, into: &output)
            let text = output.withSpan { span in (0..<span.count).map { span[$0] } }
            #expect(text.count == (length + 2) / 3 * 4)
            #expect(decode(text) == bytes)
        }
    }

    @Test func decodesAsTheReferenceDoes() {
        var random = SeededGenerator(seed: testSeed())
        let letters = Array("ABYZabyz059+/==*-".utf8)
        for _ in 0..<5_000 {
            let text = (0..<random.below(20)).map { _ in random.pick(letters) }
            #expect(decode(text) == referenceDecode(text), "\(quoted(text))")
        }
    }
}

@Suite struct TokenizerTests {
    private func tokens(_ text: String) -> (Tokenizer, [UInt8]) {
        let line = Array(text.utf8)
        return (Tokenizer(line.span), line)
    }

    @Test func cutsAtSpacesOnly() {
        let (tokens, line) = tokens("  stats  items\tx \r\n")
        #expect(tokens.count == 2)
        #expect(tokens.equals(0, "stats", in: line.span) && tokens.equals(1, "items\tx", in: line.span))
        #expect(!tokens.equals(0, "stat", in: line.span) && !tokens.equals(2, "", in: line.span))
    }

    @Test func keepsTheFirst23() {
        let (tokens, line) = tokens(String(repeating: "t ", count: 30) + "\r\n")
        #expect(tokens.count == 23 && tokens.range(22) == 44..<45 && tokens.range(23).isEmpty)
        #expect(tokens.uint32(22, in: line.span) == nil)
    }

    @Test func subcommandsMayBeShortened() {
        let (tokens, line) = tokens("stats r reset resets reset\u{0}x res\u{0}\r\n")
        let results = (0...6).map { tokens.abbreviates($0, "reset", in: line.span) }
        #expect(results == [false, true, true, false, true, false, false])
    }

    @Test func readsNumbers() {
        let (tokens, line) = tokens("x 4294967295 -5 18446744073709551615 0.5 -9223372036854775808 4294967296\r\n")
        #expect(tokens.uint32(1, in: line.span) == .max && tokens.uint32(6, in: line.span) == nil)
        #expect(tokens.int32(2, in: line.span) == -5 && tokens.uint32(2, in: line.span) == nil)
        #expect(tokens.uint64(3, in: line.span) == .max && tokens.int64(5, in: line.span) == .min)
        #expect(tokens.double(4, in: line.span) == 0.5 && tokens.double(0, in: line.span) == nil)
        #expect(tokens.uint64(9, in: line.span) == nil && tokens.int64(3, in: line.span) == nil)
    }
}
