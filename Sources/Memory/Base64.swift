// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Bytes as text of 64 letters. Source: RFC 4648, 4.
@usableFromInline
package enum Base64 {
    private static let invalid: UInt8 = 0x80

    /// The value of a letter; `=` is 0; 0x80 for what is no letter.
    private static func value(_ letter: UInt8) -> UInt8 {
        switch letter {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): letter - 65
        case UInt8(ascii: "a")...UInt8(ascii: "z"): letter - 97 + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): letter - 48 + 52
        case UInt8(ascii: "+"): 62
        case UInt8(ascii: "/"): 63
        case UInt8(ascii: "="): 0
        default: invalid
        }
    }

    private static func letter(_ value: UInt8) -> UInt8 {
        switch value & 63 {
        case let value where value < 26: value + 65
        case let value where value < 52: value - 26 + 97
        case let value where value < 62: value - 52 + 48
        case 62: UInt8(ascii: "+")
        default: UInt8(ascii: "/")
        }
    }

    /// Appends what `text` decodes to and returns its length; 0, with nothing appended, when it is not base64.
    ///
    /// As memcached's decoder of meta commands' keys: bytes that are no letters are skipped, the letters must be a
    /// multiple of four, and the first padded group ends it.
    package static func decode(_ text: Span<UInt8>, into output: inout OutputBuffer) -> Int {
        var letters = 0
        for index in 0..<text.count where value(text[index]) != invalid { letters += 1 }
        guard letters > 0, letters % 4 == 0 else { return 0 }
        var group: UInt32 = 0
        var filled = 0
        var padding = 0
        var decoded = 0
        for index in 0..<text.count {
            let six = value(text[index])
            if six == invalid { continue }
            if text[index] == UInt8(ascii: "=") { padding += 1 }
            group = group << 6 | UInt32(six)
            filled += 1
            guard filled == 4 else { continue }
            guard padding < 3 else {
                output.truncate(to: output.count - decoded, externalCount: output.externals.count)
                return 0
            }
            for place in 0..<(3 - padding) {
                output.append(UInt8(truncatingIfNeeded: group >> UInt32(16 - 8 * place)))
            }
            decoded += 3 - padding
            if padding > 0 { break }
            group = 0
            filled = 0
        }
        return decoded
    }

    /// How many letters say that many bytes.
    package static func length(of bytes: Int) -> Int { (bytes + 2) / 3 * 4 }

    /// Appends `bytes` as base64.
    package static func encode(_ bytes: Span<UInt8>, into output: inout OutputBuffer) {
        var index = 0
        while index < bytes.count {
            let present = min(3, bytes.count - index)
            var group = UInt32(bytes[index]) << 16
            if present > 1 { group |= UInt32(bytes[index + 1]) << 8 }
            if present > 2 { group |= UInt32(bytes[index + 2]) }
            for place in 0..<4 {
                if place > present {
                    output.append(UInt8(ascii: "="))
                } else {
                    output.append(letter(UInt8(truncatingIfNeeded: group >> UInt32(18 - 6 * place) & 63)))
                }
            }
            index += 3
        }
    }

    /// `bytes` as text, padded to a multiple of four letters.
    package static func encoded(_ bytes: [UInt8]) -> String {
        var output = OutputBuffer(capacity: bytes.count / 3 * 4 + 4)
        encode(bytes.span, into: &output)
        return output.withSpan { text in String(decoding: text.indices.map { text[$0] }, as: UTF8.self) }
    }

    /// What `text` stands for, padded or not; nil where a letter is none of the 64.
    package static func decoded(_ text: String) -> [UInt8]? {
        var result: [UInt8] = []
        var (word, bits) = (0, 0)
        for byte in text.utf8 where byte != UInt8(ascii: "=") {
            let digit = value(byte)
            guard digit != invalid else { return nil }
            word = (word << 6 | Int(digit)) & 0xff_ffff
            bits += 6
            if bits >= 8 {
                bits -= 8
                result.append(UInt8(word >> bits & 255))
            }
        }
        return result
    }
}
