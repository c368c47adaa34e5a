// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The end of a start: a program that says something and exits, because it was asked to or because it must.
package struct StartRefusal: Error, Equatable {
    /// Exit codes, after sysexits.h, with which memcached ends too.
    package enum Code {
        /// Anything else.
        package static let failure: Int32 = 1
        /// EX_USAGE: the command line is wrong.
        package static let usage: Int32 = 64
        /// EX_NOUSER: there is no such user.
        package static let noUser: Int32 = 67
        /// EX_OSERR: the system refused.
        package static let system: Int32 = 71
        /// EX_CONFIG: the configuration is wrong.
        package static let configuration: Int32 = 78
    }

    /// The exit code.
    package let code: Int32
    /// For standard output.
    package let output: String
    /// For standard error.
    package let errors: String

    /// An end with `code` that says this.
    package init(code: Int32, output: String = "", errors: String = "") {
        self.code = code
        self.output = output
        self.errors = errors
    }
}
