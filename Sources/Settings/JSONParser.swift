// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Reads JSON, with comments or without: `//` and `/* */` are skipped, and a comma may stand behind the last
/// element. Of two entries with one key the last counts.
package struct JSONParser {
    /// Bytes of a file at most.
    static let sizeLimitBytes = 16 << 20
    /// Levels of nesting at most.
    static let depthLimit = 100

    private let bytes: [UInt8]
    private let file: String
    private var offset = 0
    private var line = 1

    private init(_ bytes: [UInt8], _ file: String) {
        self.bytes = bytes
        self.file = file
    }

    /// The one value of a file; `file` is its name in messages. Throws what is no JSON, with its line.
    package static func parse(_ bytes: [UInt8], file: String) throws(PlacedProblem) -> JSONNode {
        guard bytes.count <= sizeLimitBytes else {
            throw PlacedProblem("larger than \(sizeLimitBytes >> 20) MiB", at: JSONNode.Place(file: file, line: 1))
        }
        var parser = JSONParser(bytes, file)
        let node = try parser.value(depth: 0)
        try parser.skip()
        guard parser.offset == bytes.count else { throw parser.problem("more behind the end of the value") }
        return node
    }

    private var place: JSONNode.Place { JSONNode.Place(file: file, line: line) }

    private func problem(_ text: String) -> PlacedProblem { PlacedProblem("not valid JSON: \(text)", at: place) }

    private var next: UInt8? { offset < bytes.count ? bytes[offset] : nil }

    /// Skips blanks and comments.
    private mutating func skip() throws(PlacedProblem) {
        while let byte = next {
            if byte == 10 { line += 1 }
            if [9, 10, 13, 32].contains(byte) {
                offset += 1
            } else if byte == UInt8(ascii: "/"), offset + 1 < bytes.count, bytes[offset + 1] == byte {
                while let rest = next, rest != 10 { offset += 1 }
            } else if byte == UInt8(ascii: "/"), offset + 1 < bytes.count, bytes[offset + 1] == UInt8(ascii: "*") {
                try skipComment()
            } else {
                return
            }
        }
    }

    private mutating func skipComment() throws(PlacedProblem) {
        let start = line
        offset += 2
        while offset + 1 < bytes.count {
            if bytes[offset] == 10 { line += 1 }
            if bytes[offset] == UInt8(ascii: "*"), bytes[offset + 1] == UInt8(ascii: "/") {
                offset += 2
                return
            }
            offset += 1
        }
        line = start
        throw problem("a comment without an end")
    }

    private mutating func value(depth: Int) throws(PlacedProblem) -> JSONNode {
        guard depth < Self.depthLimit else { throw problem("nested more than \(Self.depthLimit) levels deep") }
        try skip()
        let start = place
        switch next {
        case UInt8(ascii: "{"): return JSONNode(.object(try object(depth)), at: start)
        case UInt8(ascii: "["): return JSONNode(.array(try array(depth)), at: start)
        case UInt8(ascii: "\""): return JSONNode(.text(try text()), at: start)
        case nil: throw problem("the end, where a value is expected")
        default: return JSONNode(try word(), at: start)
        }
    }

    private mutating func object(_ depth: Int) throws(PlacedProblem) -> JSONObject {
        var object = JSONObject()
        offset += 1
        while true {
            try skip()
            if next == UInt8(ascii: "}") { break }
            guard next == UInt8(ascii: "\"") else { throw problem("expected a key in quotes, or }") }
            let key = try text()
            try skip()
            guard next == UInt8(ascii: ":") else { throw problem("expected a colon behind the key \(key)") }
            offset += 1
            object[key] = try value(depth: depth + 1)
            try skip()
            if next == UInt8(ascii: ",") { offset += 1 } else { break }
        }
        guard next == UInt8(ascii: "}") else { throw problem("expected a comma or }") }
        offset += 1
        return object
    }

    private mutating func array(_ depth: Int) throws(PlacedProblem) -> [JSONNode] {
        var elements: [JSONNode] = []
        offset += 1
        while true {
            try skip()
            if next == UInt8(ascii: "]") { break }
            elements.append(try value(depth: depth + 1))
            try skip()
            if next == UInt8(ascii: ",") { offset += 1 } else { break }
        }
        guard next == UInt8(ascii: "]") else { throw problem("expected a comma or ]") }
        offset += 1
        return elements
    }

    private mutating func word() throws(PlacedProblem) -> JSONNode.Content {
        let start = offset
        while let byte = next, byte > 32, !",]}:/\"".utf8.contains(byte) { offset += 1 }
        let word = String(decoding: bytes[start..<offset], as: UTF8.self)
        switch word {
        case "true": return .boolean(true)
        case "false": return .boolean(false)
        case "null": return .null
        default: break
        }
        if let number = Int64(word) { return .integer(number) }
        let isNumber = word.utf8.allSatisfy { "0123456789+-.eE".utf8.contains($0) }
        guard isNumber, let number = Double(word), number.isFinite else {
            throw problem(word.isEmpty ? "expected a value" : "\(word.prefix(40)) is no value")
        }
        return .double(number)
    }

    private mutating func text() throws(PlacedProblem) -> String {
        offset += 1
        var content: [UInt8] = []
        while let byte = next {
            offset += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: content, as: UTF8.self)
            case UInt8(ascii: "\\"): try escape(into: &content)
            case 10: throw problem("a text without an end")
            default: content.append(byte)
            }
        }
        throw problem("a text without an end")
    }

    private mutating func escape(into content: inout [UInt8]) throws(PlacedProblem) {
        guard let byte = next else { throw problem("a text without an end") }
        offset += 1
        switch byte {
        case UInt8(ascii: "n"): content.append(10)
        case UInt8(ascii: "t"): content.append(9)
        case UInt8(ascii: "r"): content.append(13)
        case UInt8(ascii: "b"): content.append(8)
        case UInt8(ascii: "f"): content.append(12)
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): content.append(byte)
        case UInt8(ascii: "u"):
            var unit = try hexadecimal()
            if 0xd800...0xdbff ~= unit, next == UInt8(ascii: "\\") {
                offset += 1
                guard next == UInt8(ascii: "u") else { throw problem("half a surrogate pair") }
                offset += 1
                let low = try hexadecimal()
                guard 0xdc00...0xdfff ~= low else { throw problem("half a surrogate pair") }
                unit = 0x10000 + (unit - 0xd800) << 10 + (low - 0xdc00)
            }
            guard let scalar = Unicode.Scalar(unit) else { throw problem("half a surrogate pair") }
            content += Array(String(Character(scalar)).utf8)
        default: throw problem("an unknown escape")
        }
    }

    private mutating func hexadecimal() throws(PlacedProblem) -> UInt32 {
        guard offset + 4 <= bytes.count,
            // A sign is not a digit, whatever UInt32 takes.
            bytes[offset] != UInt8(ascii: "+"),
            let unit = UInt32(String(decoding: bytes[offset..<offset + 4], as: UTF8.self), radix: 16)
        else { throw problem("expected four hexadecimal digits") }
        offset += 4
        return unit
    }
}
