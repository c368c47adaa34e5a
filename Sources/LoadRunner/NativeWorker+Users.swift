// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import MemcacheProtocol
internal import Platform
internal import Reactor

extension NativeWorker {
    /// Requests of a user under way while keys are stored before the start.
    static var preloadPipeline: Int { 64 }
    /// Connections that are being made at once.
    static var connectLimit: Int { 256 }

    mutating func makeFirstUsers(_ index: Int) {
        for user in scenarios[index].users.prefix(scenarios[index].share.userCount) {
            _ = scenarios[index].progress.makeUser(limit: .max)
            make(user, index, scenarios[index].made)
        }
    }

    private mutating func make(_ user: Int, _ scenario: Int, _ index: Int) {
        scenarios[scenario].made += 1
        users[user].isMade = true
        users[user].scenario = scenario
        users[user].index = index
        let workload = scenarios[scenario].workload
        users[user].ring = PendingRing(
            capacity: max(workload.pipeline, workload.preloads ? Self.preloadPipeline : 1))
    }

    /// Makes one more user of a scenario whose users are all busy, and which may have more.
    mutating func makeAnotherUser(_ index: Int, _ now: UInt64) {
        let made = scenarios[index].made
        scenarios[index].share.addUser(setup.threadCount * made + setup.threadNumber(thread))
        let user = scenarios[index].users.lowerBound + made
        make(user, index, made)
        connect(user, now)
    }

    /// Looks at what has a time of its own: connections to make again, users that wait, iterations that take too long.
    mutating func tickUsers(_ index: Int, _ now: UInt64) {
        let offset = start == 0 ? 0 : now - min(now, start + scenarios[index].scenario.startTime)
        let isOver =
            scenarios[index].isStarted && !scenarios[index].isOpenLoop
            && (offset >= scenarios[index].scenario.plan.regularDuration || now >= control.stopTime)
        for user in scenarios[index].users.prefix(scenarios[index].made) {
            switch users[user].state {
            case .closed:
                if isOver { users[user].isDone = true }
                guard !users[user].isDone, now >= users[user].retryAt, connectsUnderWay < Self.connectLimit else {
                    continue
                }
                connect(user, now)
            case .connecting:
                if isOver { users[user].isDone = true }
                if now - users[user].connectBegan > 5_000_000_000 { fail(user, "connect: no answer") }
            case .open:
                if users[user].askAt != 0, now >= users[user].askAt {
                    users[user].askAt = 0
                    fill(user, now)
                }
                if start != 0, users[user].ring.count > 0, offset >= scenarios[index].share.deadline(users[user].index)
                {
                    interrupt(user, now)
                }
            case .finished: break
            }
        }
    }

    // MARK: Connections

    mutating func connect(_ user: Int, _ now: UInt64) {
        let number = scenarios[users[user].scenario].share.number(of: users[user].index)
        let server = setup.servers[number % setup.servers.count]
        users[user].connectBegan = now
        do throws(SystemError) {
            let stream = try OutboundStream(to: server.address, tls: server.tls)
            try poller.add(stream.fd, [.input, .output], user: UInt64(user))
            users[user].state = .connecting
            users[user].watchesOutput = true
            users[user].stream = consume stream
            connectsUnderWay += 1
        } catch {
            fail(user, "connect \(server.address.host):\(server.address.port): \(error.reason)")
        }
    }

    private mutating func connected(_ user: Int) {
        let now = Clock.monotonicNanoseconds()
        if let error = users[user].stream?.connectFailure() { return fail(user, "connect: \(error.reason)") }
        switch users[user].stream?.secure() ?? .ready {
        case .ready: break
        case .needsInput: return watch(user, output: false)
        case .needsOutput: return watch(user, output: true)
        case .failed(let reason): return fail(user, "TLS: \(reason)")
        }
        connectsUnderWay -= 1
        users[user].state = .open
        users[user].retryDelay = 10_000_000
        watch(user, output: false)
        let scenario = users[user].scenario
        for place in scenarios[scenario].places.connecting {
            sinks[place].add(Double(now - users[user].connectBegan) / 1e6)
        }
        note(scenario, setup.builtIn.connecting, Double(now - users[user].connectBegan) / 1e6, now)
        offer(user, now)
    }

    /// Lets a user that has room for a request have one.
    mutating func offer(_ user: Int, _ now: UInt64) {
        let scenario = users[user].scenario
        guard scenarios[scenario].isOpenLoop, scenarios[scenario].preload.isEmpty else { return fill(user, now) }
        guard !users[user].isQueued, users[user].ring.count < scenarios[scenario].pipeline else { return }
        users[user].isQueued = true
        scenarios[scenario].pushFree(user)
        if scenarios[scenario].isFull {
            scenarios[scenario].isFull = false
            scenarios[scenario].fullUntil = now - min(now, start + scenarios[scenario].scenario.startTime)
        }
    }

    private func watch(_ user: Int, output: Bool) {
        guard users[user].watchesOutput != output, let fd = users[user].stream?.fd else { return }
        users[user].watchesOutput = output
        poller.change(fd, output ? [.input, .output] : .input, user: UInt64(user))
    }

    /// The connection is of no more use: what was under way on it failed, and it is made again a little later.
    mutating func fail(_ user: Int, _ reason: String) {
        let now = Clock.monotonicNanoseconds()
        warnings.count(reason)
        let scenario = users[user].scenario
        if users[user].state != .open {
            if users[user].state == .connecting { connectsUnderWay -= 1 }
            for place in scenarios[scenario].places.connectFailed { sinks[place].add(1) }
            note(scenario, setup.builtIn.connectFailed, 1, now)
            failIteration(user, now)
        }
        // What was to be there at the start cannot be, or is not known to be.
        if start == 0, users[user].state != .open || users[user].ring.count > 0 {
            control.fail(RunFailure(code: .generic, message: reason))
        }
        while users[user].ring.count > 0 {
            let request = users[user].ring.pop()
            record(scenario, request, .broken, now)
            finishIteration(scenario, request, now)
        }
        close(user)
        users[user].state = .closed
        users[user].retryAt = now + users[user].retryDelay
        // A number of iterations is not to be waited for: each attempt fails one.
        if !scenarios[scenario].isBounded { users[user].retryDelay = min(users[user].retryDelay * 2, 1_000_000_000) }
    }

    /// A looping user that gets no connection fails an iteration with each attempt, as a request of a script does.
    private mutating func failIteration(_ user: Int, _ now: UInt64) {
        let scenario = users[user].scenario
        let begin = start + scenarios[scenario].scenario.startTime
        guard start != 0, scenarios[scenario].isStarted, !scenarios[scenario].isOpenLoop, !users[user].isDone,
            now >= users[user].askAt, now < control.stopTime
        else { return }
        users[user].askAt = 0
        switch scenarios[scenario].share.claim(users[user].index, now: now - begin) {
        case .start(_, let number):
            let request = draw(scenario, intended: max(begin, users[user].connectBegan), number: number)
            scenarios[scenario].underWay += 1
            record(scenario, request, .broken, now)
            finishIteration(scenario, request, now)
        case .wait(let until): users[user].askAt = begin + until
        case .finished: users[user].isDone = true
        }
    }

    private func close(_ user: Int) {
        if let fd = users[user].stream?.fd { poller.remove(fd) }
        users[user].stream = nil
        users[user].output.removeAll()
        users[user].written = 0
        users[user].input.removeAll(keeping: Self.readBytes)
        users[user].needed = 1
        users[user].ring.removeAll()
        users[user].askedKeys.removeAll()
    }

    /// Gives up what is under way on a user's connection; its iterations are interrupted. Requests that hang have
    /// failed.
    mutating func interrupt(_ user: Int, _ now: UInt64) {
        let count = users[user].ring.count
        guard count > 0 else { return }
        let scenario = users[user].scenario
        while users[user].ring.count > 0 {
            let request = users[user].ring.pop()
            if now - min(now, request.intended) >= Self.hangNanoseconds { record(scenario, request, .broken, now) }
        }
        scenarios[scenario].underWay -= count
        scenarios[scenario].progress.count(interrupted: UInt64(count))
        close(user)
        users[user].state = .closed
        users[user].retryAt = 0
    }

    /// The user does nothing any more.
    mutating func retire(_ user: Int) {
        if users[user].state == .connecting { connectsUnderWay -= 1 }
        close(user)
        users[user].state = .finished
    }

    // MARK: Input and output

    mutating func take(_ readiness: Readiness, _ user: Int) {
        switch users[user].state {
        case .connecting: connected(user)
        case .open:
            if readiness.contains(.output) { flush(user) }
            if !readiness.isDisjoint(with: [.input, .error, .hangup]) { receive(user) }
        case .closed, .finished: break
        }
    }

    private mutating func receive(_ user: Int) {
        var rounds = 0
        while rounds < 4 || users[user].stream?.hasHiddenInput ?? false {
            rounds += 1
            let reading: OutboundStream.Reading
            if users[user].stream == nil { return }
            let minimum = max(Self.readBytes, users[user].needed - users[user].input.count)
            reading = users[user].receive(minimum)
            switch reading {
            case .bytes(let count):
                scenarios[users[user].scenario].counted.bytesReceived &+= UInt64(count)
                let now = Clock.monotonicNanoseconds()
                guard answer(user, now) else { return }
                if count < Self.readBytes, !(users[user].stream?.hasHiddenInput ?? false) { return }
            case .nothing: return
            case .ended: return fail(user, "the server closed the connection")
            case .failed: return fail(user, "the connection broke")
            }
        }
    }

    mutating func markDirty(_ user: Int) {
        guard !users[user].isDirty else { return }
        users[user].isDirty = true
        dirty.append(user)
    }

    mutating func flushDirty() {
        guard !dirty.isEmpty else { return }
        for user in dirty {
            users[user].isDirty = false
            if users[user].state == .open { flush(user) }
        }
        dirty.removeAll(keepingCapacity: true)
    }

    private mutating func flush(_ user: Int) {
        users[user].ring.stamp(Clock.monotonicNanoseconds())
        while users[user].written < users[user].output.count {
            guard let sent = users[user].send() else { return fail(user, "the connection broke") }
            if sent == 0 { break }
            users[user].written += sent
            scenarios[users[user].scenario].counted.bytesSent &+= UInt64(sent)
        }
        let isDone = users[user].written == users[user].output.count
        if isDone {
            users[user].output.removeAll()
            users[user].written = 0
        }
        watch(user, output: !isDone)
    }
}

extension NativeUser {
    mutating func receive(_ minimum: Int) -> OutboundStream.Reading {
        stream?.receive(into: &input, minimum: minimum) ?? .nothing
    }

    func send() -> Int? { stream?.send(output, from: written) ?? 0 }
}
