// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Finds declarations in code without comments and literals, by its braces.
enum Declarations {
    /// The lines of one declaration with a body, counted from 0.
    struct Extent: Equatable {
        let first: Int
        let last: Int
    }

    /// Functions, initialisers, deinitialisers and subscripts that have a body.
    static func functions(_ file: SourceFile) -> [Extent] {
        var found: [Extent] = []
        for index in file.code.indices {
            let line = file.code[index]
            for keyword in ["func", "init", "deinit", "subscript"] {
                for offset in TextRules.offsets(ofWord: keyword, in: line) where starts(keyword, line, offset) {
                    if let last = bodyEnd(file.code, line: index, offset: offset) {
                        found.append(Extent(first: index, last: last))
                    }
                }
            }
        }
        return found
    }

    /// Whether the keyword begins a declaration: before it stand attributes and modifiers only.
    private static func starts(_ keyword: String, _ line: String, _ offset: Int) -> Bool {
        let before = String(decoding: Array(line.utf8).prefix(offset), as: UTF8.self)
        return before.utf8.allSatisfy { byte in
            TextRules.isWordByte(byte) || [32, 64, 40, 41, 58, 44].contains(byte)
        } && !["let", "var", "return", "case", "if", "guard", "try"].contains { TextRules.hasWord($0, in: before) }
    }

    /// The line of the brace that closes the declaration's body; nil when it has none (a requirement of a protocol).
    static func bodyEnd(_ code: [String], line: Int, offset: Int) -> Int? {
        var (parentheses, braces, isInBody) = (0, 0, false)
        for index in line..<code.count {
            let bytes = Array(code[index].utf8)
            for byte in bytes[(index == line ? offset : 0)...] {
                switch byte {
                case UInt8(ascii: "("), UInt8(ascii: "["): parentheses += 1
                case UInt8(ascii: ")"), UInt8(ascii: "]"): parentheses -= 1
                case UInt8(ascii: "{"):
                    if parentheses == 0 { isInBody = true }
                    if isInBody { braces += 1 }
                case UInt8(ascii: "}"):
                    if isInBody { braces -= 1 } else if parentheses == 0 { return nil }
                    if isInBody, braces == 0 { return index }
                default: break
                }
            }
            if !isInBody, parentheses == 0, !goesOn(code, after: index) { return nil }
        }
        return nil
    }

    /// Whether a signature goes on in the next line.
    private static func goesOn(_ code: [String], after line: Int) -> Bool {
        guard line + 1 < code.count else { return false }
        let next = code[line + 1].drop { $0 == " " }
        return ["{", "where ", "->", "throws", "async"].contains { next.hasPrefix($0) }
    }

    /// The keyword that a line declares something with, and the modifiers before it; nil when it declares nothing.
    static func declaration(_ line: String) -> (keyword: String, modifiers: [String], name: String)? {
        let keywords: Set<String> = [
            "func", "init", "var", "let", "struct", "class", "enum", "protocol", "typealias", "subscript", "actor",
            "extension", "case", "associatedtype", "deinit",
        ]
        var modifiers: [String] = []
        // Letters of other scripts are above ASCII.
        let words = line.utf8.split { !(TextRules.isWordByte($0) || $0 == UInt8(ascii: "@") || $0 >= 0x80) }
            .map { String(Substring($0)) }
        for (index, word) in words.enumerated() {
            // `class func` and `class var` are methods, `final class` is a type.
            if keywords.contains(word) {
                return (word, modifiers, index + 1 < words.count ? words[index + 1] : "")
            }
            modifiers.append(word)
        }
        return nil
    }
}
