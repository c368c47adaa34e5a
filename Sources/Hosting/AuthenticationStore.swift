// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// The users of `-Y`, reloadable while the program runs.
package final class AuthenticationStore: Sendable {
    private let users: Guarded<AuthenticationFile>
    private let path: String

    /// Reads the file at `path`.
    package convenience init(path: String) throws(AuthenticationFileError) {
        self.init(try AuthenticationFile(path: path), path: path)
    }

    /// The users of a file that was read already from `path`.
    init(_ file: AuthenticationFile, path: String) {
        self.path = path
        users = Guarded(file)
    }

    /// Whether this is a user's password; takes the same time whichever byte differs.
    package func accepts(user: Span<UInt8>, password: Span<UInt8>) -> Bool {
        users.withLock { $0.accepts(user: user, password: password) }
    }

    /// Reads the file again; keeps the users there were when it cannot be read.
    package func reload() throws(AuthenticationFileError) {
        let fresh = try AuthenticationFile(path: path)
        users.withLock { $0 = fresh }
    }
}
