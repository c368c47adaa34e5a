// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A program's settings, resolved and checked; or the fields of one mapping in a list.
///
/// The getters take a setting's name. A name that the schema does not have, or another type than it says, is a bug of
/// ours and stops the program.
package struct SettingsValues: Sendable, Equatable {
    struct Entry: Sendable, Equatable {
        var value: SettingValue
        var source: SettingSource
    }

    /// What is set or has a default.
    var entries: [String: Entry] = [:]
    /// Every name there is.
    let names: Set<String>
    /// Where a mapping of a list begins; the default for a program's settings.
    package let place: SettingSource

    init(names: Set<String>, place: SettingSource = .standard) {
        self.names = names
        self.place = place
    }

    /// Whether somebody set it, rather than leaving the default.
    package func isSet(_ name: String) -> Bool {
        guard let source = source(name) else { return false }
        return source != .standard
    }

    /// Where the value came from; nil when there is none.
    package func source(_ name: String) -> SettingSource? { entry(name)?.source }

    /// The value, whatever its type; nil when it is not set and has no default.
    package func value(_ name: String) -> SettingValue? { entry(name)?.value }

    /// Yes or no; traps when the setting is of another type or has no value.
    package func boolean(_ name: String) -> Bool {
        guard case .boolean(let value) = entry(name)?.value else { wrong(name, "a boolean") }
        return value
    }

    /// A number; traps when the setting is of another type or has no value.
    package func integer(_ name: String) -> Int {
        guard case .integer(let value) = entry(name)?.value else { wrong(name, "an integer") }
        return Int(value)
    }

    /// Bytes.
    package func size(_ name: String) -> UInt64 {
        guard case .size(let value) = entry(name)?.value else { wrong(name, "a size") }
        return value
    }

    /// Nanoseconds.
    package func duration(_ name: String) -> UInt64 {
        guard case .duration(let value) = entry(name)?.value else { wrong(name, "a duration") }
        return value
    }

    /// A text or an enumeration's word; nil when it is not set and has no default.
    package func text(_ name: String) -> String? {
        switch entry(name)?.value {
        case .text(let value): value
        case nil: nil
        default: wrong(name, "a text")
        }
    }

    /// A list; empty when it is not set and has no default.
    package func list(_ name: String) -> [String] {
        switch entry(name)?.value {
        case .list(let value): value
        case nil: []
        default: wrong(name, "a list")
        }
    }

    /// A list's mappings; empty when it is not set.
    package func mappings(_ name: String) -> [SettingsValues] {
        switch entry(name)?.value {
        case .mappings(let value): value
        case nil: []
        default: wrong(name, "a list of mappings")
        }
    }

    private func entry(_ name: String) -> Entry? {
        precondition(names.contains(name), "no setting is called \(name)")
        return entries[name]
    }

    private func wrong(_ name: String, _ type: String) -> Never {
        preconditionFailure("the setting \(name) is not \(type), or has no value")
    }
}
