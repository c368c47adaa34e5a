// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What `-l` entries are read against.
package struct ListenerRules {
    /// The port of entries that name none; -1 is a port of the kernel's choice.
    package var port: Int
    /// Whether listeners speak TLS unless they say otherwise.
    package var isTLSEnabled: Bool
    /// Whether clients must log in, which the binary protocol cannot.
    package var requiresAuthentication: Bool
    /// What connections speak unless their listener says otherwise.
    package var restriction: ProtocolRestriction

    /// Rules for a list of listeners.
    package init(port: Int, isTLSEnabled: Bool, requiresAuthentication: Bool, restriction: ProtocolRestriction) {
        self.port = port
        self.isTLSEnabled = isTLSEnabled
        self.requiresAuthentication = requiresAuthentication
        self.restriction = restriction
    }
}

/// An entry of `-l` that cannot be: memcached's words for it.
package struct BadListener: Error {
    /// A line, with its end.
    package let message: String
}

extension ServerListener {
    /// The listeners of a list as `-l` takes it: entries with commas or semicolons between, each
    /// `[notls:|btls:|mtls:][proto[name]:][tag[name]:]address[:port]`. An IPv6 address with a port stands in brackets;
    /// `*` is every address.
    ///
    /// Returns warnings beside the listeners.
    package static func parse(
        _ list: String, _ rules: ListenerRules
    ) throws(BadListener) -> (listeners: [ServerListener], warnings: [String]) {
        var listeners: [ServerListener] = []
        var warnings: [String] = []
        for entry in list.split(whereSeparator: { $0 == "," || $0 == ";" }) {
            var rest = entry
            var listener = ServerListener(host: nil, port: 0)
            listener.security = try takeSecurity(&rest, rules)
            listener.restriction = try takeProtocol(&rest, rules, &warnings)
            listener.tag = try takeTag(&rest)
            (listener.host, listener.port) = try address(rest, rules)
            listeners.append(listener)
        }
        return (listeners, warnings)
    }

    private static func takeSecurity(_ rest: inout Substring, _ rules: ListenerRules) throws(BadListener) -> Security {
        let words: [(word: String, security: Security)] = [
            ("notls", .plain), ("btls", .tlsWithoutPeer), ("mtls", .mutualTLS),
        ]
        guard let found = words.first(where: { rest.hasPrefix($0.word) }) else {
            return rules.isTLSEnabled ? .tls : .plain
        }
        // memcached misspells mtls here; scripts that look for its words find them.
        let shown = found.word == "mtls" ? "otls" : found.word
        guard rules.isTLSEnabled else {
            throw BadListener(message: "'\(shown)' option is valid only when SSL is enabled\n")
        }
        rest = rest.dropFirst(found.word.count + 1)
        return found.security
    }

    private static func takeProtocol(
        _ rest: inout Substring, _ rules: ListenerRules, _ warnings: inout [String]
    ) throws(BadListener) -> ProtocolRestriction {
        guard rest.hasPrefix("proto[") else { return rules.restriction }
        let specification = rest.dropFirst("proto".count)
        guard let end = specification.firstIndex(of: "]") else {
            throw BadListener(message: "Invalid protocol spec: \"\(specification)\"\n")
        }
        let name = specification[..<end].dropFirst()
        let whole = rest
        rest = specification[end...].dropFirst(2)
        // A beginning of a name will do, as it does for memcached; what is none of them changes nothing.
        if "ascii".hasPrefix(name) { return .ascii }
        if "binary".hasPrefix(name) {
            guard !rules.requiresAuthentication else {
                throw BadListener(message: "Cannot use binary protocol when ascii authentication enabled\n")
            }
            return .binary
        }
        if "negotiating".hasPrefix(name) {
            guard rules.requiresAuthentication else { return .automatic }
            warnings.append("negotiating ports are ascii only when ascii authentication is enabled")
            return .ascii
        }
        if "proxy".hasPrefix(name) {
            throw BadListener(message: "Server not built with proxy: \"\(whole.prefix { $0 != "]" })\"\n")
        }
        return rules.restriction
    }

    private static func takeTag(_ rest: inout Substring) throws(BadListener) -> String {
        guard rest.hasPrefix("tag[") || rest.hasPrefix("tag_") else { return "" }
        let specification = rest.dropFirst("tag".count)
        let body = specification.dropFirst()
        guard let end = body.firstIndex(of: specification.first == "[" ? "]" : "_") else {
            throw BadListener(message: "Invalid tag in socket config: \"\(specification)\"\n")
        }
        let tag = body[..<end]
        guard (1...8).contains(tag.utf8.count) else {
            throw BadListener(message: "Listener tags must be between 1 and 8 characters: \"\(tag)\"\n")
        }
        rest = body[end...].dropFirst(2)
        return String(tag)
    }

    private static func address(
        _ text: Substring, _ rules: ListenerRules
    ) throws(BadListener) -> (host: String?, port: UInt16) {
        var host = text
        var rest = text
        let isBracketed = text.first == "["
        if isBracketed {
            guard let end = text.firstIndex(of: "]") else {
                throw BadListener(message: "Invalid IPV6 address: \"\(text)\"")
            }
            host = text[..<end].dropFirst()
            rest = text[end...].dropFirst()
        }
        var port = rules.port
        if let colon = rest.firstIndex(of: ":") {
            let after = rest[colon...].dropFirst()
            // An IPv6 address without brackets has more colons, and no port.
            if isBracketed || !after.contains(":") {
                guard let number = strictInteger(String(after)), number <= 65535, number >= -1 else {
                    throw BadListener(message: "Invalid port number: \"\(after)\"\n")
                }
                port = Int(number)
                if !isBracketed { host = rest[..<colon] }
            }
        }
        guard !host.isEmpty else { throw BadListener(message: "getaddrinfo(): Name or service not known\n") }
        return (host == "*" ? nil : String(host), UInt16(clamping: port))
    }
}
