// Martlet
// SPDX-License-Identifier: Apache-2.0

extension SettingsSchema {
    /// The help text's lines about settings: a flag, its help, its default, and whether a reload changes it.
    package func help(without hidden: Set<String> = []) -> String {
        var lines: [String] = []
        for setting in settings where !hidden.contains(setting.name) {
            let title = setting.isScalar ? "--\(setting.flagName)=\(setting.type.placeholder)" : "\(setting.name): […]"
            var about = setting.help
            if case .enumeration(let words) = setting.type { about += " One of \(words.joined(separator: ", "))." }
            var remarks: [String] = []
            if let text = setting.defaultText, !text.isEmpty { remarks.append("default: \(text)") }
            if !setting.isScalar { remarks.append("only in the file") }
            if setting.isReloadable { remarks.append("reloaded by SIGHUP") }
            if !remarks.isEmpty { about += " (\(remarks.joined(separator: "; ")))" }
            lines += Self.entry(title, about)
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// A title in the left column and wrapped text in the right one.
    private static func entry(_ title: String, _ about: String) -> [String] {
        let column = 34
        let width = 100
        let margin = String(repeating: " ", count: column)
        var lines: [String] = []
        var line = title + String(repeating: " ", count: max(0, column - title.count))
        if title.count >= column {
            lines.append(title)
            line = margin
        }
        var hasWord = false
        for word in about.split(separator: " ") {
            if hasWord, line.count + 1 + word.count > width {
                lines.append(line)
                line = margin
                hasWord = false
            }
            line += hasWord ? " \(word)" : String(word)
            hasWord = true
        }
        lines.append(line)
        return lines
    }

    /// The values as lines of `name: value (from where)`, with secrets hidden: for `--check-config` and the admin page.
    package func describe(_ values: SettingsValues) -> [String] {
        settings.compactMap { setting in
            guard let value = values.value(setting.name), let source = values.source(setting.name) else { return nil }
            let shown = setting.isSecret ? "(secret)" : value.spelled
            return "\(setting.name): \(shown)  # \(source)"
        }
    }
}

extension SettingType {
    /// What stands for the value in a help text.
    fileprivate var placeholder: String {
        switch self {
        case .boolean: "true|false"
        case .integer: "N"
        case .size: "SIZE"
        case .duration: "DURATION"
        case .text: "TEXT"
        case .list: "A,B,…"
        case .enumeration: "WORD"
        case .mappings: "…"
        }
    }
}

extension SettingValue {
    /// The value as a user would write it.
    package var spelled: String {
        switch self {
        case .boolean(let value): "\(value)"
        case .integer(let value): "\(value)"
        case .size(let value): spell(size: value)
        case .duration(let value): spell(duration: value)
        case .text(let value): value.isEmpty ? "\"\"" : value
        case .list(let value): "[" + value.joined(separator: ", ") + "]"
        case .mappings(let value): "[\(value.count) mappings]"
        }
    }
}
