// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The table of a program's settings. Everything about settings comes from it: what a file, the environment and the
/// flags may hold, the checks, the messages and the help text.
package struct SettingsSchema: Sendable {
    /// The settings, in the order of the help text.
    package let settings: [Setting]

    private let byName: [String: Int]
    private let byFlag: [String: Int]

    /// Makes a schema. Two settings with one name or one flag, a name that is also the beginning of another
    /// (`storage` beside `storage.path`), or a default that its type refuses, are bugs of ours and stop the program.
    package init(_ settings: [Setting]) {
        self.settings = settings
        var byName: [String: Int] = [:]
        var byFlag: [String: Int] = [:]
        for (index, setting) in settings.enumerated() {
            precondition(byName.updateValue(index, forKey: setting.name) == nil, "two settings \(setting.name)")
            precondition(byFlag.updateValue(index, forKey: setting.flagName) == nil, "two flags \(setting.flagName)")
        }
        for setting in settings {
            let isGroup = settings.contains { $0.name.hasPrefix(setting.name + ".") }
            precondition(!isGroup, "the setting \(setting.name) is also a group")
        }
        self.byName = byName
        self.byFlag = byFlag
        _ = defaults()
    }

    /// The setting called `name`.
    package func setting(named name: String) -> Setting? { byName[name].map { settings[$0] } }

    /// The setting with the flag `--flag`.
    package func setting(flag: String) -> Setting? { byFlag[flag].map { settings[$0] } }

    /// The flag's name that somebody who wrote `--flag` most likely meant.
    package func suggestedFlag(for flag: String) -> String? { suggestion(for: flag, among: byFlag.keys.sorted()) }

    /// The settings when nobody sets any.
    func defaults() -> SettingsValues {
        Self.defaults(of: settings, place: .standard)
    }

    static func defaults(of settings: [Setting], place: SettingSource) -> SettingsValues {
        var values = SettingsValues(names: Set(settings.map(\.name)), place: place)
        for setting in settings {
            guard let text = setting.defaultText else { continue }
            do throws(BadValue) {
                values.entries[setting.name] = .init(value: try setting.type.parse(text), source: .standard)
            } catch {
                preconditionFailure("the default of \(setting.name): \(error.reason)")
            }
        }
        return values
    }

    /// What a reload from `old` to `new` changes: what takes effect at once, and what waits for a restart.
    package func changes(from old: SettingsValues, to new: SettingsValues) -> (live: [String], restart: [String]) {
        let changed = settings.filter { old.value($0.name) != new.value($0.name) }
        return (changed.filter(\.isReloadable).map(\.name), changed.filter { !$0.isReloadable }.map(\.name))
    }
}
