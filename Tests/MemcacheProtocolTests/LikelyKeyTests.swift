// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MemcacheProtocol

@Suite struct LikelyKeyTests {
    private func key(_ input: [UInt8]) -> String? {
        likelyKey(input.span).map { String(decoding: input[$0], as: UTF8.self) }
    }

    private func key(_ text: String) -> String? { key(Array(text.utf8)) }

    @Test func isTheTokenBehindTheCommand() {
        #expect(key("get some:key\r\n") == "some:key")
        #expect(key("get some:key\nget other\n") == "some:key")
        #expect(key("get a b c\r\n") == "a")
        #expect(key("set key 0 0 5\r\nvalue\r\n") == "key")
        #expect(key("mg key v\r\n") == "key")
        #expect(key("replace k 0 0 1\r\n1\r\n") == "k")
        #expect(key("get not-whole") == "not-whole")
    }

    @Test func isWhereABinaryHeaderSays() {
        var packet = [UInt8](repeating: 0, count: 24)
        packet[0] = 0x80
        packet[3] = 3
        packet[4] = 8
        #expect(key(packet + [UInt8](repeating: 0, count: 8) + Array("abcdef".utf8)) == "abc")
        #expect(key(packet + [UInt8](repeating: 0, count: 8) + Array("ab".utf8)) == nil)
        #expect(key(packet) == nil)
    }

    @Test func isNothingWhereThereIsNone() {
        #expect(key("mn\r\n") == nil)
        #expect(key("version\r\n") == nil)
        #expect(key("flush_all\r\n") == nil)
        #expect(key("get      ") == nil)
        #expect(key("get \r\nxxxx") == nil)
        #expect(key("get " + String(repeating: "k", count: 251) + "\r\n") == nil)
    }

    @Test func neverLeavesItsInput() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            let count = Int.random(in: 0..<64, using: &generator)
            var input = (0..<count).map { _ in
                [0x20, 0x0A, 0x0D, 0x61, 0x80, 0x00, 0x21].randomElement(using: &generator) ?? UInt8(0)
            }
            if count > 0, Bool.random(using: &generator) { input[0] = 0x80 }
            if let range = likelyKey(input.span) {
                #expect(!range.isEmpty && range.lowerBound >= 0 && range.upperBound <= input.count)
            }
        }
    }
}
