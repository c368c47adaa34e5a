// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// Why an authentication file was refused, in memcached's words.
package struct AuthenticationFileError: Error, Equatable, CustomStringConvertible {
    package let description: String
}

/// The users of `-Y`: at most 8 lines `user:password` of less than 256 bytes each.
///
/// A password ends at a carriage return or a line feed, and may hold colons. Lines beyond the eighth are not read,
/// as memcached reads none. Unlike memcached, a last line without a line feed is whole, and a longer line is refused
/// rather than split into two.
package struct AuthenticationFile: Sendable {
    /// Users at most.
    package static let entryLimit = 8
    /// Bytes of a line at most, its end not counted.
    package static let lineLimitBytes = 254
    /// Bytes of the file at most.
    private static let fileLimitBytes = 64 << 10

    private var entries: [(user: [UInt8], password: [UInt8])] = []

    /// Reads the file at `path`.
    package init(path: String) throws(AuthenticationFileError) {
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try readFile(path, limitBytes: Self.fileLimitBytes)
        } catch {
            let reason = error.reason
            throw AuthenticationFileError(
                description: "Could not open authfile [\(path)] for reading, error \(reason): \(reason)\n")
        }
        try self.init(bytes, path: path)
    }

    /// Reads the file's `bytes`; `path` is for the message.
    package init(_ bytes: [UInt8], path: String) throws(AuthenticationFileError) {
        let malformed = AuthenticationFileError(
            description: "Authfile [\(path)] has a malformed entry. Should be 'user:password'")
        var lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        if lines.last?.isEmpty == true, lines.count > 1 { lines.removeLast() }
        for line in lines.prefix(Self.entryLimit) {
            let text = line.prefix { $0 != UInt8(ascii: "\r") && $0 != 0 }
            guard text.count <= Self.lineLimitBytes, let colon = text.firstIndex(of: UInt8(ascii: ":")) else {
                throw malformed
            }
            entries.append((Array(text[..<colon]), Array(text[colon...].dropFirst())))
        }
    }

    /// How many users there are.
    package var count: Int { entries.count }

    /// Whether this is a user's password. Takes the same time whichever entry and whichever byte differs; only the
    /// lengths show.
    package func accepts(user: Span<UInt8>, password: Span<UInt8>) -> Bool {
        var found: UInt8 = 0
        for entry in entries {
            found |= Self.equal(user, entry.user) & Self.equal(password, entry.password)
        }
        return found != 0
    }

    /// 1 when both are the same bytes, else 0.
    private static func equal(_ left: Span<UInt8>, _ right: [UInt8]) -> UInt8 {
        guard left.count == right.count else { return 0 }
        var difference: UInt8 = 0
        for index in right.indices { difference |= left[index] ^ right[index] }
        return difference == 0 ? 1 : 0
    }
}
