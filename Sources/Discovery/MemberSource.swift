// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Where a fleet's members are looked up.
package enum MemberSource: Sendable, Equatable {
    /// These.
    case fixed([Member])
    /// A file that is watched: YAML or JSON, a list of `host:port`, or of mappings with `host` (or `address`), `port`,
    /// `weight`, `name` and `zone`.
    case file(String)
    /// The addresses of a host name, all with one port.
    case addresses(host: String, port: Int)
    /// What an SRV record names, and the addresses of that.
    case services(String)
    /// What an SRV record names.
    case serviceNames(String)
    /// The keys below a prefix in etcd, through its JSON gateway.
    case etcd(EtcdAddress)
    /// The EndpointSlices of a service in Kubernetes.
    case kubernetes(KubernetesService)

    /// Why a text names no source.
    package struct Problem: Error, Equatable, CustomStringConvertible {
        /// What is wrong and what is allowed.
        package let description: String

        /// A problem that says `description`.
        package init(description: String) {
            self.description = description
        }
    }

    private static let forms =
        "HOST:PORT, file:PATH, dns+HOST:PORT, dnssrv+NAME, dnssrvnoa+NAME, "
        + "etcd://HOST:PORT/PREFIX, k8s:///NAMESPACE/SERVICE[:PORT]"

    /// The source that texts name: one of them, or members with commas between them.
    package init(_ texts: [String]) throws(Problem) {
        guard texts.count == 1, let text = texts.first, let source = try Self.source(text) else {
            var members: [Member] = []
            for text in texts {
                // Alone it would be another source.
                let other = try Self.source(text)
                guard other == nil else {
                    throw Problem(description: "\(text): is a source of its own, and cannot be one of several members")
                }
                let (host, port) = try Self.address(text[...])
                members.append(Member(host: host, port: port))
            }
            guard !members.isEmpty else { throw Problem(description: "no members; allowed are \(Self.forms)") }
            self = .fixed(members)
            return
        }
        self = source
    }

    /// Whether a text is meant to name a source, rather than a member: a misspelt one is no member either.
    package static func isLikely(_ text: String) -> Bool {
        text.hasPrefix("file:") || text.contains("://") || text.prefix { $0 != ":" }.contains("+")
    }

    /// Whether members are asked for, rather than listed.
    package var isLookedUp: Bool {
        if case .fixed = self { return false }
        return true
    }

    private static func source(_ text: String) throws(Problem) -> MemberSource? {
        func rest(_ prefix: String) -> Substring? {
            text.hasPrefix(prefix) ? text.dropFirst(prefix.count) : nil
        }
        if let path = rest("file:") {
            guard !path.isEmpty else { throw Problem(description: "\(text): a path is missing") }
            return .file(String(path))
        }
        if let name = rest("dns+") {
            let (host, port) = try address(name)
            return .addresses(host: host, port: port)
        }
        if let name = rest("dnssrv+") { return .services(try domain(name, text)) }
        if let name = rest("dnssrvnoa+") { return .serviceNames(try domain(name, text)) }
        for (scheme, isEncrypted) in [("etcd://", false), ("etcd+https://", true)] {
            if let place = rest(scheme) { return .etcd(try EtcdAddress(place, isEncrypted: isEncrypted, text)) }
        }
        for (scheme, base) in [("k8s://", nil), ("k8s+http://", "http://"), ("k8s+https://", "https://")] {
            if let place = rest(scheme) { return .kubernetes(try KubernetesService(place, base: base, text)) }
        }
        if isLikely(text) {
            throw Problem(description: "\(text): no source of members; allowed are \(forms)")
        }
        return nil
    }

    private static func domain(_ name: Substring, _ text: String) throws(Problem) -> String {
        let isName = name.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != UInt8(ascii: ":") }
        guard 1...253 ~= name.utf8.count, isName else {
            throw Problem(
                description:
                    "\(text): the name of an SRV record is expected, such as dnssrv+_memcached._tcp.example.org")
        }
        return String(name)
    }

    /// `host:port`; the ordinary port when there is none.
    static func address(
        _ text: Substring, ordinaryPort: Int = 11211
    ) throws(Problem) -> (host: String, port: Int) {
        var host = text
        var port: Substring?
        if text.first == "[" {
            guard let end = text.firstIndex(of: "]") else { throw Problem(description: "\(text): a ] is missing") }
            host = text[text.index(after: text.startIndex)..<end]
            let behind = text[text.index(after: end)...]
            if behind.first == ":" { port = behind.dropFirst() } else if !behind.isEmpty { port = "" }
        } else if let colon = text.lastIndex(of: ":") {
            host = text[..<colon]
            port = text[text.index(after: colon)...]
        }
        let number = port.map { Int($0) ?? 0 } ?? ordinaryPort
        guard !host.isEmpty, host.utf8.allSatisfy({ $0 > 32 && $0 < 127 && $0 != UInt8(ascii: ",") }),
            1...65_535 ~= number
        else {
            throw Problem(description: "\(text): expected HOST:PORT; other sources are \(forms)")
        }
        return (String(host), number)
    }
}

/// Keys of etcd that are a fleet's members.
package struct EtcdAddress: Sendable, Equatable {
    /// `http://host:port`, without a path; the next one is tried when one does not answer.
    package let endpoints: [String]
    /// What all keys of members begin with; ends in a slash.
    package let prefix: String

    init(_ place: Substring, isEncrypted: Bool, _ text: String) throws(MemberSource.Problem) {
        let hosts = place.prefix { $0 != "/" }
        let path = place.dropFirst(hosts.count)
        var endpoints: [String] = []
        for host in hosts.split(separator: ",", omittingEmptySubsequences: false) {
            let (name, port) = try MemberSource.address(host, ordinaryPort: 2379)
            let spelled = name.contains(":") ? "[\(name)]" : name
            endpoints.append("\(isEncrypted ? "https" : "http")://\(spelled):\(port)")
        }
        guard path.count > 1, path.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else {
            throw MemberSource.Problem(
                description: "\(text): a prefix is missing, such as etcd://127.0.0.1:2379/martlet/main")
        }
        self.endpoints = endpoints
        prefix = path.hasSuffix("/") ? String(path) : path + "/"
    }
}

/// A service of Kubernetes.
package struct KubernetesService: Sendable, Equatable {
    /// Where the API server is; nil for where the pod's environment says.
    package let base: String?
    /// The service's namespace.
    package let namespace: String
    /// Its name.
    package let service: String
    /// The name or number of the port; nil for the only one, or the first.
    package let port: String?

    init(_ place: Substring, base scheme: String?, _ text: String) throws(MemberSource.Problem) {
        let host = place.prefix { $0 != "/" }
        let parts = place.dropFirst(host.count).dropFirst().split(separator: "/", omittingEmptySubsequences: false)
        let isAllowed = parts.allSatisfy { part in
            part.utf8.allSatisfy { byte in
                (97...122).contains(byte) || (48...57).contains(byte) || "-.:".utf8.contains(byte)
            }
        }
        guard parts.count == 2, isAllowed, (scheme == nil) == host.isEmpty else {
            throw MemberSource.Problem(
                description: "\(text): expected k8s:///NAMESPACE/SERVICE or k8s:///NAMESPACE/SERVICE:PORT")
        }
        base = scheme.map { $0 + host }
        namespace = String(parts[0])
        let named = parts[1].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard !parts[0].isEmpty, !named[0].isEmpty else {
            throw MemberSource.Problem(description: "\(text): the name of the namespace or of the service is missing")
        }
        service = String(named[0])
        port = named.count == 2 ? String(named[1]) : nil
        guard let port else { return }
        let isNumber = port.utf8.allSatisfy { (48...57).contains($0) || $0 == UInt8(ascii: "-") }
        guard !port.isEmpty, !isNumber || (Int(port).map { 1...65_535 ~= $0 } ?? false) else {
            throw MemberSource.Problem(description: "\(text): a port is expected from 1 to 65535, or its name")
        }
    }
}
