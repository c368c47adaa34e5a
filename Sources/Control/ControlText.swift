// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Text for people and for programs.
enum ControlText {
    /// What a line has at most, so that a small terminal shows it whole.
    static var lineWidth: Int { 80 }

    /// Words in lines of at most `width` columns, each behind `indent` spaces. Longer words stay whole.
    static func wrap(_ text: String, indent: Int = 0, width: Int = lineWidth) -> [String] {
        var lines: [String] = []
        var line = ""
        for word in text.split(separator: " ") {
            if !line.isEmpty, indent + line.count + 1 + word.count > width {
                lines.append(line)
                line = ""
            }
            line += line.isEmpty ? String(word) : " " + word
        }
        if !line.isEmpty { lines.append(line) }
        return lines.map { String(repeating: " ", count: indent) + $0 }
    }

    /// A name in a column of its own, and what it means beside it.
    static func entry(_ name: String, _ meaning: String, column: Int) -> String {
        let lines = wrap(meaning, indent: column)
        let head = "  " + name
        guard head.count < column, let first = lines.first else { return ([head] + lines).joined(separator: "\n") }
        let joined = head + first.dropFirst(head.count)
        return ([joined] + lines.dropFirst()).joined(separator: "\n")
    }

    /// Texts as a JSON array.
    static func array(_ texts: [String]) -> String { "[\(texts.map { JSONString.quoted($0) }.joined(separator: ","))]" }
}
