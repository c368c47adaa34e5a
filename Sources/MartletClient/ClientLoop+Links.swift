// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Reactor
internal import Synchronization

/// Servers and the connections to them.
extension ClientLoop {
    /// A server's place in the table; it gets one when it has none.
    func place(of node: ServerNode) -> Int {
        while slotOfNode.count <= node.index { slotOfNode.append(-1) }
        let known = slotOfNode[node.index]
        if known >= 0 { return Int(known) }
        guard let slot = nodes.take() else { preconditionFailure("more servers than a client may have") }
        nodes[slot] = NodeState(settings)
        nodes[slot].node = node
        slotOfNode[node.index] = Int32(truncatingIfNeeded: slot)
        return slot
    }

    /// The connection of a server that a request goes to: the first that has few under way, a new one where all have
    /// many, else the one that has the fewest. nil when nothing may be tried.
    func chooseLink(_ node: Int, besides avoided: Int) -> Int? {
        var best: Int?
        for link in nodes[node].links where link != avoided && links[link].machine.accepts(nowNanoseconds: now) {
            let owed = links[link].machine.owed
            if owed < settings.pipelineDepth { return link }
            if best.map({ owed < links[$0].machine.owed }) ?? true { best = link }
        }
        guard nodes[node].links.count < settings.linksPerNode, let link = links.take() else { return best }
        links[link] = Link(settings.connection)
        links[link].node = node
        nodes[node].links.append(link)
        return link
    }

    func markDirty(_ link: Int) {
        guard !links[link].isDirty else { return }
        links[link].isDirty = true
        dirtyLinks.append(link)
    }

    /// Sends what waits on a connection, and makes it where there is none.
    func flush(_ link: Int, _ loop: inout ReactorLoop) {
        links[link].isDirty = false
        guard links[link].pending.count > 0 else { return }
        switch links[link].machine.wanted(nowNanoseconds: now) {
        case .connect: return connect(link, &loop)
        case .refuse: return lost(link)
        case .nothing: break
        }
        guard links[link].machine.state == .open else { return }
        loop.withConnection(ConnectionID(rawValue: links[link].connection)) { _, output in
            links[link].pending.withSpan { output.append($0) }
        }
        links[link].pending.removeAll()
        links[link].pending.shrink(to: 64 << 10)
        links[link].flushed = links[link].sequence
        if let due = links[link].machine.dueNanoseconds { mind(due) }
    }

    private func connect(_ link: Int, _ loop: inout ReactorLoop) {
        let node = links[link].node
        guard let server = nodes[node].node,
            let address = server.address(attempt: links[link].machine.failures),
            let id = loop.connect(to: address, tag: UInt64(link), tls: server.tls)
        else { return lost(link) }
        links[link].connection = id.rawValue
        if let due = links[link].machine.dueNanoseconds { mind(due) }
    }

    /// A connection is gone, or did not come to stand: everything that was given to it has failed.
    func lost(_ link: Int) {
        let node = links[link].node
        let name = nodes[node].name
        let wasOpen = links[link].machine.state == .open
        let (flushed, nonsense) = (links[link].flushed, links[link].nonsense)
        let owed = links[link].machine.owed
        links[link].machine.lost(nowNanoseconds: now, random: chance)
        links[link].connection = .max
        links[link].nonsense = nil
        links[link].pending.removeAll()
        var next = links[link].first
        (links[link].first, links[link].last) = (-1, -1)
        if wasOpen { shared.count(.connectionsLost) }
        // One connection is one failure, however many calls it takes with it; none if it owed nothing.
        if owed > 0 { noteLoss(node) }
        if !wasOpen, let server = nodes[node].node { directory.lookUpAgain(server) }
        while next >= 0 {
            let leg = Int(next)
            let (call, sequence) = (Int(legs[leg].call), legs[leg].sequence)
            next = legs[leg].next
            legs.give(leg)
            nodes[node].inFlight -= 1
            guard call >= 0 else { continue }
            if Int(calls[call].leg) == leg { calls[call].leg = -1 } else { calls[call].hedgeLeg = -1 }
            // The other leg may still bring it.
            guard calls[call].leg < 0, calls[call].hedgeLeg < 0 else { continue }
            let error: CacheError =
                sequence > flushed || !wasOpen
                ? .unavailable(server: name, reason: wasOpen ? "the connection broke" : "it cannot be connected to")
                : nonsense.map { .nonsense(server: name, what: $0) } ?? .connectionLost(server: name)
            if calls[call].isProbe { failProbe(call) }
            finish(call, .failure(isStopping ? .shutDown : error))
        }
        if nodes[node].waiting > 0 { markReady(node) }
    }

    private func noteLoss(_ node: Int) {
        nodes[node].meter?.failures.add(1, ordering: .relaxed)
        shared.count(.failures)
        guard case .closed = nodes[node].breaker.state else { return }
        if nodes[node].breaker.record(succeeded: false, isProbe: false, nowNanoseconds: now, random: chance) {
            shared.count(.circuitOpenings)
            nodes[node].meter?.isOpen.store(true, ordering: .relaxed)
        }
    }

    private func failProbe(_ call: Int) {
        let node = calls[call].node
        calls[call].isProbe = false
        _ = nodes[node].breaker.record(succeeded: false, isProbe: true, nowNanoseconds: now, random: chance)
        nodes[node].meter?.isOpen.store(true, ordering: .relaxed)
    }

    /// A server is no longer one of ours: nobody sends to it any more, and what it owes is waited for until it is due.
    func retire(_ node: ServerNode) {
        guard node.index < slotOfNode.count, slotOfNode[node.index] >= 0 else { return }
        nodes[Int(slotOfNode[node.index])].isLeaving = true
    }

    func tick(_ loop: inout ReactorLoop, now: UInt64) {
        for slot in 0..<nodes.count {
            guard let node = nodes[slot].node else { continue }
            guard nodes[slot].isLeaving, nodes[slot].inFlight == 0, nodes[slot].waiting == 0 else { continue }
            for link in nodes[slot].links {
                if links[link].connection != .max { loop.close(ConnectionID(rawValue: links[link].connection)) }
                links.give(link)
            }
            nodes[slot].links = []
            nodes[slot].node = nil
            nodes[slot].isLeaving = false
            slotOfNode[node.index] = -1
            nodes.give(slot)
        }
    }

    /// Everything fails: the client is shut down.
    func failEverything(_ loop: inout ReactorLoop) {
        for call in 0..<calls.count where calls[call].isLive { finish(call, .failure(.shutDown)) }
        for link in 0..<links.count where links[link].connection != .max {
            loop.close(ConnectionID(rawValue: links[link].connection))
        }
    }
}
