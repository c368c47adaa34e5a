// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Reactor

/// How a command gets to servers' memcached ports: plainly, by TLS, with a login where a server wants one.
final class CacheAccess {
    private let tls: TLSClientConfiguration?
    private let login: (user: String, password: [UInt8])?
    /// By host: its certificate has that name.
    private var contexts: [String: TLSClientContext] = [:]
    /// Whether the server of the last connection wanted a login.
    private(set) var isLoggedIn = false

    /// What the options and the environment say.
    init(_ options: ControlOptions, _ environment: [String: String]) throws(ControlError) {
        tls = try Self.tls(options)
        login = try Self.login(options, environment)
    }

    private static func tls(_ options: ControlOptions) throws(ControlError) -> TLSClientConfiguration? {
        guard options.has("tls") else {
            if let name = ["ca", "certificate", "key", "tls-name"].first(where: { options[$0] != nil }) {
                throw ControlError(.usage, "--\(name) is of TLS: it needs --tls")
            }
            return nil
        }
        if options["key"] != nil, options["certificate"] == nil {
            throw ControlError(.usage, "--key: a key needs its certificate, --certificate")
        }
        var tls = TLSClientConfiguration()
        (tls.authorityPath, tls.serverName) = (options["ca"], options["tls-name"])
        (tls.chainPath, tls.keyPath) = (options["certificate"], options["key"])
        do throws(TLSError) { _ = try TLSClientContext(tls, host: "") } catch {
            throw ControlError(.usage, "--tls: \(error)")
        }
        return tls
    }

    private static func login(
        _ options: ControlOptions, _ environment: [String: String]
    ) throws(ControlError) -> (user: String, password: [UInt8])? {
        guard let user = options["user"] else {
            guard options["password-file"] == nil else {
                throw ControlError(.usage, "--password-file: whose it is says --user")
            }
            return nil
        }
        guard !user.isEmpty, user.utf8.allSatisfy({ (33...126).contains($0) && $0 != UInt8(ascii: ":") }) else {
            throw ControlError(.usage, "--user=\(user): expected printable ASCII characters without spaces and colons")
        }
        if let path = options["password-file"] ?? environment["MARTLET_PASSWORD_FILE"] {
            do throws(SystemError) {
                return (user, try readFile(path, limitBytes: 4096).prefix { $0 != 10 && $0 != 13 }.map { $0 })
            } catch { throw ControlError(.system, "the password: \(error)") }
        }
        guard let password = environment["MARTLET_PASSWORD"], !password.isEmpty else {
            throw ControlError(
                .usage,
                "--user needs a password: the first line of --password-file or $MARTLET_PASSWORD_FILE, or "
                    + "$MARTLET_PASSWORD")
        }
        return (user, Array(password.utf8))
    }

    /// A connection that commands may be sent on. `timeoutSeconds` holds for each wait.
    func connect(host: String, port: UInt16, timeoutSeconds: Int) throws(ControlError) -> CacheConnection {
        let first = try unasked(host: host, port: port, timeoutSeconds: timeoutSeconds)
        // Who wants no login would keep the password as a value.
        try first.write(Array("version\r\n".utf8))
        let answer = try line(first)
        isLoggedIn = answer == "CLIENT_ERROR unauthenticated"
        guard isLoggedIn else { return first }
        guard let login else {
            throw ControlError(.unavailable, "\(first.subject): the server wants a login: --user and --password-file")
        }
        // Who is refused is hung up on.
        let connection = try unasked(host: host, port: port, timeoutSeconds: timeoutSeconds)
        let value = Array("\(login.user) ".utf8) + login.password
        try connection.write(Array("set auth 0 0 \(value.count)\r\n".utf8) + value + [13, 10])
        let outcome = try line(connection)
        guard outcome == "STORED" else {
            throw ControlError(.unavailable, "\(connection.subject): the login of \(login.user) is refused: \(outcome)")
        }
        return connection
    }

    /// A connection that nothing was sent on, for the binary protocol, which knows no login.
    func unasked(host: String, port: UInt16, timeoutSeconds: Int) throws(ControlError) -> CacheConnection {
        try CacheConnection.connect(host: host, port: port, tls: try context(host), timeoutSeconds: timeoutSeconds)
    }

    private func line(_ connection: CacheConnection) throws(ControlError) -> String {
        var bytes: [UInt8] = []
        while bytes.last != 10 {
            guard bytes.count < 2048 else {
                throw ControlError(.unavailable, "\(connection.subject): it is no memcached server")
            }
            bytes += try connection.read(limit: 1)
        }
        return String(decoding: bytes.dropLast().filter { $0 != 13 }, as: UTF8.self)
    }

    private func context(_ host: String) throws(ControlError) -> TLSClientContext? {
        guard let tls else { return nil }
        if let context = contexts[host] { return context }
        do throws(TLSError) {
            let context = try TLSClientContext(tls, host: host)
            contexts[host] = context
            return context
        } catch { throw ControlError(.system, "TLS: \(error)") }
    }
}
