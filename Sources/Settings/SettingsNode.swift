// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A part of a configuration file, with the line it starts on (from 1).
package struct SettingsNode: Sendable, Equatable {
    /// A mapping's entry.
    package struct Entry: Sendable, Equatable {
        /// Its key.
        package let key: String
        /// The line the key stands on.
        package let line: Int
        /// What the key stands for.
        package let value: SettingsNode
    }

    /// What it is.
    package indirect enum Content: Sendable, Equatable {
        /// A text. `isPlain` is false when it was quoted.
        case scalar(String, isPlain: Bool)
        case sequence([SettingsNode])
        case mapping([Entry])
    }

    /// What it is, and what is in it.
    package let content: Content
    /// The line it starts on.
    package let line: Int

    /// The one YAML document in `bytes`, JSON included; nil when all is blank or comment. Errors name `file` and the
    /// line.
    package static func parse(_ bytes: [UInt8], file: String) throws(SettingsError) -> SettingsNode? {
        try YAMLParser.parse(bytes, file: file)
    }

    /// The same with other lines: `line` gives that of what stands at a path of keys, and numbers of elements from 0.
    package func relined(_ path: [String] = [], _ line: ([String]) -> Int) -> SettingsNode {
        let content: Content
        switch self.content {
        case .scalar: content = self.content
        case .sequence(let items):
            content = .sequence(items.enumerated().map { $0.element.relined(path + ["\($0.offset)"], line) })
        case .mapping(let entries):
            content = .mapping(
                entries.map { entry in
                    let inner = path + [entry.key]
                    return Entry(key: entry.key, line: line(inner), value: entry.value.relined(inner, line))
                })
        }
        return SettingsNode(content: content, line: line(path))
    }

    /// A mapping without some of its keys; anything else as it is.
    func without(_ keys: Set<String>) -> SettingsNode {
        guard !keys.isEmpty, case .mapping(let entries) = content else { return self }
        return SettingsNode(content: .mapping(entries.filter { !keys.contains($0.key) }), line: line)
    }

    /// Whether it is written as nothing: an empty plain scalar, `~` or `null`.
    package var isNull: Bool {
        if case .scalar(let text, isPlain: true) = content { return ["", "~", "null", "Null", "NULL"].contains(text) }
        return false
    }
}
