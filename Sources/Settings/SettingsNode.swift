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

    /// Whether it is written as nothing: an empty plain scalar, `~` or `null`.
    var isNull: Bool {
        if case .scalar(let text, isPlain: true) = content { return ["", "~", "null", "Null", "NULL"].contains(text) }
        return false
    }
}
