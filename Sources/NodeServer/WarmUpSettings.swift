// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Memory
package import Routing
internal import Settings
internal import Storage

/// How a node that joins a fleet of caches fetches its share of the keys before it is read from.
package struct WarmUpSettings: Sendable, Equatable {
    /// How routers and clients spread keys over the members. nil where nothing is fetched.
    package var hash: HashName?
    /// What of a key is hashed.
    package var part = HashedPart.whole
    /// Keys a second, at most.
    package var rate = 20_000
    /// How long routers are given to learn of the node before it begins, in milliseconds.
    package var waitMilliseconds = 3_000
    /// When the node is read from, whatever it has, in seconds.
    package var timeoutSeconds = 600

    package init() {}

    /// Settings of it, for the table.
    static let settings: [Setting] = [
        Setting(
            "warmUp.hash", .enumeration(HashName.allCases.map(\.rawValue)),
            "How keys are spread over the `members`, as the routers' pools do: the node fetches its share from the "
                + "others before it is read from. Absent, it begins empty."),
        Setting("warmUp.tag", .text, "Two characters, such as {}: only what is between them is hashed."),
        Setting(
            "warmUp.rate", .integer(1...10_000_000), default: "20000", "Keys that are fetched a second, at most."),
        Setting(
            "warmUp.wait", .duration(0...600_000_000_000), default: "3s",
            "How long routers are given to learn of the node before it begins to fetch."),
        Setting(
            "warmUp.timeout", .duration(1_000_000_000...86_400_000_000_000), default: "10m",
            "When the node is read from, whatever it has fetched."),
    ]

    /// Reads the settings; adds what is wrong with them.
    init(
        _ values: SettingsValues, _ fleet: FleetSettings, backend: StorageSettings.Backend, hasMembers: Bool,
        problems: inout [String]
    ) {
        hash = values.text("warmUp.hash").flatMap(HashName.init)
        rate = values.integer("warmUp.rate")
        waitMilliseconds = Int(values.duration("warmUp.wait") / 1_000_000)
        timeoutSeconds = Int(values.duration("warmUp.timeout") / 1_000_000_000)
        if let text = values.text("warmUp.tag") {
            let bytes = Array(text.utf8)
            if bytes.count == 2 {
                part = .tag(open: bytes[0], close: bytes[1])
            } else {
                problems.append("warmUp.tag: \"\(text)\" is not valid; expected two characters, such as {}")
            }
        }
        guard hash != nil else { return }
        if backend != .none {
            problems.append("warmUp.hash: storage.backend is \(backend.rawValue); only caches fetch from each other")
        }
        if !hasMembers { problems.append("members: missing; warmUp.hash needs to know the nodes") }
        if fleet.ownMember == nil {
            problems.append("register.address: missing; warmUp.hash needs the node's host:port, as others reach it")
        }
        // Who is told of members by these is not told that one is warming up, and reads from it at once.
        if let source = fleet.source.first, !source.hasPrefix("etcd"), !source.hasPrefix("file:") {
            problems.append(
                "warmUp.hash: members: \(source) cannot say that a node warms up; expected etcd://…, file:… or a list")
        }
    }

    /// How long before it was read a key may have been deleted at the node and yet be there elsewhere: the longest that
    /// a write takes through a router, by far, and for as long as others show what they have not been told of, which
    /// is 0 where no stream is followed.
    static func graceNanoseconds(lagNanoseconds: UInt64) -> UInt64 { max(5_000_000_000, lagNanoseconds) }

    /// A node that follows a stream fetches nothing before its grace is over.
    func check(_ regions: RegionSettings, _ problems: inout [String]) {
        guard hash != nil, regions.isOn else { return }
        let grace = Self.graceNanoseconds(lagNanoseconds: regions.lagBoundNanoseconds)
        guard UInt64(timeoutSeconds) * 1_000_000_000 <= grace else { return }
        problems.append(
            "warmUp.timeout: \(timeoutSeconds)s; nothing would be fetched before it, as a node that follows a stream "
                + "begins \(spell(duration: grace)) behind joining it (stream.lagBound, 5s at least): expected more "
                + "than that")
    }

    /// Spreads keys over members; nil where the hash cannot.
    func place(_ members: [RingMember]) -> ServerSelector? {
        guard let hash else { return nil }
        let servers = members.map { member in
            Server(
                host: member.host, port: member.port, weight: member.weight,
                alias: member.isNamed ? member.name : nil)
        }
        return try? ServerSelector(servers, scheme: hash.scheme, part: part)
    }
}
