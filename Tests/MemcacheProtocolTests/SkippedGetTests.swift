// Martlet
// SPDX-License-Identifier: Apache-2.0

import MemcacheProtocol
import Memory
import Testing

@Suite struct SkippedGetTests {
    /// A parser that knows that its connection speaks text.
    private func textParser() -> RequestParser { RequestParser(RequestParserConfiguration(restriction: .text)) }

    private func skipped(_ text: String) -> Int {
        let input = Array(text.utf8)
        var offset = 0
        let parser = textParser()
        while parser.skipPlainGet(input.span, at: &offset) {}
        return offset
    }

    @Test func movesPastGetsOfOneKey() {
        #expect(skipped("get key\r\nget a1\nget b22\r\n") == 25)
        #expect(skipped("get key\r\ngets k\r\nget key\r\n") == 9)
        // Of what is shorter than a word, the parser looks at each byte.
        #expect(skipped("get b\r\n") == 0)
        #expect(skipped("get \(String(repeating: "k", count: 250))\r\n") == 256)
    }

    @Test func stopsAtEverythingElse() {
        let long = String(repeating: "k", count: 251)
        for text in [
            "get a b\r\n", "get  a\r\n", "get a \r\n", "get \r\nxxxx", "get\r\nxxxx", "get keykey", "gets k\r\n",
            "GET key\r\n",
            "mg key v\r\n", "set k 0 0 1\r\nx\r\n", "get \(long)\r\n", "",
        ] {
            #expect(skipped(text) == 0, "\(text)")
        }
    }

    /// Where it moves, the parser finds the request that it says, and as long.
    @Test func skipsWhatIsParsed() {
        let seed = testSeed()
        var generator = CommandGenerator(seed: seed)
        var count = 0
        var keys = OutputBuffer(capacity: 4096)
        for round in 0..<50_000 {
            let stream = generator.stream()
            var skipped = 0
            var parsed = 0
            var request = Request()
            var parser = textParser()
            guard parser.skipPlainGet(stream.span, at: &skipped) else { continue }
            count += 1
            let outcome = parser.next(stream.span, at: &parsed, into: &request, decodedKeys: &keys)
            guard outcome == .complete, request.verb == .get, request.isLastKeyOfGet, request.error.isNone,
                parsed == skipped
            else {
                Issue.record("seed \(seed), round \(round): \(quoted(stream))")
                return
            }
        }
        #expect(count > 100, "seed \(seed)")
    }
}
