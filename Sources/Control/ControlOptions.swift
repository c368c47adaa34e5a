// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Settings

/// The command line of `martletctl`, taken apart.
struct ControlOptions {
    /// Every option of any command, and what the help says of it.
    static let table: [(name: String, placeholder: String?, help: String)] = [
        ("node", "URL", "the node's, or for drain the router's, admin port (default: http://127.0.0.1:9150)"),
        ("token-file", "FILE", "its first line is the admin port's token (default: $MARTLET_ADMIN_TOKEN_FILE)"),
        ("output", "FILE", "dump: the file to write"),
        ("resume", nil, "dump, restore: go on where an earlier run stopped"),
        ("prefix", "TEXT", "dump, warm: only keys that begin so"),
        ("limit", "N", "warm: rows at most"),
        ("rate", "N", "warm: rows a second at most (default: 10000); audit: changes (1000)"),
        ("to", "DIR", "backup: a directory of the node's machine; restore: the new data directory"),
        ("keep", "N", "backup: how many to leave there (default: all)"),
        ("from", "DIR", "restore, backup list, backup verify: the directory of the backups"),
        ("id", "N", "restore, backup verify: which backup (default: the newest)"),
        ("input", "FILE", "restore: the dump to read"),
        ("server", "HOST:PORT", "restore: the node to write a dump to (default: 127.0.0.1:11211)"),
        ("routes", "FILE", "explain: the routes, our YAML or mcrouter's JSON"),
        ("format", "FORMAT", "convert, explain: martlet, mcrouter or twemproxy (default: .json is mcrouter's)"),
        ("pool", "NAME", "convert: which of twemproxy's pools"),
        ("watch", nil, "members: print each change, until ended"),
        ("dns", "SERVERS", "members: DNS servers, ADDRESS:PORT with commas (default: the system's)"),
        ("tls", nil, "audit, restore: TLS to the servers"),
        ("ca", "FILE", "with --tls: who signs the servers' certificates (default: the system's); members: etcd's"),
        ("certificate", "FILE", "with --tls: our certificate"),
        ("key", "FILE", "with --tls: its key, when the certificate's file does not hold it"),
        ("tls-name", "NAME", "with --tls: the name in the servers' certificates (default: the host)"),
        ("user", "NAME", "audit, restore: who logs in where a server wants that"),
        ("password-file", "FILE", "with --user: the password (default: $MARTLET_PASSWORD_FILE, or $MARTLET_PASSWORD)"),
        ("route-prefix", "PREFIX", "convert, explain: the routing prefix of keys that have none"),
        ("variables", "FILE", "convert, explain: a file of mcrouter's runtime variables"),
        ("url", "URL", "storage init: the database (default: $MARTLET_STORAGE_URL)"),
        ("capture", "on|off", "storage init: whether changes of other programs are put into the stream"),
        ("wait", nil, "drain: wait until nobody asks any more"),
        ("timeout", "SECONDS", "drain: wait so long at most (30); region promote: for the standby (10)"),
        ("accept-loss", nil, "region promote: go on where the home region cannot be fenced"),
        ("interval", "SECONDS", "top: time between two tables (default: 1)"),
        ("count", "N", "top: tables, stream tail: records, events, hotkeys: lines to show"),
        ("begin", "WHERE", "stream tail, audit: now, kept (the oldest that is kept) or a cursor (default: now)"),
        ("cursor-file", "FILE", "stream tail: keeps the cursor there, and goes on from it"),
        ("slot", "N|all", "stream replay, stream skip: which of the 64 slots (replay's default: all)"),
        ("once", nil, "stream tail: end when there is nothing more for now"),
        ("after", "SECONDS", "audit: how long behind a change to look, several with commas (default: 1,10)"),
        ("for", "SECONDS", "audit: for how long changes are taken (default: 30)"),
        ("wide", nil, "top: all columns, however wide the terminal is"),
        ("json", nil, "answer as JSON, without progress"),
        ("help", nil, "what there is, or with a command what it does"),
    ]

    private var values: [String: String] = [:]
    /// The command's name, and what follows it beside options.
    let operands: [String]

    init(program: String, arguments: [String]) throws(ControlError) {
        let longs = Self.table.map { OptionScanner.Long($0.name, $0.placeholder == nil ? .boolean : .required) }
        var scanner = OptionScanner(program: program, shorts: "h", longs: longs, arguments: arguments)
        while let step = scanner.next() {
            switch step {
            case .short: values["help"] = ""
            case .long(let name, let value):
                if let value, Self.isSwitch(name), SettingType.truth(value) == nil {
                    throw ControlError(.usage, "--\(name)=\(value): expected true or false\nTry: \(program) --help")
                }
                values[name] = value ?? ""
            case .problem(let message, _): throw ControlError(.usage, "\(message)\nTry: \(program) --help")
            }
        }
        operands = scanner.operands
    }

    /// The value of an option; nil when it is not given.
    subscript(_ name: String) -> String? { values[name] }

    /// Whether a switch is on.
    func has(_ name: String) -> Bool { values[name].map { SettingType.truth($0) != false } ?? false }

    private static func isSwitch(_ name: String) -> Bool {
        table.contains { $0.name == name && $0.placeholder == nil }
    }

    /// The value of an option that must be there.
    func required(_ name: String) throws(ControlError) -> String {
        guard let value = values[name], !value.isEmpty else { throw ControlError(.usage, "--\(name) is missing") }
        return value
    }

    /// A number of at least 1.
    func number(_ name: String, upTo limit: Int = .max) throws(ControlError) -> Int? {
        guard let text = values[name] else { return nil }
        guard let number = Int(text), 1...limit ~= number else {
            let range = limit == .max ? "from 1" : "from 1 to \(limit)"
            throw ControlError(.usage, "--\(name)=\(text): expected a whole number \(range)")
        }
        return number
    }

    /// Seconds, a year of them at most.
    func seconds(_ name: String) throws(ControlError) -> Int? { try number(name, upTo: 31_536_000) }

    /// The admin port's client, with the token.
    func client(_ environment: [String: String]) throws(ControlError) -> HTTPClient {
        var token: String?
        if let path = values["token-file"] ?? environment["MARTLET_ADMIN_TOKEN_FILE"] {
            do throws(SystemError) {
                let line = try readFile(path, limitBytes: 4096).prefix { $0 != 10 && $0 != 13 }
                token = String(decoding: line, as: UTF8.self)
            } catch {
                throw ControlError(.system, "the token: \(error.description)")
            }
        }
        return try HTTPClient(base: values["node"] ?? "http://127.0.0.1:9150", token: token)
    }
}
