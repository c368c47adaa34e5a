// Martlet
// SPDX-License-Identifier: Apache-2.0

import MemcacheProtocol
import Memory
import Testing

@testable import Tracing

/// Contexts in requests: read, put in, and what is no context left alone.
struct TraceTokenTests {
    static let trace = "0af7651916cd43dd8448eb211c80319c"
    static let parent = "00-\(trace)-b7ad6b7169203331-01"
    static let fresh = SpanContext(
        traceHigh: 0x0af7_6519_16cd_43dd, traceLow: 0x8448_eb21_1c80_319c, span: 0x1234_5678_9abc_def0, flags: 1)
    static let freshText = "00-\(trace)-123456789abcdef0-01"

    /// The context of the one request in `text`.
    private static func read(_ text: String) -> SpanContext? {
        let bytes = Array(text.utf8)
        var parser = RequestParser()
        var request = Request()
        var decoded = OutputBuffer(capacity: 64)
        var offset = 0
        _ = parser.next(bytes.span, at: &offset, into: &request, decodedKeys: &decoded)
        return TraceToken.context(of: request, in: bytes.span)
    }

    @Test func readsAndWritesATraceparent() throws {
        let context = try #require(SpanContext(traceparent: Self.parent))
        #expect(context.traceText == Self.trace && context.spanText == "b7ad6b7169203331" && context.isSampled)
        #expect(context.traceparent == Self.parent)
        #expect(Self.fresh.traceparent == Self.freshText)
        let later = try #require(SpanContext(traceparent: "cc" + Self.parent.dropFirst(2) + "-more"))
        #expect(later == context)
        #expect(SpanContext(traceparent: Self.parent.dropLast(2) + "fe")?.isSampled == false)
    }

    @Test(arguments: [
        "", "-", String(repeating: "0", count: 55), parent + "-", parent + "0", String(parent.dropLast()),
        "ff" + parent.dropFirst(2), "00-\(String(repeating: "0", count: 32))-b7ad6b7169203331-01",
        "00-\(trace)-0000000000000000-01", parent.uppercased(), "0x" + parent.dropFirst(2),
        parent.replacing("-", with: "_"), "00-\(trace)-b7ad6b7169203331-0g",
    ])
    func refusesWhatIsNoTraceparent(_ text: String) {
        #expect(SpanContext(traceparent: text) == nil)
        #expect(Self.read("mg k v L\(text)\r\n") == nil)
    }

    @Test(arguments: [
        "mg k v L\(parent)\r\n", "mg k L\(parent) v\r\n", "mg k v Lmine;\(parent)\r\n", "mg k v L\(parent);mine\r\n",
        "mg k v L;;\(parent);\r\n", "ms k 2 T0 L\(parent)\r\nhi\r\n", "ms L 2 L\(parent)\r\nhi\r\n",
        "md k q L\(parent)\n",
        "ma  k   L\(parent)\r\n", "mg bWV0YQ== b v L\(parent)\r\n",
    ])
    func findsTheContextOfARequest(_ text: String) {
        #expect(Self.read(text)?.traceparent == Self.parent)
    }

    @Test(arguments: [
        "mg k v\r\n", "mg L\(parent) v\r\n", "get L\(parent)\r\n", "mg k v O\(parent)\r\n", "mg k v Lmine\r\n",
        "mg k v L\(parent)x\r\n", "mg k v L\(parent),mine\r\n", "mn L\(parent)\r\n", "mg k v L\r\n",
        "mg k v L\(String(repeating: ";", count: 20))\(parent)\r\n",
    ])
    func seesNoContextWhereNoneIs(_ text: String) { #expect(Self.read(text) == nil) }

    @Test(arguments: [
        ("mg k v\r\n", "mg k v L\(freshText)\r\n"),
        ("mg k\r\n", "mg k L\(freshText)\r\n"),
        ("mg k v L\(parent) t\r\n", "mg k v L\(freshText) t\r\n"),
        ("mg k v Lmine t\r\n", "mg k v L\(freshText);mine t\r\n"),
        ("mg k v La;\(parent);b\r\n", "mg k v La;\(freshText);b\r\n"),
        ("mg k v L01-\(parent.dropFirst(3))-more\r\n", "mg k v L\(freshText)\r\n"),
        ("mg k v L\r\n", "mg k v L\(freshText)\r\n"),
        ("ms k 6 T0\r\nL1\r\nL2\r\n", "ms k 6 T0 L\(freshText)\r\nL1\r\nL2\r\n"),
        ("ms L 2\r\nhi\r\n", "ms L 2 L\(freshText)\r\nhi\r\n"),
        ("md L\r\n", "md L L\(freshText)\r\n"),
    ])
    func putsAContextIn(_ before: String, _ after: String) {
        var output = OutputBuffer(capacity: 64)
        output.append("get before\r\n")
        let start = output.count
        output.append(string: before)
        let isCarried = output.carry(Self.fresh, from: start)
        #expect(isCarried)
        #expect(output.withSpan { String(decoding: [UInt8](copying: $0), as: UTF8.self) } == "get before\r\n" + after)
    }

    @Test(arguments: [
        "get k\r\n", "set k 0 0 2\r\nhi\r\n", "me k\r\n", "mn\r\n", "mgx k\r\n", "gat 0 k\r\n",
        "mg k " + "stkvfchlqOTNRMDJCIEuP".prefix(18).map { "\($0)" }.joined(separator: " ") + "\r\n",
        "mg k O\(String(repeating: "o", count: 1900))\r\n",
    ])
    func leavesACommandAloneThatCanCarryNone(_ text: String) {
        var output = OutputBuffer(capacity: 64)
        output.append(string: text)
        let isCarried = output.carry(Self.fresh, from: 0)
        #expect(!isCarried)
        #expect(output.withSpan { String(decoding: [UInt8](copying: $0), as: UTF8.self) } == text)
    }

    /// Whatever stands in a token, what comes out holds the new context once, and everything else of it.
    @Test func keepsWhatElseATokenHolds() {
        let seed = UInt64.random(in: .min ... .max)
        var state = seed
        func next(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(limit))
        }
        let pieces = [";", "x", "L", "-", "00", Self.parent, String(Self.parent.dropLast()), "=", "\u{e9}"]
        for _ in 0..<2000 {
            let content = (0..<next(7)).map { _ in pieces[next(pieces.count)] }.joined()
            var output = OutputBuffer(capacity: 64)
            output.append(string: "mg k v L\(content) t\r\n")
            let isCarried = output.carry(Self.fresh, from: 0)
            #expect(isCarried, "seed \(seed)")
            let line = output.withSpan { String(decoding: [UInt8](copying: $0), as: UTF8.self) }
            #expect(Self.read(line) == Self.fresh, "seed \(seed): \(line)")
            let fields = content.split(separator: ";", omittingEmptySubsequences: false)
            let own = fields.firstIndex(of: Self.parent[...])
            var expected = fields.map(String.init)
            if let own {
                expected[own] = Self.freshText
            } else {
                expected = [Self.freshText] + (content.isEmpty ? [] : expected)
            }
            #expect(line == "mg k v L\(expected.joined(separator: ";")) t\r\n", "seed \(seed)")
        }
    }
}
