// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// The token that opens the admin server's guarded pages.
package enum AdminToken {
    /// Bytes of a token at least: what is shorter can be guessed.
    private static let minimumBytes = 16

    /// Reads it: the first line of the file at `path`; nil without a path. Refuses what cannot be read or is too short.
    package static func read(_ path: String?) throws(StartRefusal) -> [UInt8]? {
        guard let path else { return nil }
        let problem: String
        do throws(SystemError) {
            let line = try readFile(path, limitBytes: 4096).prefix { $0 != 10 && $0 != 13 }
            if line.count >= minimumBytes { return Array(line) }
            problem = "the token is shorter than \(minimumBytes) bytes"
        } catch {
            problem = error.reason
        }
        throw StartRefusal(code: StartRefusal.Code.configuration, errors: "adminTokenFile: \(path): \(problem)\n")
    }
}
