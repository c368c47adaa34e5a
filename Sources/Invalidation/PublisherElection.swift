// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which of the nodes that have the same stream puts it into a broker: one, as long as they hear of each other. Pure.
///
/// Two who publish at once do no harm: each goes on behind what is in the broker, so records come twice and none is
/// left out. So there is no lock to hold and none to lose: whoever has not heard of another for three heartbeats
/// begins, and of two who hear of each other the one with the lesser name goes on.
package struct PublisherElection: Sendable {
    private let name: String
    private let isAlone: Bool
    private let silenceNanoseconds: UInt64
    private let intervalNanoseconds: UInt64
    /// When another was last heard of; the start counts as that.
    private var heardNanoseconds: UInt64
    /// Whether this one publishes.
    package private(set) var leads = false

    /// A node that has heard of nobody yet; `isAlone` where no other node has its stream.
    package init(name: String, isAlone: Bool, intervalNanoseconds: UInt64, now: UInt64) {
        self.name = name
        self.isAlone = isAlone
        self.intervalNanoseconds = intervalNanoseconds
        // Nodes that start together do not all begin together.
        let share = name.utf8.reduce(UInt64(5381)) { ($0 &* 33) ^ UInt64($1) } % 64
        silenceNanoseconds = intervalNanoseconds * 3 + intervalNanoseconds * share / 64
        heardNanoseconds = now
        leads = isAlone
    }

    /// A heartbeat of the publisher `other` was met.
    package mutating func heard(_ other: String, at now: UInt64) {
        guard !isAlone, other != name else { return }
        heardNanoseconds = max(heardNanoseconds, now)
        if leads, other < name { leads = false }
    }

    /// Whether this node publishes at `now`. To be called again and again.
    package mutating func decide(at now: UInt64) -> Bool {
        if !leads, now > heardNanoseconds, now - heardNanoseconds >= silenceNanoseconds { leads = true }
        return leads
    }
}
