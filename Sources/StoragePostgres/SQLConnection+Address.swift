// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPostgres

extension SQLConnection {
    /// What is wrong with a connection string, in words that show none of it: it may hold a password, and where
    /// characters of that are not escaped, a part of it stands for a host, a port or a database, which the library's
    /// messages do show.
    static func complaint(about url: String) -> String? {
        guard let options = parsed(url) else { return "storage.url cannot be read: \(expected)" }
        for name in ["host", "port", "dbname"] {
            guard let value = options[name] else { continue }
            let isSuspect =
                name == "port" ? !value.utf8.allSatisfy { (48...57).contains($0) || $0 == 44 } : value.contains("@")
            if isSuspect { return "storage.url has an odd \(name): \(expected)" }
        }
        return nil
    }

    /// What a connection string sets; nothing where it cannot be read.
    static func options(of url: String) -> [String: String] { parsed(url) ?? [:] }

    private static func parsed(_ url: String) -> [String: String]? {
        // SAFETY: the list is the library's until it is freed below, ended by an entry without a name; what it shows
        // is copied. No text of an error is asked for.
        guard let options = unsafe PQconninfoParse(url, nil) else { return nil }
        defer { unsafe PQconninfoFree(options) }
        var found: [String: String] = [:]
        var option = unsafe options
        while let name = unsafe option.pointee.keyword {
            if let value = unsafe option.pointee.val {
                unsafe found[String(cString: name)] = String(cString: value)
            }
            unsafe option += 1
        }
        return found
    }

    private static let expected =
        "expected postgresql://user:password@host:port/database, in which a password's special characters are "
        + "written as %40 for @, %2F for / and so on; or host=… dbname=… user=…"
}
