// Martlet
// SPDX-License-Identifier: Apache-2.0

extension SettingType {
    /// The value that a text spells; nil when the type refuses it. ``allowed`` says what it takes.
    package func value(of text: String) -> SettingValue? { try? parse(text) }
}
