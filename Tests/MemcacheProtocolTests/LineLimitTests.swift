// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MemcacheProtocol
import Memory

@Suite struct LineLimitTests {
    private func outcome(_ text: String, limit: Int = 64 << 20) -> ParseOutcome {
        var parser = RequestParser(RequestParserConfiguration(getLineBytes: limit))
        var offset = 0
        var request = Request()
        var keys = OutputBuffer(capacity: 64)
        let bytes = Array(text.utf8)
        return parser.next(bytes.span, at: &offset, into: &request, decodedKeys: &keys)
    }

    @Test func over2048BytesWithoutALineFeedClose() {
        let filler = String(repeating: "x", count: 2046)
        #expect(outcome("x " + filler) == .incomplete(needed: 0))
        #expect(outcome("xx " + filler) == .close)
        #expect(outcome("gat 0 " + filler) == .close)
        #expect(outcome("mg k " + filler) == .close)
        #expect(outcome("set k " + filler) == .close)
    }

    @Test func getLinesMayGrow() {
        let filler = String(repeating: " key", count: 5000)
        #expect(outcome("get" + filler) == .incomplete(needed: 0))
        #expect(outcome("gets" + filler) == .incomplete(needed: 0))
        #expect(outcome("gett" + filler) == .close)
        #expect(outcome(String(repeating: " ", count: 100) + "get" + filler) == .incomplete(needed: 0))
        #expect(outcome(String(repeating: " ", count: 101) + "get" + filler) == .close)
        #expect(outcome("get" + filler, limit: 20_000) == .close)
        #expect(outcome("get" + filler + "\r\n", limit: 20_000) == .close)
    }

    @Test func linesThatArriveWholeMayHave16384Bytes() {
        let most = "delete k " + String(repeating: "x", count: 16384 - 11)
        #expect(outcome(most + "\r\n") == .complete)
        #expect(outcome(most + "x\r\n") == .close)
        let meta = "mg k O" + String(repeating: "x", count: 16384 - 8)
        #expect(outcome(meta + "\r\n") == .complete)
        #expect(outcome(meta + "x\r\n") == .close)
    }

    @Test func spacesBeforeAGetMakeItNoCommand() {
        let line = String(repeating: " ", count: 50) + "get" + String(repeating: " key", count: 6000) + "\r\n"
        #expect(only(line).error == .error)
    }

    @Test func a200000KeyLineYieldsAllOfThem() {
        var line = Array("get".utf8)
        for index in 0..<200_000 { line += Array(" key:\(index)".utf8) }
        line += [13, 10]
        var parser = RequestParser()
        var offset = 0
        var request = Request()
        var keys = OutputBuffer(capacity: 64)
        // Arrives in 16 KiB pieces; the parser must not look at old ones again.
        var incomplete = 0
        for end in stride(from: 16384, to: line.count, by: 16384) {
            let outcome = parser.next(line.span.extracting(0..<end), at: &offset, into: &request, decodedKeys: &keys)
            if outcome == .incomplete(needed: 0) { incomplete += 1 }
            #expect(parser.scanned == end, "the next look starts here")
        }
        #expect(incomplete == line.count / 16384 && offset == 0)
        var count = 0
        while offset < line.count {
            guard parser.next(line.span, at: &offset, into: &request, decodedKeys: &keys) == .complete else { break }
            #expect(request.isLastKeyOfGet == (count == 199_999))
            count += 1
        }
        #expect(count == 200_000)
        #expect(request.keyLength == "key:199999".utf8.count)
    }

    @Test func bytesBeyond65534AreNotCutIntoTokens() {
        let gap = String(repeating: " ", count: 65534 - 3)
        #expect(only("get" + gap + "key\r\n").error == .badCommandLine, "the only key starts too far out")
        let list = events("get k" + gap + "far\r\n")
        #expect(list.map(\.keyText) == ["k", "far"])
        // memcached's tokenizer ends the first key at its limit; the rest of it counts as a key of its own.
        let cut = events("get" + String(repeating: " ", count: 65534 - 7) + "abcdefgh\r\n")
        #expect(cut.map(\.keyText) == ["abc", "defgh"])
    }
}
