// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform

/// Why a command of `martletctl` did not do what it was asked.
package struct ControlError: Error, Sendable, CustomStringConvertible {
    /// What the shell is told. Source: sysexits.h.
    package enum Code: Int32, Sendable {
        /// The command itself is wrong.
        case usage = 64
        /// A file is not what it should be.
        case data = 65
        /// A node or a server does not answer, or says no.
        case unavailable = 69
        /// The system refused.
        case system = 71
        /// Rows of a store are damaged; everything else was done.
        case damaged = 74
    }

    /// Which kind it is.
    package let code: Code
    /// What is wrong, and what is allowed.
    package let description: String

    /// What standard error gets: the reason behind the program's name, or one JSON object for programs.
    package func report(program: String, arguments: [String]) -> String {
        guard arguments.contains("--json") else { return "\(program): \(description)\n" }
        return "{\"error\":\(JSONString.quoted(description)),\"code\":\(code.rawValue)}\n"
    }

    init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}

/// Runs `body`; what the system refuses becomes an error of the command.
func system<R: ~Copyable>(_ body: () throws(SystemError) -> R) throws(ControlError) -> R {
    do throws(SystemError) { return try body() } catch { throw ControlError(.system, error.description) }
}
