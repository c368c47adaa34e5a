// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Routing

/// A server of a fleet, as whoever knows the fleet describes it.
package struct Member: Sendable, Hashable {
    /// Host name or address.
    package let host: String
    /// Its address, where it is known beside the host name.
    package let address: String?
    /// TCP port.
    package let port: Int
    /// What the server takes, relative to the others.
    package let weight: Double
    /// What it is called wherever it runs: keys stay with the name. nil for host and port.
    package let name: String?
    /// The zone it runs in; nil when nobody says.
    package let zone: String?
    /// Whether it is fetching its share of the keys from the others: it is not to be read from yet.
    package var isWarming: Bool

    /// A member.
    package init(
        host: String, address: String? = nil, port: Int, weight: Double = 1, name: String? = nil, zone: String? = nil,
        isWarming: Bool = false
    ) {
        self.isWarming = isWarming
        self.host = host
        self.address = address
        self.port = port
        self.weight = weight
        self.name = name
        self.zone = zone
    }

    /// The member as hashing and connecting see it.
    package var server: Server { Server(host: address ?? host, port: port, weight: weight, alias: name) }

    /// What members are told apart by.
    var identity: String { name ?? "\(host):\(port)" }
}

/// Who is in the fleet.
package struct MemberSet: Sendable, Equatable {
    /// The members, each once, in the order of what they are told apart by.
    package let members: [Member]
    /// Grows by at least one whenever the members change, and never shrinks.
    package let epoch: UInt64

    /// A set of an epoch.
    package init(_ members: [Member], epoch: UInt64) {
        var seen: Set<String> = []
        let ordered = members.sorted { ($0.identity, $0.host, $0.port) < ($1.identity, $1.host, $1.port) }
        self.members = ordered.filter { seen.insert($0.identity).inserted }
        self.epoch = epoch
    }
}
