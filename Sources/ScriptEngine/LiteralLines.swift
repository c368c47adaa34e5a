// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Where the parts of an object stand that a script writes down: the lines of its keys and of its lists' elements, as
/// far as they are written where the object is declared.
package struct LiteralLines: Sendable {
    private var lines: [[String]: Int] = [:]

    /// Levels of nesting at most.
    private static let depthLimit = 32

    /// Of the object that `source` declares as `name` at its top level and exports: `export const name = {…}`. Empty
    /// when there is none.
    package init(_ source: [UInt8], of name: String) {
        guard let tokens = try? ScriptTokenizer.tokens(source) else { return }
        var reader = Reader(text: source, tokens: tokens)
        let start = tokens.indices.dropLast().first { index in
            tokens[index].depth == 0 && tokens[index].kind == .word && reader.word(index) == name
                && reader.word(index + 1) == "=" && index > 0
                && ["const", "let", "var"].contains(reader.word(index - 1))
                && (index > 1 && reader.word(index - 2) == "export" || reader.exports(name))
        }
        guard let start else { return }
        reader.lines[[]] = reader.line(of: start)
        reader.index = start + 2
        reader.value([])
        lines = reader.lines
    }

    /// Whether the object was not found.
    package var isEmpty: Bool { lines.isEmpty }

    /// The line, from 1, of the key or element at `path` (keys, and numbers of elements from 0), or of the nearest
    /// thing around it that is written down. nil when the object was not found.
    package func line(_ path: [String]) -> Int? {
        var rest = path[...]
        while true {
            if let line = lines[Array(rest)] { return line }
            if rest.isEmpty { return nil }
            rest.removeLast()
        }
    }

    private struct Reader {
        let text: [UInt8]
        let tokens: [ScriptToken]
        var lines: [[String]: Int] = [:]
        var index = 0
        private var counted = (offset: 0, line: 1)

        init(text: [UInt8], tokens: [ScriptToken]) {
            self.text = text
            self.tokens = tokens
        }

        func word(_ index: Int) -> String {
            guard tokens.indices.contains(index) else { return "" }
            return String(decoding: text[tokens[index].start..<tokens[index].end], as: UTF8.self)
        }

        /// Whether a list of exports has the name as it is: `export { name }`.
        func exports(_ name: String) -> Bool {
            for start in tokens.indices
            where tokens[start].depth == 0 && word(start) == "export" && word(start + 1) == "{" {
                var index = start + 2
                while index < tokens.count, tokens[index].depth > 0 {
                    if word(index) == name, word(index - 1) != "as", word(index + 1) != "as" { return true }
                    index += 1
                }
            }
            return false
        }

        /// The line of a token. Tokens are asked for in their order.
        mutating func line(of index: Int) -> Int {
            guard tokens.indices.contains(index) else { return counted.line }
            let start = tokens[index].start
            guard start >= counted.offset else { return counted.line }
            counted.line += text[counted.offset..<start].count { $0 == 10 }
            counted.offset = start
            return counted.line
        }

        /// Reads a value up to the comma or bracket behind it.
        mutating func value(_ path: [String]) {
            guard path.count < LiteralLines.depthLimit, tokens.indices.contains(index) else { return }
            let depth = tokens[index].depth
            switch word(index) {
            case "{":
                index += 1
                while index < tokens.count, tokens[index].depth > depth { entry(path, depth: depth + 1) }
            case "[":
                index += 1
                var number = 0
                while index < tokens.count, tokens[index].depth > depth {
                    let inner = path + ["\(number)"]
                    lines[inner] = line(of: index)
                    value(inner)
                    skip(depth: depth + 1)
                    number += 1
                }
            default: break
            }
        }

        private mutating func entry(_ path: [String], depth: Int) {
            let key = tokens[index]
            if key.depth == depth, key.kind != .punctuator, word(index + 1) == ":" {
                let name = key.kind == .string ? String(word(index).dropFirst().dropLast()) : word(index)
                let inner = path + [name]
                lines[inner] = line(of: index)
                index += 2
                value(inner)
            }
            skip(depth: depth)
        }

        /// Goes behind the next comma among brackets of that depth, or to the end of these.
        private mutating func skip(depth: Int) {
            while index < tokens.count, tokens[index].depth >= depth {
                index += 1
                if tokens[index - 1].depth == depth, word(index - 1) == "," { return }
            }
        }
    }
}
