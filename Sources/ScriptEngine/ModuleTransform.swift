// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Turns a module (`import`, `export`) into a script that gives a function, line by line, so that errors name the lines
/// that people wrote. JavaScriptCore's C interface evaluates scripts only.
///
/// The function's parameters are `__require` (a module's exports by its name), `__export` (which takes getters of the
/// exports) and `__meta`. Imports are bound where the function begins: what they name is read once, when the module is
/// evaluated, which differs from a module only where an export changes later or modules import each other in a circle.
/// Source: ECMAScript 2024, sections 16.2.2 and 16.2.3.
package struct ModuleTransform {
    /// Why a module cannot be taken apart.
    package struct Failure: Error, Equatable, CustomStringConvertible {
        /// The line, from 1.
        package let line: Int
        /// What is wrong with it.
        package let reason: String

        package var description: String { "line \(line): \(reason)" }
    }

    /// A name that a module asks for, and where.
    package struct Request: Sendable, Equatable {
        /// As it is written.
        package let name: String
        /// The line, from 1.
        package let line: Int
        /// What is imported of it: names, `default`, or `*` for everything.
        package let bindings: [String]
    }

    /// The script.
    package private(set) var script: [UInt8] = []
    /// The modules it imports and exports from, in their order.
    package private(set) var requests: [Request] = []

    private let text: [UInt8]
    private let tokens: [ScriptToken]
    private var index = 0
    /// What replaces bytes of the text, by where they start.
    private var edits: [(range: Range<Int>, with: String)] = []
    /// Code at the function's begin.
    private var head = ""
    /// Exports by name: the expression that gives each.
    private var exports: [(name: String, expression: String)] = []
    private var stars: [String] = []

    /// Transforms `source`, UTF-8.
    package init(_ source: [UInt8]) throws(Failure) {
        text = source
        do throws(ScriptTokenError) {
            tokens = try ScriptTokenizer.tokens(source)
        } catch {
            throw Failure(line: error.line, reason: error.reason)
        }
        // A first line that begins with #! is no JavaScript inside of a function.
        if source.starts(with: [35, 33]) { edits.append((0..<2, "//")) }
        while index < tokens.count {
            let token = tokens[index]
            if token.kind == .word, !isMember(index) {
                switch word(index) {
                case "import" where token.depth == 0 || ["(", "."].contains(word(index + 1)): try importFound()
                case "export" where token.depth == 0: try exportFound()
                default: index += 1
                }
            } else {
                index += 1
            }
        }
        build()
    }

    private mutating func build() {
        var getters = exports.map { "\(Self.quoted($0.name)):()=>\($0.expression)" }.joined(separator: ",")
        getters = "__export({\(getters)});"
        for star in stars { getters += "__export.all(__require(\(star)));" }
        script = Array("(function(__require,__export,__meta){'use strict';\(getters)\(head)".utf8)
        var from = 0
        for edit in edits.sorted(by: { $0.range.lowerBound < $1.range.lowerBound }) {
            script += text[from..<edit.range.lowerBound]
            script += Array(edit.with.utf8)
            // Lines stay where they are.
            script += text[edit.range].filter { $0 == 10 }
            from = edit.range.upperBound
        }
        script += text[from...]
        script += Array("\n})".utf8)
    }

    // MARK: Tokens

    private func word(_ index: Int) -> String {
        guard index < tokens.count else { return "" }
        return String(decoding: text[tokens[index].start..<tokens[index].end], as: UTF8.self)
    }

    private func isMember(_ index: Int) -> Bool { index > 0 && [".", "#"].contains(word(index - 1)) }

    private func line(_ index: Int) -> Int {
        let place = index < tokens.count ? tokens[index].start : text.count
        return 1 + text[..<place].reduce(0) { $0 + ($1 == 10 ? 1 : 0) }
    }

    private func failure(_ reason: String) -> Failure { Failure(line: line(index), reason: reason) }

    private mutating func take(_ wanted: String) throws(Failure) {
        guard word(index) == wanted else {
            throw failure("expected '\(wanted)' and found '\(index < tokens.count ? word(index) : "the end")'")
        }
        index += 1
    }

    private mutating func takeName() throws(Failure) -> String {
        guard index < tokens.count, tokens[index].kind == .word || tokens[index].kind == .string else {
            throw failure("expected a name and found '\(index < tokens.count ? word(index) : "the end")'")
        }
        defer { index += 1 }
        let isString = tokens[index].kind == .string
        return isString ? String(word(index).dropFirst().dropLast()) : word(index)
    }

    /// The string behind `from`, and what may follow it: attributes, and a semicolon. Returns it as it is written.
    private mutating func takeModule(_ bindings: [String]) throws(Failure) -> String {
        guard index < tokens.count, tokens[index].kind == .string else { throw failure("expected a module's name") }
        let literal = word(index)
        requests.append(Request(name: String(literal.dropFirst().dropLast()), line: line(index), bindings: bindings))
        index += 1
        if word(index) == "with", word(index + 1) == "{" {
            while index < tokens.count, word(index) != "}" { index += 1 }
            index += 1
        }
        return literal
    }

    private mutating func takeSemicolon() {
        if word(index) == ";" { index += 1 }
    }

    private mutating func cut(_ first: Int) {
        let end = index > first ? tokens[index - 1].end : tokens[first].end
        edits.append((tokens[first].start..<end, ";"))
    }

    private static func quoted(_ name: String) -> String { "\"\(name)\"" }

    // MARK: Imports

    private mutating func importFound() throws(Failure) {
        let first = index
        index += 1
        if word(index) == "(" {
            edits.append((tokens[first].start..<tokens[first].end, "__require.later"))
            return
        }
        if word(index) == ".", word(index + 1) == "meta" {
            index += 2
            edits.append((tokens[first].start..<tokens[index - 1].end, "__meta"))
            return
        }
        var (bindings, names) = ([String](), [String]())
        var whole: String?
        if tokens.indices.contains(index), tokens[index].kind == .string {
            let module = try takeModule([])
            head += "__require(\(module));"
        } else {
            if word(index) != "{", word(index) != "*" {
                let name = try takeName()
                bindings.append("default:\(name)")
                names.append("default")
                if word(index) == "," { index += 1 }
            }
            if word(index) == "*" {
                index += 1
                try take("as")
                whole = try takeName()
                names.append("*")
            } else if word(index) == "{" {
                for (imported, local) in try takeSpecifiers() {
                    bindings.append("\(Self.quoted(imported)):\(local)")
                    names.append(imported)
                }
            }
            try take("from")
            let module = try takeModule(names)
            if let whole { head += "const \(whole)=__require(\(module));" }
            if !bindings.isEmpty {
                head += "const {\(bindings.joined(separator: ","))}=__require(\(module),\(list(names)));"
            }
        }
        takeSemicolon()
        cut(first)
    }

    private func list(_ names: [String]) -> String {
        "[" + names.filter { $0 != "*" }.map { Self.quoted($0) }.joined(separator: ",") + "]"
    }

    /// `{a, b as c}`: pairs of the name outside and the name here.
    private mutating func takeSpecifiers() throws(Failure) -> [(String, String)] {
        var result: [(String, String)] = []
        try take("{")
        while word(index) != "}" {
            let name = try takeName()
            var other = name
            if word(index) == "as" {
                index += 1
                other = try takeName()
            }
            result.append((name, other))
            if word(index) == "," { index += 1 } else if word(index) != "}" { throw failure("expected ',' or '}'") }
        }
        index += 1
        return result
    }

    // MARK: Exports

    private mutating func exportFound() throws(Failure) {
        let first = index
        index += 1
        switch word(index) {
        case "default": try exportDefault(first)
        case "{":
            let names = try takeSpecifiers()
            if word(index) == "from" {
                index += 1
                let module = try takeModule(names.map(\.0))
                for (name, outside) in names {
                    exports.append((outside, "__require(\(module))[\(Self.quoted(name))]"))
                }
                head += "__require(\(module));"
            } else {
                for (name, outside) in names { exports.append((outside, name)) }
            }
            takeSemicolon()
            cut(first)
        case "*":
            index += 1
            var name: String?
            if word(index) == "as" {
                index += 1
                name = try takeName()
            }
            try take("from")
            let module = try takeModule(["*"])
            if let name { exports.append((name, "__require(\(module))")) } else { stars.append(module) }
            takeSemicolon()
            cut(first)
        case "const", "let", "var":
            edits.append((tokens[first].start..<tokens[first].end, ""))
            index += 1
            for name in try declaredNames() { exports.append((name, name)) }
        case "async", "function", "class":
            edits.append((tokens[first].start..<tokens[first].end, ""))
            guard let name = declarationName() else { throw failure("an export without a name") }
            exports.append((name, name))
        default: throw failure("'\(word(index))' cannot be exported")
        }
    }

    /// The name of the function or class that begins here; nil when it has none.
    private func declarationName() -> String? {
        var at = index
        if word(at) == "async" { at += 1 }
        guard ["function", "class"].contains(word(at)) else { return nil }
        at += 1
        if word(at) == "*" { at += 1 }
        guard at < tokens.count, tokens[at].kind == .word, word(at) != "extends" else { return nil }
        return word(at)
    }

    private mutating func exportDefault(_ first: Int) throws(Failure) {
        index += 1
        if index >= tokens.count { throw failure("expected what is exported") }
        let isFunction =
            word(index) == "function" || word(index) == "class"
            || (word(index) == "async" && word(index + 1) == "function" && !tokens[index + 1].isAfterLineEnd)
        if isFunction, let name = declarationName() {
            edits.append((tokens[first].start..<tokens[index].start, ""))
            exports.append(("default", name))
            return
        }
        edits.append((tokens[first].start..<tokens[index].start, "const __default="))
        exports.append(("default", "__default"))
        guard isFunction else { return }
        // A declaration ends with its body, whatever the next line begins with.
        var at = index
        let depth = tokens[first].depth
        while at < tokens.count, !(tokens[at].depth == depth && word(at) == "{") { at += 1 }
        at += 1
        while at < tokens.count, !(tokens[at].depth == depth && word(at) == "}") { at += 1 }
        guard at < tokens.count else { throw failure("a body that does not end") }
        edits.append((tokens[at].end..<tokens[at].end, ";"))
    }

    /// The names that `const a = 1, {b, c: [d]} = e` declares, from behind the keyword on.
    private mutating func declaredNames() throws(Failure) -> [String] {
        var names: [String] = []
        while true {
            try takePattern(&names)
            // Over the value, to the next declaration or the end of the statement.
            let depth = 0
            while index < tokens.count {
                let here = tokens[index]
                if here.depth == depth {
                    if word(index) == ";" { return names }
                    if word(index) == ",", here.kind == .punctuator { break }
                    if here.isAfterLineEnd, endsStatement(index) { return names }
                }
                index += 1
            }
            guard index < tokens.count else { return names }
            index += 1
        }
    }

    /// Whether the line end before this token ends the statement: neither what is before nor what follows wants more.
    private func endsStatement(_ index: Int) -> Bool {
        let (before, here) = (tokens[index - 1], tokens[index])
        if before.kind == .punctuator, ![")", "]", "}", "++", "--"].contains(word(index - 1)) { return false }
        if here.kind == .punctuator, word(index) != "{", word(index) != "#" { return false }
        return !["in", "instanceof", "of"].contains(word(index))
    }

    private mutating func takePattern(_ names: inout [String]) throws(Failure) {
        switch word(index) {
        case "{":
            let depth = tokens[index].depth
            index += 1
            while index < tokens.count, !(word(index) == "}" && tokens[index].depth == depth) {
                if word(index) == "." {
                    index += 1
                    continue
                }
                if word(index) == "[" {
                    throw failure("a computed name in an exported pattern is not supported")
                }
                let name = try takeName()
                if word(index) == ":" {
                    index += 1
                    try takePattern(&names)
                } else {
                    names.append(name)
                }
                skipDefault(depth + 1)
            }
            index += 1
        case "[":
            let depth = tokens[index].depth
            index += 1
            while index < tokens.count, !(word(index) == "]" && tokens[index].depth == depth) {
                if word(index) == "," || word(index) == "." {
                    index += 1
                    continue
                }
                try takePattern(&names)
                skipDefault(depth + 1)
            }
            index += 1
        default: names.append(try takeName())
        }
    }

    /// Over `= value` of a part of a pattern, and the comma behind it.
    private mutating func skipDefault(_ depth: Int) {
        func isComma() -> Bool { tokens[index].depth == depth && word(index) == "," }
        while index < tokens.count, tokens[index].depth >= depth, !isComma() { index += 1 }
        if index < tokens.count, isComma() { index += 1 }
    }
}
