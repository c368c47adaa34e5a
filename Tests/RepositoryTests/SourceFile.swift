// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A Swift file, each line parted into code (its string literals emptied) and comment.
struct SourceFile: Sendable {
    let path: String
    let lines: [String]
    /// The lines' code without comments and without what is in string literals.
    let code: [String]
    /// The lines' comments.
    let comments: [String]

    var isTest: Bool { path.hasPrefix("Tests/") }

    /// `Sources/Memory/Arena.swift` is of module `Memory`.
    var module: String {
        let parts = path.split(separator: "/")
        return parts.count > 2 ? String(parts[1]) : ""
    }

    init(path: String, text: String) {
        self.path = path
        var all = text.utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
            .map { String(Substring($0)) }
        if all.last == "" { all.removeLast() }
        lines = all
        var scanner = SourceScanner(text)
        (code, comments) = scanner.run(lineCount: all.count)
    }
}

/// Tells code, comments and string literals of Swift apart. Knows nested comments, raw and multi-line strings, and
/// interpolation (which counts as part of the literal).
struct SourceScanner {
    private let bytes: [UInt8]
    private var at = 0
    private var code: [[UInt8]] = [[]]
    private var comments: [[UInt8]] = [[]]

    init(_ text: String) { bytes = Array(text.utf8) }

    mutating func run(lineCount: Int) -> (code: [String], comments: [String]) {
        while at < bytes.count { step() }
        func text(_ lines: [[UInt8]]) -> [String] {
            lines.prefix(lineCount).map { String(decoding: $0, as: UTF8.self) }
        }
        return (text(code), text(comments))
    }

    /// Whether `first`, and then `second`, stand at a position.
    private func has(_ first: UInt8, _ second: UInt8, at position: Int) -> Bool {
        position + 1 < bytes.count && bytes[position] == first && bytes[position + 1] == second
    }

    private static let (slash, star, quote) = (UInt8(ascii: "/"), UInt8(ascii: "*"), UInt8(ascii: "\""))

    private mutating func newLine() {
        code.append([])
        comments.append([])
    }

    private mutating func step() {
        let byte = bytes[at]
        if byte == UInt8(ascii: "\n") {
            newLine()
            at += 1
        } else if byte == Self.slash, has(Self.slash, Self.slash, at: at) {
            let end = bytes[at...].firstIndex(of: UInt8(ascii: "\n")) ?? bytes.count
            comments[comments.count - 1] += bytes[at..<end]
            at = end
        } else if byte == Self.slash, has(Self.slash, Self.star, at: at) {
            blockComment()
        } else if byte == Self.quote {
            string(hashes: 0)
        } else if byte == UInt8(ascii: "#"), let hashes = rawStringHashes() {
            at += hashes
            string(hashes: hashes)
        } else {
            takeCode()
        }
    }

    /// Takes the byte, and what follows it up to one that may begin something else.
    private mutating func takeCode() {
        var end = at + 1
        while end < bytes.count {
            let byte = bytes[end]
            if byte == 10 || byte == Self.slash || byte == Self.quote || byte == 35 { break }
            end += 1
        }
        code[code.count - 1] += bytes[at..<end]
        at = end
    }

    private mutating func takeComment() {
        comments[comments.count - 1].append(bytes[at])
        at += 1
    }

    private func rawStringHashes() -> Int? {
        var end = at
        while end < bytes.count, bytes[end] == UInt8(ascii: "#") { end += 1 }
        return end < bytes.count && bytes[end] == UInt8(ascii: "\"") ? end - at : nil
    }

    private mutating func blockComment() {
        var depth = 0
        repeat {
            if has(Self.slash, Self.star, at: at) {
                depth += 1
                at += 2
            } else if has(Self.star, Self.slash, at: at) {
                depth -= 1
                at += 2
            } else if bytes[at] == UInt8(ascii: "\n") {
                newLine()
                at += 1
            } else {
                takeComment()
            }
        } while depth > 0 && at < bytes.count
    }

    /// Passes over a literal that starts at its quote, and leaves two quotes in the code.
    private mutating func string(hashes: Int) {
        let isMultiline = has(Self.quote, Self.quote, at: at) && has(Self.quote, Self.quote, at: at + 1)
        let quotes = isMultiline ? 3 : 1
        code[code.count - 1] += Array("\"\"".utf8)
        at += quotes
        var depth = 0
        while at < bytes.count {
            let byte = bytes[at]
            if byte == UInt8(ascii: "\n") {
                // A line end in a plain literal: not Swift, or not a literal. Better to go on than to lose the rest.
                if !isMultiline { return }
                newLine()
                at += 1
            } else if byte == UInt8(ascii: "\\"), hashCount(at + 1) >= hashes {
                let next = at + 1 + hashes
                if next < bytes.count, bytes[next] == UInt8(ascii: "(") { depth += 1 }
                at = next + 1
            } else if depth > 0 {
                interpolated(&depth)
            } else if endsString(quotes: quotes, hashes: hashes) {
                at += quotes + hashes
                return
            } else {
                at += 1
            }
        }
    }

    private mutating func interpolated(_ depth: inout Int) {
        switch bytes[at] {
        case UInt8(ascii: "("): depth += 1
        case UInt8(ascii: ")"): depth -= 1
        case UInt8(ascii: "\""):
            let length = code[code.count - 1].count
            string(hashes: 0)
            code[code.count - 1].removeLast(max(0, code[code.count - 1].count - length))
            return
        default: break
        }
        at += 1
    }

    private func hashCount(_ position: Int) -> Int {
        var end = position
        while end < bytes.count, bytes[end] == UInt8(ascii: "#") { end += 1 }
        return end - position
    }

    private func endsString(quotes: Int, hashes: Int) -> Bool {
        for index in 0..<quotes {
            guard at + index < bytes.count, bytes[at + index] == UInt8(ascii: "\"") else { return false }
        }
        return hashCount(at + quotes) >= hashes
    }
}
