// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Reactor
internal import Routing
internal import Telemetry

/// Pools whose nodes share a store: a node that does not own a key says who does, and is believed.
extension RouterHandler {
    /// Whether servers of a pool say who owns a key that is not theirs.
    @inline(__always)
    func followsOwners(pool: Int) -> Bool { planFollowsOwners && plan.routes.pools[pool].followsOwners }

    /// Notes which lanes lead to such servers.
    func followOwners(_ fresh: RouterPlan) {
        let destinations = Set(fresh.routes.pools.filter(\.followsOwners).flatMap(\.destinations))
        planFollowsOwners = !destinations.isEmpty
        for (destination, lane) in laneOfDestination.enumerated() {
            lanes[lane].followsOwners = destinations.contains(destination)
        }
    }

    /// Tells a server, before anything else, that this connection understands who owns a key.
    func askForOwners(_ lane: Int) {
        seal(lane)
        guard let index = calls.take() else { return }
        let number = Int32(truncatingIfNeeded: index)
        calls[index] = Call(deadline: now &+ lanes[lane].requestNanoseconds, started: now, shape: .line)
        calls[index].hides = .everything
        calls[index].next = lanes[lane].first
        lanes[lane].first = number
        if lanes[lane].last < 0 { lanes[lane].last = number }
        lanes[lane].outstanding &+= 1
        var output = OutputBuffer(capacity: lanes[lane].pending.count + 64)
        output.append("config get owners\r\n")
        output.append(lanes[lane].pending, from: 0, externalStart: 0)
        lanes[lane].pending = output
    }

    /// Where a reply says that another server owns the key, asks that one: at once, and later and later where nodes do
    /// not agree yet. False where it says nothing of the kind, or time is over.
    func followOwner(routed index: Int, _ token: Int) -> Bool {
        let routed = routedRequests[index]
        let reply = routed.parts[token].bytes
        guard routed.parts[token].reply.result == .tryAgain, let sub = routed.parts[token].command,
            let context = routed.context, let owner = Self.owner(in: reply.span)
        else { return false }
        let limit = UInt64(context.plan.routes.destinations[sub.destination].requestTimeoutMilliseconds) * 1_000_000
        guard now &- routed.started < limit else { return false }
        meter.counters.add(.moved)
        routed.parts[token].hops += 1
        routed.parts[token].owner = owner
        let hops = UInt64(routed.parts[token].hops)
        guard hops > 1 || lane(of: owner) == nil else {
            sendToOwner(routed: index, token)
            return true
        }
        let due = now &+ min(hops, 10) * 5_000_000
        timers.add(RouteTimer(due: due, routed: index, generation: routed.generation, token: -1 - token))
        mind(due)
        return true
    }

    /// Sends a part of a request again, to whoever was said to own its key; to whom it was sent first where the plan
    /// has no such server yet.
    func sendToOwner(routed index: Int, _ token: Int) {
        let routed = routedRequests[index]
        guard let context = routed.context, token < routed.parts.count, let sub = routed.parts[token].command else {
            return
        }
        routed.parts[token].bytes = []
        routed.parts[token].value = 0..<0
        let text = routed.parts[token].owner.flatMap { lane(of: $0) } ?? context.lanes[sub.destination]
        sendPart(index, sub, to: text)
        settleRouted()
    }

    private func lane(of owner: String) -> Int? {
        plan.backends.firstIndex { $0.name == owner }.map { laneOfDestination[$0] }
    }

    /// The last word of `SERVER_ERROR 302 try again EPOCH OWNER`.
    private static func owner(in reply: Span<UInt8>) -> String? {
        guard reply.holds("SERVER_ERROR 302 try again ", at: 0) else { return nil }
        let line = String(decoding: [UInt8](copying: reply), as: UTF8.self)
        let words = line.split { $0 == " " || $0.isNewline }
        return words.count == 6 ? String(words[5]) : nil
    }
}
