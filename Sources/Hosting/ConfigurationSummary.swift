// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
package import Settings

/// What a program was told, in short: so that the processes of a fleet can be compared.
package struct ConfigurationSummary: Sendable, Equatable {
    /// 16 hexadecimal digits of what was set; alike in processes that were told alike. Empty where nobody read any.
    package private(set) var digest = ""
    /// Every setting, its value, and where that came from, as `--check-config` shows them; secrets are hidden.
    package private(set) var lines: [String] = []

    /// Settings that each process of a fleet has of its own, and which therefore do not count.
    package static let own: Set<String> = [
        "listen", "port", "udp.port", "unix.", "admin", "pidfile", "daemon", "user", "memoryFile", "register.",
        "storage.path", "storage.instance", "stream.name", "stream.listen", "spool.directory", "tracing.attributes",
    ]

    /// A program that was told nothing.
    package init() {}

    /// What `values` say, and beside them `options` in words of their own, and files whole.
    package init(
        _ schema: SettingsSchema, _ values: SettingsValues, options: [String] = [], files: [[UInt8]] = []
    ) {
        lines = schema.describe(values) + options.map { "option: \($0)" }
        var text = Array((schema.canonical(values, leavingOut: Self.own) + options).joined(separator: "\n").utf8)
        for file in files {
            text += Array("\nfile \(Hexadecimal.digits(stableHash(file.span)))".utf8)
        }
        digest = Hexadecimal.digits(stableHash(text.span))
    }
}
