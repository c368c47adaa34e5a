// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which of a ring's members a key belongs to. A lookup does no I/O.
package protocol KeyPlacement: Sendable {
    /// The place of the key's owner among the members that the placement was made of.
    func owner(of key: Span<UInt8>) -> Int
}

/// A member of a ring.
package struct RingMember: Sendable, Hashable {
    /// What it is called wherever it runs: keys stay with the name.
    package var name: String
    /// Host name or address that others reach it by.
    package var host: String
    /// TCP port.
    package var port: Int
    /// What it takes, relative to the others.
    package var weight: Double
    /// Whether the name was given, rather than made of host and port.
    package var isNamed: Bool

    /// A member. Without a name it is called by its host and port.
    package init(name: String?, host: String, port: Int, weight: Double = 1) {
        isNamed = name != nil
        self.name = name ?? "\(host):\(port)"
        self.host = host
        self.port = port
        self.weight = weight
    }

    /// `host:port`, as others connect to it.
    package var address: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// Who owns which key under one epoch. Never changes.
package struct OwnershipRing: Sendable {
    /// Its number: greater than those of all rings before it.
    package let epoch: UInt64
    /// Its members, in the order that the placement counts them in.
    package let members: [RingMember]
    /// The place of this node among them; -1 where it is none of them.
    let own: Int
    private let placement: (any KeyPlacement)?

    /// A ring. Without a placement nobody owns anything.
    init(epoch: UInt64, members: [RingMember], own: Int, placement: (any KeyPlacement)?) {
        self.epoch = epoch
        self.members = members
        self.own = placement == nil ? -1 : own
        self.placement = placement
    }

    /// The place of the key's owner; -1 where there is none.
    func owner(of key: Span<UInt8>) -> Int { placement?.owner(of: key) ?? -1 }

    /// Whether the key is this node's. Where the node is no member, no key is looked at.
    func owns(_ key: Span<UInt8>) -> Bool { own >= 0 && owner(of: key) == own }
}

/// What a node may do with a key: docs/contract.md, 3.
package enum KeyVerdict: Sendable, Equatable {
    /// The key is the node's.
    case own
    /// It is another's: the place among ``OwnershipView/members``.
    case foreign(Int)
    /// Nobody is known to own it.
    case unknown
}

/// What a node knows about who owns what, at one moment. Never changes; a node has a new one whenever that changes.
package final class OwnershipView: Sendable {
    /// The ring of the moment; nil before the first.
    private let newest: OwnershipRing?
    /// Earlier rings under which copies may have been made that nobody has looked through since: a copy may be shown
    /// only if its key was the node's under all of them.
    private let doubtful: [OwnershipRing]
    /// Earlier rings that some other node may still answer by: a key may be written only if it was the node's under all
    /// of them.
    private let closing: [OwnershipRing]
    /// Counts how often the node lost sight of the rings: epochs of different counts say nothing of each other.
    let era: Int

    /// Nothing is known: no key is anybody's.
    package convenience init() { self.init(newest: nil, doubtful: [], closing: [], era: 0) }

    init(newest: OwnershipRing?, doubtful: [OwnershipRing], closing: [OwnershipRing], era: Int) {
        self.newest = newest
        self.doubtful = doubtful
        self.closing = closing
        self.era = era
    }

    /// Whether both are of the same ring.
    package func hasSameRing(as other: OwnershipView) -> Bool { epoch == other.epoch && era == other.era }

    /// The epoch of the ring; 0 where there is none.
    package var epoch: UInt64 { newest?.epoch ?? 0 }

    /// The ring's members.
    package var members: [RingMember] { newest?.members ?? [] }

    /// Whether the node is one of them.
    package var isMember: Bool { (newest?.own ?? -1) >= 0 }

    /// Whether some copies may not be shown.
    package var isDoubtful: Bool { !doubtful.isEmpty }

    /// Whether some keys of the node may not be written yet.
    package var isClosing: Bool { !closing.isEmpty }

    /// Whose a key is. Allocates nothing.
    package func verdict(of key: Span<UInt8>) -> KeyVerdict {
        guard let newest else { return .unknown }
        let owner = newest.owner(of: key)
        return owner == newest.own && owner >= 0 ? .own : owner < 0 ? .unknown : .foreign(owner)
    }

    /// Whether a copy of a key of the node may be shown, as far as rings say: it cannot be from before the key was
    /// another's. Allocates nothing.
    package func isClean(_ key: Span<UInt8>) -> Bool {
        for ring in doubtful where !ring.owns(key) { return false }
        return true
    }

    /// Whether a key of the node may be written: nobody else can show a copy of it any more. Allocates nothing.
    package func isOpen(_ key: Span<UInt8>) -> Bool {
        for ring in closing where !ring.owns(key) { return false }
        return true
    }

    /// Whether a copy of a key is of no use: the key is not the node's, or was another's since it may have been made.
    package func isStray(_ key: Span<UInt8>) -> Bool { verdict(of: key) != .own || !isClean(key) }
}
