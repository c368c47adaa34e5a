// Martlet
// SPDX-License-Identifier: Apache-2.0

extension SettingsSchema {
    /// What is not as it is by default, a line for each setting in the order of their names: the same lines whatever
    /// set them and however it was spelled. Secrets are left out, and the settings in `own`; one that ends in a point
    /// stands for its whole group.
    package func canonical(_ values: SettingsValues, leavingOut own: Set<String> = []) -> [String] {
        let standard = defaults()
        return settings.compactMap { setting in
            let isOwn = own.contains { setting.name == $0 || ($0.hasSuffix(".") && setting.name.hasPrefix($0)) }
            guard !isOwn, !setting.isSecret, let value = values.value(setting.name),
                value != standard.value(setting.name)
            else { return nil }
            return "\(setting.name)=\(value.canonical(setting.type))"
        }.sorted()
    }
}

extension SettingValue {
    /// The value in one spelling, whole.
    fileprivate func canonical(_ type: SettingType) -> String {
        switch self {
        case .boolean(let value): "\(value)"
        case .integer(let value): "\(value)"
        case .size(let value): "\(value)"
        case .duration(let value): "\(value)"
        case .text(let value): value.debugDescription
        case .list(let values): "[" + values.map(\.debugDescription).joined(separator: ",") + "]"
        case .mappings(let mappings):
            if case .mappings(let fields) = type {
                "[" + mappings.map { $0.canonical(fields) }.joined(separator: ",") + "]"
            } else {
                "[]"
            }
        }
    }
}

extension SettingsValues {
    /// A mapping's fields, without secrets.
    fileprivate func canonical(_ fields: [Setting]) -> String {
        let shown = fields.filter { !$0.isSecret }.sorted { $0.name < $1.name }.compactMap { field in
            value(field.name).map { "\(field.name)=\($0.canonical(field.type))" }
        }
        return "{" + shown.joined(separator: ",") + "}"
    }
}
