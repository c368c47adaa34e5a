// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A write, and since when it waits.
package struct FencedWrite: Sendable {
    /// The write.
    package var submitted: SubmittedWrite
    /// Since when it waits, in monotonic nanoseconds.
    package var sinceNanoseconds: UInt64

    /// A write that waits since then.
    package init(_ submitted: SubmittedWrite, sinceNanoseconds: UInt64) {
        self.submitted = submitted
        self.sinceNanoseconds = sinceNanoseconds
    }
}

/// The writes of one writer that wait for a permit, in order: pure. A key's writes never overtake each other.
package struct FencedWrites: Sendable {
    /// Those that wait, first those that came first.
    package private(set) var held: [FencedWrite] = []
    private let guards: OwnershipGuards
    /// Whether writes wait for a lease: where the store would commit them without one.
    private let needsLease: Bool

    /// Nothing waits. `guards` is for tests.
    package init(needsLease: Bool = false, guards: OwnershipGuards = .all) {
        self.needsLease = needsLease
        self.guards = guards
    }

    /// What may be done now.
    package struct Admission: Sendable {
        /// To be committed, in order, under the permit's epoch.
        package var ready: [FencedWrite] = []
        /// Writes of keys that are not the node's, each with what is to be answered.
        package var refused: [(token: UInt64, outcome: WriteOutcome)] = []
    }

    /// Sorts what waits, and then `fresh`, by what the permit says.
    package mutating func admit(_ fresh: [FencedWrite], _ permit: WritePermit) -> Admission {
        var admission = Admission()
        var waiting: [FencedWrite] = []
        var waitingKeys: Set<[UInt8]> = []
        for element in held + fresh {
            let key = element.submitted.write.key
            switch guards.contains(.owners) ? permit.view.verdict(of: key.span) : .own {
            case .foreign(let place):
                let failure = StorageFailure.moved(epoch: permit.epoch, owner: permit.view.members[place].address)
                admission.refused.append((element.submitted.token, .failed(failure)))
            case .own where mayPass(key, permit) && !waitingKeys.contains(key): admission.ready.append(element)
            case .own, .unknown:
                waiting.append(element)
                waitingKeys.insert(key)
            }
        }
        held = waiting
        return admission
    }

    private func mayPass(_ key: [UInt8], _ permit: WritePermit) -> Bool {
        (permit.view.isOpen(key.span) || !guards.contains(.opening))
            && (!needsLease || permit.isLeased || !guards.contains(.leases))
    }

    /// Puts writes back that were refused with their permit: before all others, as they came before them.
    package mutating func putBack(_ elements: [FencedWrite]) { held = elements + held }

    /// Takes out those that have waited since `oldest` or longer.
    package mutating func takeOverdue(since oldest: UInt64) -> [SubmittedWrite] {
        guard held.contains(where: { $0.sinceNanoseconds <= oldest }) else { return [] }
        let overdue = held.filter { $0.sinceNanoseconds <= oldest }.map(\.submitted)
        held.removeAll { $0.sinceNanoseconds <= oldest }
        return overdue
    }
}
