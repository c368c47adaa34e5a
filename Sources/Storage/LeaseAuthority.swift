// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a node says to the authority, and asks it, in one exchange.
package struct LeaseRequest: Sendable, Equatable {
    /// Who asks.
    package var name: String
    /// Which process of that name holds it. Its upper half tells where the process listens: two that are there one
    /// after the other have it alike, two that live at once do not.
    package var token: UInt64
    /// Whether the process takes the name over, from whoever held it.
    package var joins: Bool
    /// A process that joins takes the name only from one that has said nothing for so many milliseconds; 0: from any.
    package var silenceMilliseconds: Int64
    /// Whether it takes the name at once from a process whose token has the same upper half: from the one that it was
    /// started in the place of.
    package var isRestart = false
    /// The epoch that the node answers by; 0 for none. Whoever hears of it may take that the node shows no copy any
    /// more of a key that is not its own under that epoch.
    package var adopted: UInt64
    /// A ring that is to follow the one of `adopted`, if that is still the newest; nil when there is nothing to change.
    package var proposal: [RingMember]?
    /// Tells the settings of the node's that all nodes must have alike from any others: who does not have what the
    /// others have gets no lease.
    package var settings: UInt64 = 0

    /// Whether the process takes the name from one with that token that said something `ageMilliseconds` ago; 0 for one
    /// that was given back.
    package func takesName(from holder: UInt64, ageMilliseconds age: Int64) -> Bool {
        holder == 0 || holder == token || age >= silenceMilliseconds || (isRestart && holder >> 32 == token >> 32)
    }

    /// A request.
    package init(
        name: String, token: UInt64, joins: Bool, silenceMilliseconds: Int64 = 0, adopted: UInt64,
        proposal: [RingMember]? = nil
    ) {
        self.name = name
        self.token = token
        self.joins = joins
        self.silenceMilliseconds = silenceMilliseconds
        self.adopted = adopted
        self.proposal = proposal
    }
}

/// What the authority answers.
package struct LeaseReply: Sendable, Equatable {
    /// Whether the process still holds its name. If not, nothing else counts.
    package var isHolder: Bool
    /// Of a process that joined: whether the name was taken, and never given back. By the process itself, too: then an
    /// earlier answer did not reach it, and nobody knows any more whether another one had the name before.
    package var hadPredecessor: Bool
    /// The rings from the one that the node said it adopted on, in order; those from the oldest that is kept on, where
    /// that one is not kept any more.
    package var rings: [(epoch: UInt64, members: [RingMember])]
    /// What each node said that it adopted, and how long ago it said anything, in milliseconds of the authority's
    /// clock.
    package var nodes: [(name: String, adopted: UInt64, ageMilliseconds: Int64)]

    /// An answer.
    package init(
        isHolder: Bool, hadPredecessor: Bool = false, rings: [(epoch: UInt64, members: [RingMember])] = [],
        nodes: [(name: String, adopted: UInt64, ageMilliseconds: Int64)] = []
    ) {
        self.isHolder = isHolder
        self.hadPredecessor = hadPredecessor
        self.rings = rings
        self.nodes = nodes
    }

    /// Whether both say the same.
    package static func == (left: LeaseReply, right: LeaseReply) -> Bool {
        left.isHolder == right.isHolder && left.hadPredecessor == right.hadPredecessor
            && left.rings.elementsEqual(right.rings) { $0.epoch == $1.epoch && $0.members == $1.members }
            && left.nodes.elementsEqual(right.nodes) { $0 == $1 }
    }
}

/// Where the nodes of a fleet agree on who owns what.
///
/// Exchanges and changes of the ring have one order. Where the store is the authority, too, a change of the ring comes
/// after every write that was committed under the ring before, and before every one that is committed after it: the
/// store refuses those that carry an older epoch, or a token that does not hold its name any more. Of others see
/// ``SharedStore/refusesOldEpochs``.
package protocol LeaseAuthority: AnyObject, Sendable {
    /// One exchange. Blocks for as long as the answer may take to be of use. Of one thread at a time.
    func exchange(_ request: LeaseRequest) throws(StorageFailure) -> LeaseReply
    /// The process shows no copies any more: its name is given back when the store stops, behind the last write.
    func releaseAtEnd(name: String, token: UInt64)
}

/// A store that several nodes share.
package protocol SharedStore: StorageBackend {
    /// Where its nodes agree on who owns what.
    var authority: any LeaseAuthority { get }
    /// Whether nothing is committed under an epoch that is not the newest. Where that is not so, the authority knows
    /// nothing of commits: the store answers that a write was done only while the node holds a lease and nobody else
    /// can show a copy of the key, and says ``StorageFailure/Kind/unknownOutcome`` otherwise; and a node caches nothing
    /// of a key that was another's until that one can neither show a copy nor have a write answered.
    var refusesOldEpochs: Bool { get }
    /// Has every write go by `fence`. Before ``StorageBackend/start(_:)``.
    func setFence(_ fence: any WriteFence)
}

/// Says which writes a store may take now, and under which epoch. Safe to use from any thread.
package protocol WriteFence: AnyObject, Sendable {
    /// What holds now. Cheap.
    var permit: WritePermit { get }
    /// The store refused the permit of `epoch`: asks the authority, and returns when there is another one, or the time
    /// is over. Blocks.
    func renew(after epoch: UInt64, timeoutNanoseconds: UInt64)
}

/// What a node may write.
package struct WritePermit: Sendable {
    /// Who writes, and which process of that name.
    package var name: String
    /// The process's token: see ``LeaseRequest``.
    package var token: UInt64
    /// Who owns what.
    package var view: OwnershipView
    /// Whether the node's lease is not over.
    package var isLeased: Bool

    /// A permit.
    package init(name: String, token: UInt64, view: OwnershipView, isLeased: Bool = true) {
        self.name = name
        self.token = token
        self.view = view
        self.isLeased = isLeased
    }

    /// Whether a key is the node's, and nobody else can show a copy of it or have a write of it answered. Allocates
    /// nothing.
    package func holds(_ key: Span<UInt8>) -> Bool { isLeased && view.verdict(of: key) == .own && view.isOpen(key) }

    /// The epoch that writes carry.
    package var epoch: UInt64 { view.epoch }
}

extension StorageFailure {
    /// What is answered for a key that belongs to a node at `owner`, nil where nobody knows: nothing was done, and it
    /// is to be asked there.
    package static func moved(epoch: UInt64, owner: String?) -> StorageFailure {
        guard let owner else { return StorageFailure(.notSent, "nobody is known to own the key yet") }
        return StorageFailure(.notOwner, "302 try again \(epoch) \(owner)")
    }
}
