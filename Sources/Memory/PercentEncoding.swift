// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Bytes as text of unreserved characters: letters, digits and `-._~` as they are, all else as `%XX`. Source: RFC 3986,
/// 2.1 and 2.3.
package enum PercentEncoding {
    private static func digit(_ value: UInt8) -> UInt8 { value < 10 ? 48 + value : 55 + value }

    /// `bytes` as text.
    package static func encoded(_ bytes: Span<UInt8>) -> String {
        var text: [UInt8] = []
        append(bytes, to: &text)
        return String(decoding: text, as: UTF8.self)
    }

    /// The bytes of a text; nil where what follows a percent sign is no number.
    package static func decoded(_ text: [UInt8]) -> [UInt8]? {
        var bytes: [UInt8] = []
        var index = 0
        while index < text.count {
            guard text[index] == UInt8(ascii: "%") else {
                bytes.append(text[index])
                index += 1
                continue
            }
            guard index + 2 < text.count,
                let byte = Hexadecimal.bytes(String(decoding: text[index + 1...index + 2], as: UTF8.self))
            else { return nil }
            bytes += byte
            index += 3
        }
        return bytes
    }

    /// Appends `bytes` as text.
    package static func append(_ bytes: Span<UInt8>, to text: inout [UInt8]) {
        for index in bytes.indices {
            let byte = bytes[index]
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                text.append(byte)
            default:
                text.append(UInt8(ascii: "%"))
                text.append(digit(byte >> 4))
                text.append(digit(byte & 15))
            }
        }
    }
}
