// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a setting's value may be.
package indirect enum SettingType: Sendable {
    /// `true` or `false`; also `yes`, `no`, `on` and `off`.
    case boolean
    /// A whole number in the range.
    case integer(ClosedRange<Int64>)
    /// A number of bytes in the range: `1048576`, `64m`, `4GiB`. Units are powers of 1024.
    case size(ClosedRange<UInt64>)
    /// A length of time in nanoseconds, in the range: `250ms`, `5s`, `1h30m`, `1d`.
    case duration(ClosedRange<UInt64>)
    /// Any text.
    case text
    /// Several texts: a YAML sequence, or texts with commas between them.
    case list
    /// One of these words.
    case enumeration([String])
    /// Several mappings with these fields. Only a file can hold them.
    case mappings([Setting])
}

/// One setting of a program.
package struct Setting: Sendable {
    /// The name, with a point for each level of the file: `storage.path`, `hotKeys.showKeys`.
    package let name: String
    /// What it may be.
    package let type: SettingType
    /// The value when nobody sets it, spelled as a user would; nil when there is then no value.
    package let defaultText: String?
    /// One sentence for the help text.
    package let help: String
    /// Whether a reload changes it while the program runs.
    package let isReloadable: Bool
    /// Whether its value is never shown.
    package let isSecret: Bool
    /// For a field of a mapping: whether it must be there.
    package let isRequired: Bool

    /// Describes a setting. A default that its type refuses is a bug of ours and stops the program.
    package init(
        _ name: String, _ type: SettingType, default defaultText: String? = nil, reloadable: Bool = false,
        secret: Bool = false, required: Bool = false, _ help: String
    ) {
        self.name = name
        self.type = type
        self.defaultText = defaultText
        self.help = help
        isReloadable = reloadable
        isSecret = secret
        isRequired = required
    }

    /// The flag's name, without the dashes: `storage-path`, `hot-keys-show-keys`.
    package var flagName: String { words.joined(separator: "-") }

    /// The environment variable's name: `MARTLET_STORAGE_PATH`.
    package var environmentName: String { "MARTLET_" + words.map { $0.uppercased() }.joined(separator: "_") }

    /// Whether a flag or an environment variable can hold it.
    package var isScalar: Bool {
        if case .mappings = type { return false }
        return true
    }

    /// The words of the name in lower case: a point or a change from lower to upper case separates them.
    private var words: [String] {
        var result = [""]
        var previousIsLower = false
        for character in name {
            if character == "." {
                result.append("")
            } else {
                if character.isUppercase, previousIsLower { result.append("") }
                result[result.count - 1] += character.lowercased()
            }
            previousIsLower = character.isLowercase || character.isNumber
        }
        return result
    }
}

/// A setting's value, checked.
package enum SettingValue: Sendable, Equatable {
    case boolean(Bool)
    case integer(Int64)
    /// Bytes.
    case size(UInt64)
    /// Nanoseconds.
    case duration(UInt64)
    case text(String)
    case list([String])
    case mappings([SettingsValues])
}

/// Where a value came from.
package enum SettingSource: Sendable, Equatable, CustomStringConvertible {
    case standard
    case file(String, line: Int)
    case environment(String)
    case flag(String)

    /// As an error message begins: `node.yaml:3`, `MARTLET_THREADS`, `--threads`.
    package var description: String {
        switch self {
        case .standard: "the default"
        case .file(let path, let line): "\(path):\(line)"
        case .environment(let name): name
        case .flag(let name): "--\(name)"
        }
    }
}
