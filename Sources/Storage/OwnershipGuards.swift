// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What keeps a fleet's promise that nobody sees what is stale (docs/contract.md, 3).
package struct OwnershipGuards: NamedGuards {
    /// A bit for each guard.
    package let rawValue: UInt32

    /// The guards of these bits.
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// A node whose lease is over shows no copies.
    package static let leases = OwnershipGuards(rawValue: 1 << 0)
    /// A node serves its own keys only.
    package static let owners = OwnershipGuards(rawValue: 1 << 1)
    /// A write of a key that was another's waits until that one cannot show a copy any more.
    package static let opening = OwnershipGuards(rawValue: 1 << 2)
    /// The store commits nothing under an epoch that is not the newest.
    package static let fences = OwnershipGuards(rawValue: 1 << 3)
    /// A copy from before the key was another's is not shown when the key comes back.
    package static let regained = OwnershipGuards(rawValue: 1 << 4)
    /// A read that was under way when the ring changed is not cached.
    package static let fills = OwnershipGuards(rawValue: 1 << 5)
    /// A node says that it answers by a ring only once it does.
    package static let adoption = OwnershipGuards(rawValue: 1 << 6)
    /// A process that takes a name over waits until the one before it cannot show a copy any more.
    package static let predecessors = OwnershipGuards(rawValue: 1 << 7)
    /// No copy is shown while a write of its key is in flight: the key's next owner may have shown what that did.
    package static let writes = OwnershipGuards(rawValue: 1 << 8)

    /// Where the store does not look at epochs: that a write was done is answered only while the node holds the key.
    package static let answers = OwnershipGuards(rawValue: 1 << 9)
    /// Where the store does not look at epochs: nothing of a key that was another's is cached while that one may have
    /// writes answered.
    package static let gained = OwnershipGuards(rawValue: 1 << 10)

    /// The guards of a fleet whose store looks at epochs, each with its name.
    package static let named: [(name: String, guards: OwnershipGuards)] = [
        ("leases", .leases), ("owners", .owners), ("opening", .opening), ("fences", .fences), ("regained", .regained),
        ("fills", .fills), ("adoption", .adoption), ("predecessors", .predecessors), ("writes", .writes),
    ]
    /// Those without which, where the store does not look at epochs, somebody reads what is older than a write that was
    /// answered.
    package static let namedWithoutFence: [(name: String, guards: OwnershipGuards)] = [
        ("leases", .leases), ("owners", .owners), ("regained", .regained), ("adoption", .adoption), ("gained", .gained),
    ]

    /// All guards.
    package static let all = OwnershipGuards(named.map(\.guards) + [.answers, .gained])
}

/// The times and limits of a fleet's leases.
package struct OwnershipConfiguration: Sendable, Equatable {
    /// How long after it asked a node may show copies, in nanoseconds of the time since boot: 0.1 s to 60 s. The same
    /// in all nodes of a fleet.
    package var leaseNanoseconds: UInt64 = 1_000_000_000
    /// How far two nodes' clocks may be apart over one lease, in nanoseconds: a waiting node waits that much longer.
    package var driftNanoseconds: UInt64 { leaseNanoseconds / 20 }
    /// Between two exchanges with the authority, in nanoseconds.
    package var renewNanoseconds: UInt64 { leaseNanoseconds * 3 / 10 }
    /// Between two exchanges while something waits for other nodes, in nanoseconds.
    package var hurryNanoseconds: UInt64 { leaseNanoseconds / 40 }
    /// From when on a node that says nothing proposes no rings, in milliseconds.
    package var silenceMilliseconds: Int64 { Int64(leaseNanoseconds / 1_000_000) * 3 }
    /// How long a process must have said nothing until another one, elsewhere, may have its name, in milliseconds:
    /// until its lease is over.
    package var takeoverMilliseconds: Int64 { Int64((leaseNanoseconds + driftNanoseconds) / 1_000_000) }
    /// Rings that are kept; of more, the oldest count as ones under which nobody owned anything.
    package var ringsMax = 64
    /// Whether the store commits nothing under an old epoch: see ``SharedStore/refusesOldEpochs``.
    package var isFenced = true

    /// The times that a node has unless it is told otherwise.
    package init() {}
}
