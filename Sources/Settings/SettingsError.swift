// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Why settings were refused: everything that is wrong with them, not just the first thing.
package struct SettingsError: Error, Equatable, CustomStringConvertible {
    /// One line for each problem, each with its place, the setting, and what is allowed.
    package let problems: [String]

    /// At least one problem, each a line of its own.
    package init(_ problems: [String]) {
        precondition(!problems.isEmpty, "an error without a problem")
        self.problems = problems
    }

    package var description: String { problems.joined(separator: "\n") }
}
