// Martlet
// SPDX-License-Identifier: Apache-2.0

/// YAML to be written.
indirect enum YAMLText {
    case text(String)
    /// A number, a word or a duration, which needs no quotes.
    case plain(String)
    case list([YAMLText])
    case entries([Entry])

    struct Entry {
        let key: String
        let value: YAMLText
    }

    static func mapping(_ entries: [(key: String, value: YAMLText)]) -> YAMLText {
        .entries(entries.map { Entry(key: $0.key, value: $0.value) })
    }

    /// The lines, each with its line end.
    func written(indent: Int = 0) -> String {
        let space = String(repeating: " ", count: indent)
        switch self {
        case .text(let text): return space + Self.quoted(text) + "\n"
        case .plain(let word): return space + word + "\n"
        case .list(let elements):
            if elements.isEmpty { return space + "[]\n" }
            return elements.map { element in
                let inner = element.written(indent: indent + 2)
                return space + "- " + inner.dropFirst(indent + 2)
            }.joined()
        case .entries(let entries):
            return entries.map { entry in
                let key = space + Self.quoted(entry.key) + ":"
                if let line = entry.value.line { return key + " " + line + "\n" }
                return key + "\n" + entry.value.written(indent: indent + 2)
            }.joined()
        }
    }

    /// What fits behind a key; nil for what needs lines of its own.
    private var line: String? {
        switch self {
        case .text(let text): return Self.quoted(text)
        case .plain(let word): return word
        case .list(let elements):
            let parts = elements.compactMap(\.scalar)
            let line = "[" + parts.joined(separator: ", ") + "]"
            return parts.count == elements.count && line.count <= 90 ? line : nil
        case .entries(let entries):
            let parts = entries.compactMap { entry in entry.value.scalar.map { "\(Self.quoted(entry.key)): \($0)" } }
            let line = "{" + parts.joined(separator: ", ") + "}"
            return parts.count == entries.count && line.count <= 70 ? line : nil
        }
    }

    private var scalar: String? {
        switch self {
        case .text(let text): Self.quoted(text)
        case .plain(let word): word
        case .list, .entries: nil
        }
    }

    /// A text as YAML reads it back as one.
    private static func quoted(_ text: String) -> String {
        let isPlain =
            text.utf8.first.map { byte in
                byte == UInt8(ascii: "/") || byte == UInt8(ascii: "_") || (byte | 32 >= 97 && byte | 32 <= 122)
                    || (48...57 ~= byte && text.utf8.contains { $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: ".") })
            } ?? false
        let isSafe = text.utf8.allSatisfy { byte in
            (byte | 32 >= 97 && byte | 32 <= 122) || 48...57 ~= byte || "_-./:+@".utf8.contains(byte)
        }
        let words = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"]
        if isPlain, isSafe, !text.hasSuffix(":"), !words.contains(text.lowercased()) { return text }
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": result += "\\\(scalar)"
            case _ where scalar.value < 32 || scalar.value == 127:
                let digits = String(scalar.value, radix: 16)
                result += "\\x" + (digits.count < 2 ? "0" : "") + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
