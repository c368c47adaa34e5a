// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Memory
package import Routing
internal import Settings
internal import Storage

/// How the nodes that share a store agree on who owns which key.
package struct OwnershipSettings: Sendable, Equatable {
    /// How keys are spread over the nodes: as routers and clients do. nil where the node is the only one.
    package var hash: HashName?
    /// What of a key is hashed.
    package var part = HashedPart.whole
    /// How long a lease lasts, in milliseconds. The same in all nodes.
    package var leaseMilliseconds = 1000
    /// Whether requests of clients that cannot be told where a key is are passed on to its owner.
    package var forwards = true
    /// Where nodes of a replica region agree: `etcd://HOST:PORT/PREFIX`. nil where their database is the place.
    package var authority: String?

    package init() {}

    /// Settings of it, for the table.
    static let settings: [Setting] = [
        Setting(
            "ownership.hash", .enumeration(HashName.allCases.map(\.rawValue)),
            "How keys are spread over the `members` that share the store: as the routers' pools do. Absent, the node "
                + "is the only one."),
        Setting(
            "ownership.authority", .text,
            "Where nodes of a replica region agree on who owns what, as etcd://HOST:PORT/PREFIX. Nodes on one "
                + "PostgreSQL agree there."),
        Setting("ownership.tag", .text, "Two characters, such as {}: only what is between them is hashed."),
        Setting(
            "ownership.lease", .duration(100_000_000...60_000_000_000), default: "1s",
            "How long a node may show copies without a word of the database, or of etcd. The same in all nodes."),
        Setting(
            "ownership.forward", .boolean, default: "true",
            "Whether requests for another node's keys are passed on to it; if not, its address is the answer."),
    ]

    /// Reads the settings; adds what is wrong with them.
    init(
        _ values: SettingsValues, _ fleet: FleetSettings, backend: StorageSettings.Backend, hasMembers: Bool,
        problems: inout [String]
    ) {
        hash = values.text("ownership.hash").flatMap(HashName.init)
        leaseMilliseconds = Int(values.duration("ownership.lease") / 1_000_000)
        forwards = values.boolean("ownership.forward")
        if let text = values.text("ownership.tag") {
            let bytes = Array(text.utf8)
            if bytes.count == 2 {
                part = .tag(open: bytes[0], close: bytes[1])
            } else {
                problems.append("ownership.tag: \"\(text)\" is not valid; expected two characters, such as {}")
            }
        }
        authority = values.text("ownership.authority")
        guard hash != nil else { return }
        switch backend {
        case .postgres:
            if authority != nil {
                problems.append("ownership.authority: nodes with storage.backend postgres agree in their database")
            }
        case .region: checkAuthority(&problems)
        default:
            problems.append(
                "ownership.hash: storage.backend is \(backend.rawValue); only postgres and region can be shared")
        }
        if !hasMembers { problems.append("members: missing; ownership.hash needs to know the nodes") }
        if fleet.address == nil {
            problems.append("register.address: missing; ownership.hash needs the node's host:port, as others reach it")
        } else if fleet.ownMember == nil {
            problems.append("register.address: expected host:port")
        }
    }

    private func checkAuthority(_ problems: inout [String]) {
        guard let authority else {
            problems.append(
                "ownership.authority: missing; nodes of a replica region agree in etcd, as etcd://HOST:PORT/PREFIX")
            return
        }
        do throws(MemberSource.Problem) {
            guard case .etcd = try MemberSource([authority]) else {
                throw MemberSource.Problem(
                    description: "\"\(authority)\" is not valid; expected etcd://HOST:PORT/PREFIX")
            }
        } catch {
            problems.append("ownership.authority: \(error.description)")
        }
    }

    /// A number of what all nodes must have alike.
    var fingerprint: UInt64 {
        let text = "\(hash?.rawValue ?? "") \(part) \(leaseMilliseconds)"
        return stableHash(Array(text.utf8).span)
    }

    /// The times of leases.
    var configuration: OwnershipConfiguration {
        var configuration = OwnershipConfiguration()
        configuration.leaseNanoseconds = UInt64(leaseMilliseconds) * 1_000_000
        return configuration
    }

    /// Spreads keys over members; nil where the hash cannot.
    func place(_ members: [RingMember]) -> (any KeyPlacement)? {
        guard let hash else { return nil }
        let servers = members.map { member in
            Server(
                host: member.host, port: member.port, weight: member.weight,
                alias: member.isNamed ? member.name : nil)
        }
        return (try? ServerSelector(servers, scheme: hash.scheme, part: part)).map(SelectorPlacement.init)
    }
}

/// A selector of servers as storage sees it.
struct SelectorPlacement: KeyPlacement {
    let selector: ServerSelector

    func owner(of key: Span<UInt8>) -> Int { selector.owner(of: key) }
}

extension FleetSettings {
    /// The node as a member of its ring; nil where its address was not given, or cannot be read.
    var ownMember: RingMember? {
        guard let address, case .fixed(let members)? = try? MemberSource([address]), let own = members.first else {
            return nil
        }
        return RingMember(name: name, host: own.address ?? own.host, port: own.port)
    }
}

extension RingMember {
    /// A member that is listed.
    init(_ member: ClusterMember) {
        let host = member.address.isEmpty ? member.host : member.address
        self.init(name: nil, host: host, port: Int(member.port))
    }

    /// A member that membership found.
    init(_ member: Member) {
        self.init(name: member.name, host: member.address ?? member.host, port: member.port, weight: member.weight)
    }
}
