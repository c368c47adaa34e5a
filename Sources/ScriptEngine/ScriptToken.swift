// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A token of a script: its kind, and where it lies in the text's bytes.
struct ScriptToken: Equatable {
    enum Kind: Equatable {
        /// A name or a keyword.
        case word
        case number, string, template, regularExpression
        case punctuator
    }

    var kind: Kind
    var start: Int
    var end: Int
    /// Whether a line ends between the token before and this one.
    var isAfterLineEnd: Bool
    /// How many brackets of any kind are open before it.
    var depth: Int
}

/// Why a script cannot be cut into tokens.
struct ScriptTokenError: Error, Equatable {
    var line: Int
    var reason: String
}

/// Cuts a script into tokens. Source: ECMAScript 2024, chapter 12.
///
/// Whether a slash divides or begins a regular expression depends on what stands before it. What is before a `)` or a
/// `}` decides there: a condition's or a block's end lets an expression begin, a call's or an object's does not.
struct ScriptTokenizer {
    private let text: [UInt8]
    private var at = 0
    private var tokens: [ScriptToken] = []
    private var isAfterLineEnd = false
    /// The brackets that are open.
    private var open: [Bracket] = []
    /// Whether an expression can begin here.
    private var expectsExpression = true

    private struct Bracket {
        var byte: UInt8
        /// What ``expectsExpression`` is behind its end.
        var expectsExpressionBehind: Bool
        /// Whether the end of `${…}` takes a template up again.
        var isInTemplate = false
    }

    private init(_ text: [UInt8]) { self.text = text }

    /// The tokens of `text`.
    static func tokens(_ text: [UInt8]) throws(ScriptTokenError) -> [ScriptToken] {
        var tokenizer = ScriptTokenizer(text)
        try tokenizer.run()
        return tokenizer.tokens
    }

    private func byte(_ offset: Int) -> UInt8 { at + offset < text.count ? text[at + offset] : 0 }

    private func failure(_ reason: String, at place: Int) -> ScriptTokenError {
        let line = 1 + text[..<min(place, text.count)].reduce(0) { $0 + ($1 == 10 ? 1 : 0) }
        return ScriptTokenError(line: line, reason: reason)
    }

    private mutating func run() throws(ScriptTokenError) {
        if byte(0) == UInt8(ascii: "#"), byte(1) == UInt8(ascii: "!") { skipLine() }
        while at < text.count {
            switch text[at] {
            case 10, 13:
                isAfterLineEnd = true
                at += 1
            case 9, 11, 12, 32: at += 1
            case UInt8(ascii: "/") where byte(1) == UInt8(ascii: "/"): skipLine()
            case UInt8(ascii: "/") where byte(1) == UInt8(ascii: "*"): try skipComment()
            default: try token()
            }
        }
        if let bracket = open.last {
            throw failure("'\(Character(Unicode.Scalar(bracket.byte)))' is never closed", at: text.count)
        }
    }

    private mutating func skipLine() {
        while at < text.count, text[at] != 10, text[at] != 13 { at += 1 }
    }

    private mutating func skipComment() throws(ScriptTokenError) {
        let start = at
        at += 2
        while at < text.count, !(text[at] == UInt8(ascii: "*") && byte(1) == UInt8(ascii: "/")) {
            if text[at] == 10 { isAfterLineEnd = true }
            at += 1
        }
        guard at < text.count else { throw failure("a comment that does not end", at: start) }
        at += 2
    }

    private mutating func add(_ kind: ScriptToken.Kind, from start: Int) {
        tokens.append(
            ScriptToken(kind: kind, start: start, end: at, isAfterLineEnd: isAfterLineEnd, depth: open.count))
        isAfterLineEnd = false
    }

    private static func isWordByte(_ byte: UInt8) -> Bool {
        (97...122).contains(byte) || (65...90).contains(byte) || (48...57).contains(byte) || byte == 95 || byte == 36
            || byte >= 128 || byte == UInt8(ascii: "\\")
    }

    private mutating func token() throws(ScriptTokenError) {
        let (start, first) = (at, text[at])
        switch first {
        case UInt8(ascii: "\""), UInt8(ascii: "'"):
            try skipString(first)
            add(.string, from: start)
            expectsExpression = false
        case UInt8(ascii: "`"):
            at += 1
            try template(from: start)
        case _ where (48...57).contains(first) || (first == UInt8(ascii: ".") && (48...57).contains(byte(1))):
            skipNumber()
            add(.number, from: start)
            expectsExpression = false
        case UInt8(ascii: "/") where expectsExpression:
            try skipRegularExpression()
            add(.regularExpression, from: start)
            expectsExpression = false
        default:
            if Self.isWordByte(first) || first == UInt8(ascii: "#") { word(from: start) } else { try punctuator() }
        }
    }

    private mutating func skipString(_ quote: UInt8) throws(ScriptTokenError) {
        let start = at
        at += 1
        while at < text.count, text[at] != quote {
            guard text[at] != 10 else { throw failure("a string that does not end", at: start) }
            at += text[at] == UInt8(ascii: "\\") ? 2 : 1
        }
        guard at < text.count else { throw failure("a string that does not end", at: start) }
        at += 1
    }

    private mutating func skipNumber() {
        while at < text.count {
            let byte = text[at]
            let isSign = byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-")
            let isExponent = isSign && at > 0 && text[at - 1] | 32 == UInt8(ascii: "e") && !isHexadecimal()
            guard Self.isWordByte(byte) || byte == UInt8(ascii: ".") || isExponent else { return }
            at += 1
        }
    }

    private func isHexadecimal() -> Bool {
        var start = at
        while start > 0, Self.isWordByte(text[start - 1]) { start -= 1 }
        return start + 1 < text.count && text[start] == 48 && text[start + 1] | 32 == UInt8(ascii: "x")
    }

    private mutating func skipRegularExpression() throws(ScriptTokenError) {
        let start = at
        var isInClass = false
        at += 1
        while at < text.count {
            switch text[at] {
            case 10: throw failure("a regular expression that does not end", at: start)
            case UInt8(ascii: "\\"): at += 1
            case UInt8(ascii: "["): isInClass = true
            case UInt8(ascii: "]"): isInClass = false
            case UInt8(ascii: "/") where !isInClass:
                at += 1
                while at < text.count, Self.isWordByte(text[at]) { at += 1 }
                return
            default: break
            }
            at += 1
        }
        throw failure("a regular expression that does not end", at: start)
    }

    /// Goes on with a template, behind its quote or behind the `}` of a part.
    private mutating func template(from start: Int) throws(ScriptTokenError) {
        while at < text.count {
            switch text[at] {
            case UInt8(ascii: "\\"): at += 2
            case UInt8(ascii: "`"):
                at += 1
                add(.template, from: start)
                expectsExpression = false
                return
            case UInt8(ascii: "$") where byte(1) == UInt8(ascii: "{"):
                at += 2
                add(.template, from: start)
                open.append(Bracket(byte: UInt8(ascii: "{"), expectsExpressionBehind: false, isInTemplate: true))
                expectsExpression = true
                return
            default: at += 1
            }
        }
        throw failure("a template that does not end", at: start)
    }

    /// Keywords that an expression follows.
    private static let before: Set<String> = [
        "return", "typeof", "instanceof", "in", "of", "new", "delete", "void", "throw", "case", "do", "else", "yield",
        "await", "default", "extends",
    ]

    private mutating func word(from start: Int) {
        at += 1
        while at < text.count, Self.isWordByte(text[at]) { at += 1 }
        let isMember = tokens.last.map { text[$0.start..<$0.end].elementsEqual([UInt8(ascii: ".")]) } ?? false
        add(.word, from: start)
        expectsExpression = !isMember && Self.before.contains(String(decoding: text[start..<at], as: UTF8.self))
    }

    private func previous(_ back: Int) -> String {
        guard tokens.count >= back else { return "" }
        let token = tokens[tokens.count - back]
        guard token.kind == .word || token.kind == .punctuator else { return "value" }
        return String(decoding: text[token.start..<token.end], as: UTF8.self)
    }

    private mutating func punctuator() throws(ScriptTokenError) {
        let (start, first) = (at, text[at])
        switch first {
        case UInt8(ascii: "("), UInt8(ascii: "["):
            let isCondition = first == UInt8(ascii: "(") && ["if", "while", "for", "with"].contains(previous(1))
            at += 1
            add(.punctuator, from: start)
            open.append(Bracket(byte: first, expectsExpressionBehind: isCondition))
            expectsExpression = true
        case UInt8(ascii: "{"):
            // Where an expression is expected, an object begins; but behind an arrow, and where a statement begins.
            let last = previous(1)
            let beginsStatement = tokens.isEmpty || [";", "{", "}", "=>", "else", "do", ")"].contains(last)
            at += 1
            add(.punctuator, from: start)
            open.append(Bracket(byte: first, expectsExpressionBehind: beginsStatement || !expectsExpression))
            expectsExpression = true
        case UInt8(ascii: ")"), UInt8(ascii: "]"), UInt8(ascii: "}"):
            let opener = first == UInt8(ascii: ")") ? UInt8(ascii: "(") : first - 2
            guard let bracket = open.last, bracket.byte == opener else {
                throw failure("'\(Character(Unicode.Scalar(first)))' closes nothing", at: start)
            }
            open.removeLast()
            at += 1
            if bracket.isInTemplate { return try template(from: start) }
            add(.punctuator, from: start)
            expectsExpression = bracket.expectsExpressionBehind
        case UInt8(ascii: "+"), UInt8(ascii: "-"):
            let isDouble = byte(1) == first
            at += isDouble ? 2 : 1
            add(.punctuator, from: start)
            // Behind a value, `++` belongs to it.
            if !isDouble { expectsExpression = true }
        case UInt8(ascii: "=") where byte(1) == UInt8(ascii: ">"):
            at += 2
            add(.punctuator, from: start)
            expectsExpression = true
        default:
            at += 1
            add(.punctuator, from: start)
            expectsExpression = true
        }
    }
}
