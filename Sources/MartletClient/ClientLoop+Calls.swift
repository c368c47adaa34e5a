// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Reactor
internal import Synchronization
internal import Telemetry

/// From an attempt to its outcome.
extension ClientLoop {
    /// Begins an attempt: sends it, lines it up, or refuses it.
    func submit(_ submission: CallSubmission) {
        func refuse(_ error: CacheError) {
            submission.waiter.resume(returning: .failure(error))
        }
        let name = submission.node.name
        guard !isStopping else { return refuse(.shutDown) }
        guard now < submission.deadline else {
            shared.count(.timeouts)
            return refuse(.deadlineExceeded(server: name, wasSent: false))
        }
        let node = place(of: submission.node)
        let admission = nodes[node].breaker.admit(nowNanoseconds: now)
        guard admission != .refuse else { return refuse(.circuitOpen(server: name)) }
        let mustWait = nodes[node].inFlight >= nodes[node].limit.value
        guard !mustWait || nodes[node].waiting < settings.waitingPerNode, let call = calls.take() else {
            if admission == .probe { nodes[node].breaker.probeAbandoned() }
            return refuse(.overloaded(server: name))
        }
        calls[call].isLive = true
        calls[call].id = submission.id
        calls[call].request = submission.request
        calls[call].node = node
        calls[call].deadline = submission.deadline
        calls[call].started = now
        calls[call].hedges = submission.hedges
        calls[call].hedgeAt = 0
        calls[call].isProbe = admission == .probe
        calls[call].leg = -1
        calls[call].hedgeLeg = -1
        calls[call].waiter = submission.waiter
        calls[call].isWaiting = mustWait
        mind(submission.deadline)
        if mustWait {
            nodes[node].waiting += 1
            nodes[node].line.append(call, submission.id)
        } else {
            send(call)
        }
    }

    /// Gives a call's request to a connection.
    private func send(_ call: Int) {
        let node = calls[call].node
        guard let link = chooseLink(node, besides: -1), let leg = legs.take() else {
            // Nothing is tried while all its connections rest after a failure.
            return finish(call, .failure(.unavailable(server: nodes[node].name, reason: "it cannot be connected to")))
        }
        calls[call].leg = Int32(truncatingIfNeeded: leg)
        put(call, leg, link)
        let estimate = nodes[node].readLatency.nanoseconds
        if calls[call].hedges, estimate > 0 {
            calls[call].hedgeAt = now &+ UInt64(estimate)
            mind(calls[call].hedgeAt)
        }
    }

    /// Sends a call once more, on another connection, if that may be.
    private func hedge(_ call: Int) {
        calls[call].hedgeAt = 0
        let node = calls[call].node
        guard calls[call].leg >= 0, calls[call].hedgeLeg < 0, nodes[node].inFlight < nodes[node].limit.value else {
            return
        }
        let first = Int(legs[Int(calls[call].leg)].link)
        guard let link = chooseLink(node, besides: first),
            shared.hedgeBudget.withLock({ $0.withdraw(nowNanoseconds: now) }), let leg = legs.take()
        else { return }
        shared.count(.hedges)
        calls[call].hedgeLeg = Int32(truncatingIfNeeded: leg)
        put(call, leg, link)
    }

    private func put(_ call: Int, _ leg: Int, _ link: Int) {
        links[link].sequence += 1
        legs[leg].operation = calls[call].request.operation
        legs[leg].call = Int32(truncatingIfNeeded: call)
        legs[leg].link = Int32(truncatingIfNeeded: link)
        legs[leg].next = -1
        legs[leg].sequence = links[link].sequence
        let last = Int(links[link].last)
        if last >= 0 { legs[last].next = Int32(truncatingIfNeeded: leg) }
        if links[link].first < 0 { links[link].first = Int32(truncatingIfNeeded: leg) }
        links[link].last = Int32(truncatingIfNeeded: leg)
        links[link].machine.asked(nowNanoseconds: now)
        if settings.isClassic {
            links[link].pending.append(classic: calls[call].request)
        } else {
            links[link].pending.append(meta: calls[call].request)
        }
        let node = calls[call].node
        nodes[node].inFlight += 1
        nodes[node].meter?.inFlight.store(nodes[node].inFlight, ordering: .relaxed)
        markDirty(link)
    }

    /// A reply came for a leg, the first of its connection.
    func take(_ reply: CacheReply, _ link: Int, _ leg: Int) {
        let node = links[link].node
        links[link].first = legs[leg].next
        if links[link].first < 0 { links[link].last = -1 }
        links[link].machine.answered()
        let call = Int(legs[leg].call)
        let isHedge = call >= 0 && Int(calls[call].hedgeLeg) == leg
        legs.give(leg)
        nodes[node].inFlight -= 1
        nodes[node].meter?.inFlight.store(nodes[node].inFlight, ordering: .relaxed)
        if nodes[node].waiting > 0 { markReady(node) }
        guard call >= 0 else { return }
        // Detached: what is left of the call is the other leg.
        if isHedge { calls[call].hedgeLeg = -1 } else { calls[call].leg = -1 }
        if isHedge { shared.count(.hedgeWins) }
        let took = now > calls[call].started ? now - calls[call].started : 0
        shared.latencies[reactor.index].histogram.record(nanoseconds: took)
        if calls[call].request.isRead { nodes[node].readLatency.add(took) }
        if case .refused(let text) = reply.kind, CacheError.isBusy(text) {
            nodes[node].limit.overloaded(nowNanoseconds: now)
        } else {
            nodes[node].limit.succeeded(inFlight: nodes[node].inFlight + 1)
        }
        record(call, succeeded: true)
        finish(call, .reply(reply))
    }

    /// Tells a server's circuit what came of a call.
    private func record(_ call: Int, succeeded: Bool) {
        let node = calls[call].node
        let isProbe = calls[call].isProbe
        calls[call].isProbe = false
        let draw = succeeded ? 0 : chance
        if !succeeded {
            shared.count(.failures)
            nodes[node].meter?.failures.add(1, ordering: .relaxed)
        }
        guard
            nodes[node].breaker.record(
                succeeded: succeeded, isProbe: isProbe, nowNanoseconds: now, random: draw)
        else { return }
        showCircuit(node)
    }

    private func showCircuit(_ node: Int) {
        var isOpen = false
        if case .open = nodes[node].breaker.state { isOpen = true }
        if isOpen { shared.count(.circuitOpenings) }
        nodes[node].meter?.isOpen.store(isOpen, ordering: .relaxed)
    }

    /// Ends a call: whoever waits for it hears of it, and its legs are on their own.
    func finish(_ call: Int, _ outcome: CallOutcome) {
        let node = calls[call].node
        if calls[call].isProbe { nodes[node].breaker.probeAbandoned() }
        if calls[call].isWaiting { nodes[node].waiting -= 1 }
        for leg in [calls[call].leg, calls[call].hedgeLeg] where leg >= 0 { legs[Int(leg)].call = -1 }
        let waiter = calls[call].waiter
        calls[call].waiter = nil
        calls[call].isLive = false
        calls[call].isProbe = false
        calls[call].isWaiting = false
        // The value's memory is the caller's again.
        calls[call].request.value = []
        nodes[node].meter?.requests.add(1, ordering: .relaxed)
        calls.give(call)
        waiter?.resume(returning: outcome)
    }

    // MARK: Lines

    /// A server's line may go on.
    func markReady(_ node: Int) {
        guard !nodes[node].isReady else { return }
        nodes[node].isReady = true
        readyNodes.append(node)
    }

    /// Sends what waited for its turn, where there is room now.
    func serveReady() {
        while let node = readyNodes.popLast() {
            nodes[node].isReady = false
            while nodes[node].inFlight < nodes[node].limit.value, let (call, id) = nodes[node].line.popFirst() {
                // Its time may have been over meanwhile, and its place another's.
                guard calls[call].isLive, calls[call].id == id else { continue }
                nodes[node].waiting -= 1
                calls[call].isWaiting = false
                send(call)
            }
        }
    }

    // MARK: Time

    /// Gives up what is overdue, sends once more what takes long, and finds out when something is due next.
    func expire(_ loop: inout ReactorLoop) {
        nextDue = .max
        mind(shared.flights.expire(nowNanoseconds: now))
        if calls.takenCount > 0 {
            for call in 0..<calls.count where calls[call].isLive {
                if calls[call].deadline <= now {
                    timeOut(call)
                    continue
                }
                if calls[call].hedgeAt != 0, calls[call].hedgeAt <= now { hedge(call) }
                mind(calls[call].hedgeAt == 0 ? calls[call].deadline : min(calls[call].hedgeAt, calls[call].deadline))
            }
        }
        for link in 0..<links.count {
            guard let due = links[link].machine.dueNanoseconds else { continue }
            if due <= now {
                // Silence is a connection that is lost, which is tried again, and no reply that is wrong.
                loop.close(ConnectionID(rawValue: links[link].connection))
            } else {
                mind(due)
            }
        }
    }

    private func timeOut(_ call: Int) {
        let node = calls[call].node
        var wasSent = false
        for leg in [calls[call].leg, calls[call].hedgeLeg] where leg >= 0 {
            let link = Int(legs[Int(leg)].link)
            wasSent = wasSent || legs[Int(leg)].sequence <= links[link].flushed
        }
        shared.count(.timeouts)
        nodes[node].limit.overloaded(nowNanoseconds: now)
        record(call, succeeded: false)
        finish(call, .failure(.deadlineExceeded(server: nodes[node].name, wasSent: wasSent)))
    }
}

extension CacheError {
    /// Whether an error's text says that the server has too much to do.
    static func isBusy(_ text: String) -> Bool { text.contains("busy") || text.contains("overload") }
}
