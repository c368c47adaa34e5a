// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Settings

/// Whether and where deletes that servers missed are kept.
package struct SpoolSettings: Sendable, Equatable {
    /// The directory; nil when none are kept.
    package var directory: String?
    /// Bytes on disk at most.
    package var limitBytes = 1 << 30
    /// Whether a delete outlives a power loss before it is answered.
    package var isSynced = true

    /// None are kept.
    package init() {}

    static let settings: [Setting] = [
        Setting(
            "spool.directory", .text,
            "Directory where deletes that servers missed are kept until they are repeated; none are kept without."),
        Setting(
            "spool.limit", .size(1 << 16...1 << 40), default: "1GiB",
            "Bytes of such deletes on disk; beyond, they fail."),
        Setting(
            "spool.sync", .boolean, default: "true",
            "Whether a missed delete is made safe from a power loss before it is answered."),
    ]

    init(_ values: SettingsValues) {
        directory = values.text("spool.directory")
        limitBytes = Int(values.size("spool.limit"))
        isSynced = values.boolean("spool.sync")
    }
}
