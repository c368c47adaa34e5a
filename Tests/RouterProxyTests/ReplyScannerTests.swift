// Martlet
// SPDX-License-Identifier: Apache-2.0

import MemcacheProtocol
import Memory
import Testing

@testable import RouterProxy

/// What a scanner that is offered `bytes` piece by piece, as a reactor offers input, cuts them into.
private func cuts(_ bytes: [UInt8], _ shape: ReplyShape, pieces: [Int]) -> [String]? {
    var found: [String] = []
    var kept: [UInt8] = []
    var at = 0
    var minimum = 1
    for size in pieces + [bytes.count - at] {
        let end = min(at + max(size, 0), bytes.count)
        kept += bytes[at..<end]
        at = end
        guard kept.count >= minimum || at == bytes.count else { continue }
        minimum = 1
        var offset = 0
        scanning: while offset < kept.count {
            switch ReplyScanner.next(kept.span, at: offset, shape) {
            case .block(let total, let ends):
                guard total <= kept.count - offset else {
                    minimum = total
                    break scanning
                }
                found.append((ends ? "B:" : "b:") + String(decoding: kept[offset..<offset + total], as: UTF8.self))
                offset += total
            case .last(let length):
                found.append("l:" + String(decoding: kept[offset..<offset + length], as: UTF8.self))
                offset += length
            case .incomplete(let needed):
                minimum = max(needed, 1)
                break scanning
            case .malformed: return nil
            }
        }
        kept.removeFirst(offset)
    }
    return kept.isEmpty ? found : nil
}

@Suite struct ReplyScannerTests {
    static let samples: [(ReplyShape, [String])] = [
        (.values, ["b:VALUE key 0 3\r\nabc\r\n", "l:END\r\n", "l:END\r\n"]),
        (
            .values,
            ["b:VALUE k 4294967295 0 18446744073709551615\r\n\r\n", "b:VALUE b 1 5 7\r\nEND\r\n\r\n", "l:END\r\n"]
        ),
        (.values, ["l:SERVER_ERROR out of memory\r\n", "l:CLIENT_ERROR bad command line format\r\n", "l:ERROR\r\n"]),
        (.line, ["l:STORED\r\n", "l:12\r\n", "l:VALUE k 0 1\r\n", "l:NOT_FOUND\r\n"]),
        (
            .meta,
            ["l:HD t-1 Oabc\r\n", "B:VA 2 f0\r\nhi\r\n", "B:VA 0\r\n\r\n", "l:EN\r\n", "l:ME key exp=-1 la=0\r\n"]
        ),
        (.meta, ["B:VA 4 kkey s4\r\n\r\n\r\n\r\n", "l:NF kVA O1\r\n"]),
    ]

    @Test(arguments: samples)
    func cutsRepliesWhereverTheyAreSplit(_ shape: ReplyShape, _ expected: [String]) {
        let bytes = Array(expected.map { $0.dropFirst(2) }.joined().utf8)
        for split in 0...bytes.count {
            #expect(cuts(bytes, shape, pieces: [split]) == expected, "split at \(split)")
        }
        #expect(cuts(bytes, shape, pieces: Array(repeating: 1, count: bytes.count)) == expected)
    }

    @Test func cutsPacketsWhereverTheyAreSplit() {
        var output = OutputBuffer(capacity: 256)
        output.appendBinaryHeader(
            opcode: 0, status: .success, extrasLength: 4, keyLength: 0, bodyLength: 9, opaque: 7, cas: 1)
        output.append("\u{0}\u{0}\u{0}\u{0}hello")
        output.appendBinaryHeader(
            opcode: 1, status: .success, extrasLength: 0, keyLength: 0, bodyLength: 0, opaque: 8, cas: 2)
        let bytes = output.withSpan { [UInt8](copying: $0) }
        for split in 0...bytes.count {
            #expect(cuts(bytes, .binary, pieces: [split])?.map(\.utf8.first) == [UInt8(ascii: "B"), UInt8(ascii: "B")])
        }
    }

    @Test(arguments: [
        (ReplyShape.values, "VALUE k x 1\r\na\r\nEND\r\n"), (.values, "VALUE k 0\r\n"),
        (.values, "VALUE k 0 3\r\nabcdXX"),
        (.values, "VALUE k 0 1073741825\r\n"), (.values, "VALUE k 0 1x\r\na\r\n"), (.meta, "VA x\r\n"),
        (.meta, "VA 2 f0\nhi\r\n"), (.meta, "VA 2\r\nhiXX"), (.line, "STORED\n"), (.line, "\n"),
        (.binary, String(repeating: "A", count: 24)),
    ])
    func refusesWhatIsNoReply(_ shape: ReplyShape, _ text: String) {
        let bytes = Array(text.utf8)
        #expect(ReplyScanner.next(bytes.span, at: 0, shape) == .malformed)
    }

    @Test func refusesALineWithoutEnd() {
        let bytes = [UInt8](repeating: UInt8(ascii: "a"), count: ReplyScanner.lineLimit)
        for shape in [ReplyShape.values, .line, .meta] {
            #expect(ReplyScanner.next(bytes.span, at: 0, shape) == .malformed)
            let short = Array(bytes.dropLast())
            #expect(ReplyScanner.next(short.span, at: 0, shape) == .incomplete(needed: 0))
        }
        let value = Array("VALUE ".utf8) + bytes
        #expect(ReplyScanner.next(value.span, at: 0, .values) == .malformed)
    }

    /// Any bytes: a step never reads outside of them, and what it says fits what is there.
    @Test func survivesAnyBytes() {
        var generator = SystemRandomNumberGenerator()
        let words = ["VALUE ", "VA ", "END\r\n", "k ", "0 ", "3", "\r\n", "abc", "\u{1}", "HD", " 99999999999", "\n"]
        for _ in 0..<20_000 {
            var bytes: [UInt8] = []
            for _ in 0..<Int.random(in: 0...8, using: &generator) {
                if Int.random(in: 0..<4, using: &generator) == 0 {
                    bytes.append(UInt8.random(in: 0...255, using: &generator))
                } else {
                    bytes += Array(words[Int.random(in: words.indices, using: &generator)].utf8)
                }
            }
            for shape in [ReplyShape.values, .line, .meta, .binary] {
                switch ReplyScanner.next(bytes.span, at: 0, shape) {
                case .last(let length): #expect(length > 0 && length <= bytes.count)
                case .block(let total, _): #expect(total > 0 && total <= 1 << 31)
                case .incomplete, .malformed: break
                }
            }
        }
    }
}
