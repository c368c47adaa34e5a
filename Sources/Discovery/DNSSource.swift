// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Members by the domain name system: asked again when what was said no longer holds.
struct DNSSource {
    private let source: MemberSource
    private let servers: String?

    /// Seconds between questions, whatever the answers say.
    private static var shortestWait: UInt64 { 1 }
    private static var longestWait: UInt64 { 300 }
    /// Names of services whose addresses are asked for.
    private static var maximumTargets: Int { 4_096 }

    init(_ source: MemberSource, servers: String?) {
        self.source = source
        self.servers = servers
    }

    func run(_ reporter: MemberReporter) {
        var resolver: Resolver?
        var pause = Self.shortestWait
        while !reporter.isStopped {
            do throws(Resolver.Failure) {
                if resolver == nil { resolver = try Resolver(servers: servers) }
                guard let resolver else { continue }
                let (members, ttl) = try members(resolver, reporter)
                // An empty answer is no fleet: what is known is kept.
                if members.isEmpty { reporter.failed("the answer names nobody") } else { reporter.found(members) }
                pause = Self.shortestWait
                reporter.wait(milliseconds: min(max(UInt64(ttl), Self.shortestWait), Self.longestWait) * 1_000)
            } catch {
                reporter.failed("DNS: \(error.reason)")
                // The system's configuration may have changed meanwhile.
                resolver = nil
                reporter.wait(milliseconds: pause * 1_000)
                pause = min(pause * 2, 30)
            }
        }
    }

    private func members(
        _ resolver: Resolver, _ reporter: MemberReporter
    ) throws(Resolver.Failure) -> (members: [Member], ttlSeconds: UInt32) {
        var ttl = UInt32(Self.longestWait)
        switch source {
        case .addresses(let host, let port):
            let found = try addresses(of: host, resolver, reporter, &ttl)
            return (found.map { Member(host: $0, port: port) }, ttl)
        case .services(let name):
            var members: [Member] = []
            for target in try targets(name, resolver, reporter, &ttl) {
                // A target without an address is not there yet, or no more.
                var found: [String] = []
                do throws(Resolver.Failure) { found = try addresses(of: target.host, resolver, reporter, &ttl) } catch {
                    if !error.isAbsent { throw error }
                }
                for address in found {
                    let alias =
                        found.count == 1 ? "\(target.host):\(target.port)" : "\(target.host):\(target.port)/\(address)"
                    members.append(Member(host: target.host, address: address, port: target.port, name: alias))
                }
            }
            return (members, ttl)
        case .serviceNames(let name):
            return (
                try targets(name, resolver, reporter, &ttl).map { Member(host: $0.host, port: $0.port) }, ttl
            )
        case .fixed, .file, .etcd, .kubernetes: preconditionFailure("no source of the domain name system")
        }
    }

    private func targets(
        _ name: String, _ resolver: Resolver, _ reporter: MemberReporter, _ ttl: inout UInt32
    ) throws(Resolver.Failure) -> [(host: String, port: Int)] {
        var targets: [(host: String, port: Int)] = []
        for record in try resolver.query(name, .srv, isStopped: { reporter.isStopped }) {
            guard case .service(_, _, let port, let target, _) = record, port > 0 else { continue }
            ttl = min(ttl, record.ttlSeconds)
            if targets.count < Self.maximumTargets { targets.append((target, port)) }
        }
        return targets
    }

    /// A host's IPv4 addresses; its IPv6 addresses only where it has no others, because a server that has both is one
    /// member.
    private func addresses(
        of host: String, _ resolver: Resolver, _ reporter: MemberReporter, _ ttl: inout UInt32
    ) throws(Resolver.Failure) -> [String] {
        var absent: Resolver.Failure?
        for type in [Resolver.RecordType.a, .aaaa] {
            do throws(Resolver.Failure) {
                var found: [String] = []
                for record in try resolver.query(host, type, isStopped: { reporter.isStopped }) {
                    ttl = min(ttl, record.ttlSeconds)
                    if case .address(_, let address, _) = record, !found.contains(address) { found.append(address) }
                }
                if !found.isEmpty { return found }
            } catch {
                if !error.isAbsent { throw error }
                absent = error
            }
        }
        if let absent { throw absent }
        return []
    }
}
