// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a tenant may do, and on which keys. Pure; asking allocates nothing.
package struct TenantPermissions: Sendable, Equatable {
    private struct Rule: Sendable, Equatable {
        let prefix: [UInt8]
        let classes: CommandClasses
    }

    /// Commands that it may use at all.
    package let commands: CommandClasses
    /// Longest prefix first; empty when it may use every key.
    private let rules: [Rule]

    /// Permissions of nobody: nothing.
    package static let none = TenantPermissions(commands: [], prefixes: [], readPrefixes: [])

    /// Commands on keys that begin with `prefixes`, and such as only read on keys that begin with `readPrefixes`. Of
    /// prefixes that match a key the longest counts. Without any, all keys.
    package init(commands: CommandClasses, prefixes: [[UInt8]], readPrefixes: [[UInt8]]) {
        self.commands = commands
        let own = prefixes.map { Rule(prefix: $0, classes: .data) }
        let read = readPrefixes.map { Rule(prefix: $0, classes: .read) }
        rules = (own + read).sorted { $0.prefix.count > $1.prefix.count }
    }

    /// Whether a command of these classes may be used on this key. Of commands about no single key, such as
    /// `flush_all`, the key does not matter.
    package func allows(_ classes: CommandClasses, key: Span<UInt8>) -> Bool {
        guard commands.isSuperset(of: classes) else { return false }
        let wanted = classes.intersection(.data)
        guard !rules.isEmpty, !wanted.isEmpty else { return true }
        for rule in rules where Self.begins(key, with: rule.prefix) { return rule.classes.isSuperset(of: wanted) }
        return false
    }

    private static func begins(_ key: Span<UInt8>, with prefix: [UInt8]) -> Bool {
        guard prefix.count <= key.count else { return false }
        for index in prefix.indices where key[index] != prefix[index] { return false }
        return true
    }
}
