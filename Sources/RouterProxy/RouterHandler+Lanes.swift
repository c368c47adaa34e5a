// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Overload
internal import Platform
internal import Reactor
internal import Routing
internal import Synchronization
internal import Telemetry
internal import Tracing

/// Connections to servers: made when they are first needed, lost, made again, and given up.
extension RouterHandler {
    /// Takes a plan over: lanes of servers that stay are kept with what is in flight.
    func adopt(_ fresh: RouterPlan) {
        var known: [ObjectIdentifier: Int] = [:]
        for lane in 0..<lanes.count where !lanes[lane].isBinary && lanes[lane].backend !== Backend.nobody {
            known[ObjectIdentifier(lanes[lane].backend)] = lane
        }
        var wanted: Set<Int> = []
        laneOfDestination = fresh.backends.enumerated().map { destination, backend in
            let lane = known[ObjectIdentifier(backend)] ?? makeLanes(backend)
            wanted.insert(lane)
            for number in [lane, lane + 1] { lanes[number].destination = Int32(truncatingIfNeeded: destination) }
            return lane
        }
        for (_, lane) in known {
            for number in [lane, lane + 1] {
                if !wanted.contains(lane) {
                    lanes[number].isLeaving = true
                    lanes[number].destination = -1
                } else if lanes[number].isLeaving {
                    lanes[number].isLeaving = false
                }
            }
        }
        followOwners(fresh)
        let seed = UInt64.random(in: .min ... .max, using: &random)
        var table = HealthTable(plan: fresh.routes, configuration: router.health, seed: seed)
        if fresh !== plan { table.adopt(health, plan.routes, plan: fresh.routes, nowNanoseconds: now) }
        health = table
        let engine = RouteEngine(plan: fresh.routes, seed: seed, nowNanoseconds: now)
        // Requests that began under an earlier plan keep its engine until they are over.
        dropEngines()
        engines.append(engine)
        context = PlanContext(fresh, engine, lanes: laneOfDestination)
        // Which servers have copies may be another matter now.
        if spreadsHotKeys { router.copies.distrustAll(until: copyEnd) }
        plan = fresh
        spoolEpoch = 0
        mindHealth()
    }

    /// Forgets engines that no request needs any more.
    private func dropEngines() {
        engines.removeAll { old in old !== context.engine && !routedRequests.contains { $0.context?.engine === old } }
    }

    /// A pair of lanes, text and binary, for a server.
    private func makeLanes(_ backend: Backend) -> Int {
        let start = freeLanes.popLast() ?? laneCount
        if start == laneCount { laneCount += 2 }
        guard lanes.reach(start + 1) else { preconditionFailure("more servers than lanes") }
        for number in [start, start + 1] {
            lanes[number] = Lane()
            lanes[number].isBinary = number > start
            lanes[number].backend = backend
            lanes[number].gate = BackendGuard(gateConfiguration, seed: UInt64.random(in: .min ... .max, using: &random))
            lanes[number].meter = backend.meters[reactor.index]
            lanes[number].tracePeer = router.tracing.peer(backend.name)
            lanes[number].requestNanoseconds = UInt64(backend.destination.requestTimeoutMilliseconds) * 1_000_000
            lanes[number].connectNanoseconds = UInt64(backend.destination.connectTimeoutMilliseconds) * 1_000_000
        }
        return start
    }

    /// Closes lanes of servers that are gone from the configuration, once nothing is in flight on them.
    func retireLanes(_ loop: inout ReactorLoop) {
        if engines.count > 1 { dropEngines() }
        var lane = 0
        while lane < laneCount {
            defer { lane += 2 }
            guard lanes[lane].isLeaving, !isInUse(lane) else { continue }
            var isOver = true
            for number in [lane, lane + 1] {
                guard lanes[number].outstanding == 0, lanes[number].waitingCount == 0 else {
                    isOver = false
                    continue
                }
                if lanes[number].connection != .max { loop.close(ConnectionID(rawValue: lanes[number].connection)) }
            }
            guard isOver else { continue }
            for number in [lane, lane + 1] {
                lanes[number] = Lane()
            }
            freeLanes.append(lane)
        }
    }

    /// Whether a request that began under an earlier plan may yet send something there.
    private func isInUse(_ lane: Int) -> Bool {
        engines.count > 1
            && routedRequests.contains { $0.context.map { $0 !== context && $0.lanes.contains(lane) } ?? false }
    }

    // MARK: Sending

    /// Sends what waits for a server, and connects where there is no connection.
    func flush(lane: Int, _ loop: inout ReactorLoop) {
        lanes[lane].isDirty = false
        if lanes[lane].waitingCount > 0 { admitWaiting(lane) }
        switch lanes[lane].state {
        case .open: break
        case .idle:
            if lanes[lane].outstanding > 0 { connect(lane, &loop) }
            return
        case .connecting, .waiting: return
        }
        guard lanes[lane].pending.count > 0 else { return }
        lanes[lane].meter.counters.add(.bytesWritten, UInt64(lanes[lane].pending.count))
        loop.withConnection(ConnectionID(rawValue: lanes[lane].connection)) { connection, output in
            lanes[lane].unsent = connection.pendingOutput &+ lanes[lane].pending.count
            if output.isEmpty {
                swap(&output, &lanes[lane].pending)
            } else {
                output.append(lanes[lane].pending, from: 0, externalStart: 0)
                lanes[lane].pending.removeAll()
            }
        }
        // The swapped-in memory may be much larger than what this server needs.
        if lanes[lane].pending.capacityBytes > limits.keptBufferBytes { lanes[lane].pending.shrink(to: 256) }
    }

    private func connect(_ lane: Int, _ loop: inout ReactorLoop) {
        guard let address = lanes[lane].backend.address(attempt: lanes[lane].failures),
            let id = loop.connect(to: address, tag: Self.laneMark | UInt64(lane), tls: lanes[lane].backend.tls)
        else { return connectFailed(lane, .connectError) }
        lanes[lane].state = .connecting
        lanes[lane].connection = id.rawValue
        lanes[lane].connectDeadline = now &+ lanes[lane].connectNanoseconds
        show(lane)
        mind(lanes[lane].connectDeadline)
    }

    func laneOpened(_ lane: Int) {
        lanes[lane].state = .open
        lanes[lane].failures = 0
        lanes[lane].lastInput = now
        lanes[lane].unsent = 0
        (lanes[lane].tellsNoRates, lanes[lane].awaitsRates) = (false, false)
        if lanes[lane].followsOwners { askForOwners(lane) }
        lanes[lane].meter.counters.add(.connects)
        show(lane)
        markDirty(lane: lane)
    }

    func laneClosed(_ lane: Int, _ id: ConnectionID) {
        guard lane < lanes.count, lanes[lane].connection == id.rawValue else { return }
        let wasOpen = lanes[lane].state == .open
        lanes[lane].connection = .max
        if wasOpen {
            lanes[lane].meter.counters.add(.disconnects)
            lanes[lane].state = .idle
            failAll(lane, .lost)
            show(lane)
        } else {
            connectFailed(lane, now >= lanes[lane].connectDeadline ? .connectTimeout : .connectError)
        }
    }

    /// No connection came to stand: what waited for it has failed, and for a while nothing is tried.
    private func connectFailed(_ lane: Int, _ failure: RouteFailure) {
        lanes[lane].connection = .max
        lanes[lane].meter.counters.add(.connectFailures)
        lanes[lane].failures += 1
        let steps = UInt64(min(lanes[lane].failures - 1, 16))
        let wait = min(limits.reconnectMinimumNanoseconds << steps, limits.reconnectMaximumNanoseconds)
        // Spread, or all reactors and routers would come back at once.
        lanes[lane].retryAt = now &+ wait / 2 &+ UInt64.random(in: 0...wait / 2, using: &random)
        lanes[lane].state = .waiting
        note(lane, failure)
        failAll(lane, failure)
        show(lane)
    }

    /// Tells what is known of a server's health what became of a request.
    private func note(_ lane: Int, _ failure: RouteFailure) {
        let destination = Int(lanes[lane].destination)
        guard destination >= 0 else { return }
        let change = health.record(
            destination, failure.result, answered: lanes[lane].meter.counters.load(.replies), nowNanoseconds: now)
        if change == .ejectedShare { lanes[lane].meter.counters.add(.circuitOpens) }
        mindHealth()
    }

    /// Asks servers that were taken out whether they are back.
    private func probe() {
        while let destination = health.probeDue(nowNanoseconds: now) {
            let lane = laneOfDestination[destination]
            let (call, _) = makeCall(lane, .line, isProbe: true)
            guard let call else {
                _ = health.probeDone(destination, succeeded: false, nowNanoseconds: now)
                continue
            }
            calls[call].isProbe = true
            lanes[lane].pending.append("version\r\n")
        }
        mindHealth()
    }

    /// Sees to it that probes are sent when they are due.
    func mindHealth() {
        if let next = health.nextProbeNanoseconds { mind(next) }
    }

    /// Every call of a lane fails: its connection is gone. The lane is empty before anybody hears of it, because who
    /// does may send again on the same lane.
    private func failAll(_ lane: Int, _ failure: RouteFailure) {
        // What was not sent yet is not lost with a connection.
        seal(lane)
        lanes[lane].pending.removeAll()
        lanes[lane].unsent = 0
        lanes[lane].streamLeft = 0
        lanes[lane].openCall = -1
        var next = lanes[lane].first
        lanes[lane].first = -1
        lanes[lane].last = -1
        lanes[lane].firstLive = -1
        lanes[lane].outstanding = 0
        while next >= 0 {
            let call = Int(next)
            let entry = calls[call]
            next = entry.next
            calls.give(call)
            // A connection that came not to stand is noted once; one that broke, by what it cost.
            if failure == .lost, entry.isAwaited, !entry.isProbe { note(lane, .lost) }
            giveUp(lane, entry, failure)
        }
        if lanes[lane].state == .waiting { failWaiting(lane, failure) }
        if lanes[lane].waitingCount > 0 { markDirty(lane: lane) }
    }

    /// Whoever waits for a call hears that it failed.
    func giveUp(_ lane: Int, _ call: Call, _ failure: RouteFailure) {
        if call.isInvalidation { return invalidated(call, succeeded: false) }
        if call.hash != 0 { hotDone(call) }
        if traces { endSpan(of: call, lane, failure.spanError) }
        guard call.isAwaited else { return }
        if call.isProbe {
            let destination = Int(lanes[lane].destination)
            if destination >= 0 { _ = health.probeDone(destination, succeeded: false, nowNanoseconds: now) }
            return mindHealth()
        }
        lanes[lane].meter.note(failure)
        if call.isReplay { return finish(replay: Int(call.token), succeeded: false) }
        if call.ticket >= 0 {
            fail(Int(call.ticket), failure)
        } else {
            fail(routed: Int(call.routed), Int(call.token), failure)
        }
    }

    private func show(_ lane: Int) {
        if !lanes[lane].isBinary { lanes[lane].meter.state.store(lanes[lane].state.rawValue, ordering: .relaxed) }
    }

    // MARK: Time

    /// Gives up what is overdue, and finds out when something is due next.
    func expire(_ loop: inout ReactorLoop) {
        nextDeadline = .max
        let time = now
        if !timers.isEmpty { wakeRouted() }
        probe()
        for lane in 0..<laneCount where lanes[lane].waitingCount > 0 { expireWaiting(lane, time) }
        for lane in 0..<laneCount where lanes[lane].state == .connecting || lanes[lane].outstanding > 0 {
            if lanes[lane].state == .connecting {
                if time >= lanes[lane].connectDeadline {
                    loop.close(ConnectionID(rawValue: lanes[lane].connection))
                } else {
                    mind(lanes[lane].connectDeadline)
                }
            }
            expireCalls(lane, time)
            guard lanes[lane].first >= 0, lanes[lane].state == .open else { continue }
            // Answered nothing for long: whatever it is, this connection does not get over it.
            let stuck =
                max(lanes[lane].lastInput, calls[Int(lanes[lane].first)].started)
                &+ lanes[lane].requestNanoseconds &+ limits.stuckNanoseconds
            if time >= stuck {
                loop.close(ConnectionID(rawValue: lanes[lane].connection))
            } else {
                mind(stuck)
            }
        }
    }

    private func expireCalls(_ lane: Int, _ time: UInt64) {
        while lanes[lane].firstLive >= 0 {
            let number = lanes[lane].firstLive
            let call = Int(number)
            if calls[call].isAwaited {
                // Of a value that is coming in, what counts is that it goes on: see the lane's own limit.
                if lanes[lane].streamLeft > 0, lanes[lane].first == number { return }
                guard time >= calls[call].deadline else { return mind(calls[call].deadline) }
                var entry = calls[call]
                // A write that is given up may yet be done: it is over when its reply comes, or the connection ends.
                if !entry.isHotRead { entry.hash = 0 }
                calls[call].ticket = -1
                calls[call].routed = -1
                calls[call].span = -1
                calls[call].isProbe = false
                calls[call].isReplay = false
                if entry.isHotRead { (calls[call].hash, calls[call].isHotRead) = (0, false) }
                lanes[lane].firstLive = entry.next
                if !entry.isProbe {
                    note(lane, .timeout)
                    lanes[lane].gate.timedOut(entry.requestClass, now: time)
                }
                giveUp(lane, entry, .timeout)
            } else {
                lanes[lane].firstLive = calls[call].next
            }
        }
    }
}

extension BackendMeter {
    /// Counts a request that got no reply.
    func note(_ failure: RouteFailure) {
        switch failure {
        case .none, .local: break
        case .timeout: counters.add(.timeouts)
        case .lost: counters.add(.lost)
        case .connectTimeout: counters.add(.connectTimeouts)
        case .connectError: counters.add(.connectErrors)
        case .unavailable: counters.add(.unavailable)
        case .busy: counters.add(.busy)
        }
    }
}
