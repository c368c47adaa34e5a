// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing

@Suite struct HexadecimalTests {
    @Test(
        arguments: [
            (0, "0000000000000000"), (0xab, "00000000000000ab"), (UInt64.max, "ffffffffffffffff"),
            (0x0123_4567_89ab_cdef, "0123456789abcdef"),
        ] as [(UInt64, String)])
    func numbersHaveSixteenDigits(_ number: UInt64, _ digits: String) {
        #expect(Hexadecimal.digits(number) == digits)
    }

    @Test func everyByteHasTwoDigits() {
        #expect(Hexadecimal.digits([]) == "")
        #expect(Hexadecimal.digits([0, 9, 10, 0x7f, 0xff]) == "00090a7fff")
        #expect(Hexadecimal.digits(Array("az".utf8)) == "617a")
    }

    @Test func digitsComeBackAsBytes() {
        let all = [UInt8](0...255)
        #expect(Hexadecimal.bytes(Hexadecimal.digits(all)) == all)
        #expect(Hexadecimal.bytes("00FFaB") == [0, 255, 0xab])
        #expect(Hexadecimal.bytes("") == [])
    }

    @Test(arguments: ["0", "abc", "0g", "g0", "+f", " 1", "1 ", "0x", "é", "@1", "`1", ":1", "/1"])
    func whatIsNotPairsOfDigitsIsRefused(_ text: String) {
        #expect(Hexadecimal.bytes(text) == nil)
    }
}

@Suite struct PercentEncodingTests {
    @Test func unreservedCharactersStay() {
        let text = "AZaz09-._~"
        let bytes = Array(text.utf8)
        #expect(PercentEncoding.encoded(bytes.span) == text)
    }

    @Test func allElseIsEncoded() {
        let bytes: [UInt8] = Array("a b/%+".utf8) + [0, 0x7f, 0xff]
        #expect(PercentEncoding.encoded(bytes.span) == "a%20b%2F%25%2B%00%7F%FF")
    }

    @Test func appendingKeepsWhatIsThere() {
        var text = Array("key=".utf8)
        let bytes = Array("é".utf8)
        PercentEncoding.append(bytes.span, to: &text)
        #expect(text == Array("key=%C3%A9".utf8))
    }
}
