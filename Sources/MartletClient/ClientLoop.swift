// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Reactor
internal import Synchronization

/// A client on one reactor: attempts in, requests to servers, replies back. What it decides, the state machines decide.
///
/// An attempt (`PendingCall`) has one request on the way (`Leg`), or two when it was hedged; a connection (`Link`)
/// knows its legs in the order of their replies. A leg outlives its call, to take the late reply.
final class ClientLoop: ReactorHandler {
    let shared: ClientShared
    let queue: CallQueue
    let reactor: Reactor
    let directory: ServerDirectory
    let executor: ClientExecutor
    let settings: LoopSettings

    let calls = Slab<PendingCall>(limit: 1 << 20) { _ in PendingCall() }
    let legs = Slab<Leg>(limit: 1 << 21) { _ in Leg() }
    let links: Slab<Link>
    let nodes: Slab<NodeState>
    /// By a server's index: its place in `nodes`; -1 for none.
    var slotOfNode: [Int32] = []
    var dirtyLinks: [Int] = []
    /// Servers that waiting calls may go to now.
    var readyNodes: [Int] = []
    var batch = CallQueue.Batch()
    /// When something is due at the latest; .max when nothing is.
    var nextDue = UInt64.max
    /// The time that is worked with, in monotonic nanoseconds.
    var now: UInt64 = 0
    var isMarkedAwake = false
    var isStopping = false
    var random = SystemRandomNumberGenerator()

    /// How often a turn looks for more to do before the sockets have theirs.
    private static var roundsPerTurn: Int { 8 }

    init(_ shared: ClientShared, _ reactor: Reactor, _ directory: ServerDirectory, _ executor: ClientExecutor) {
        self.shared = shared
        self.reactor = reactor
        self.directory = directory
        self.executor = executor
        queue = shared.queues[reactor.index]
        let settings = LoopSettings(shared.configuration)
        self.settings = settings
        links = Slab(limit: 1 << 16) { _ in Link(settings.connection) }
        nodes = Slab(limit: 1 << 16) { _ in NodeState(settings) }
    }

    var chance: Double { Double.random(in: 0...1, using: &random) }

    func mind(_ due: UInt64) {
        if due < nextDue { nextDue = due }
    }

    func turnEnded(_ loop: inout ReactorLoop) {
        var rounds = 0
        var isEmpty = false
        while rounds < Self.roundsPerTurn {
            guard queue.take(into: &batch) else {
                isEmpty = true
                break
            }
            now = Clock.monotonicNanoseconds()
            noteAttempts()
            for index in batch.calls.indices { submit(batch.calls[index]) }
            takeLetters(&loop)
            for index in batch.jobs.indices { executor.run(batch.jobs[index]) }
            batch.removeAll()
            rounds += 1
        }
        isMarkedAwake = false
        now = Clock.monotonicNanoseconds()
        if now >= nextDue { expire(&loop) }
        repeat {
            serveReady()
            while let link = dirtyLinks.popLast() { flush(link, &loop) }
        } while !readyNodes.isEmpty
        loop.wakeNanoseconds = !isEmpty ? 1 : nextDue == .max ? 0 : nextDue
    }

    /// Lets the budget of retries grow with the calls of the batch: one lock for all of them.
    private func noteAttempts() {
        let first = batch.calls.reduce(0) { $0 + ($1.isFirst ? 1 : 0) }
        if first > 0 { shared.budget.withLock { $0.attempted(first) } }
    }

    private func takeLetters(_ loop: inout ReactorLoop) {
        guard !batch.letters.isEmpty else { return }
        var cancelled: Set<UInt64> = []
        for letter in batch.letters {
            switch letter {
            case .cancel(let id): cancelled.insert(id)
            case .alarm(let due): mind(due)
            case .retire(let node): retire(node)
            case .stop:
                isStopping = true
                failEverything(&loop)
            }
        }
        guard !cancelled.isEmpty else { return }
        for call in 0..<calls.count where calls[call].isLive && cancelled.contains(calls[call].id) {
            finish(call, .failure(.cancelled))
        }
    }

    func stopped() {
        queue.close()
        while queue.take(into: &batch) {
            for call in batch.calls { call.waiter.resume(returning: .failure(.shutDown)) }
            for job in batch.jobs { executor.run(job) }
            batch.removeAll()
        }
    }

    // MARK: Connections

    func opened(_ connection: inout Connection, _ output: inout OutputBuffer) {
        let link = Int(truncatingIfNeeded: connection.tag)
        guard links[link].connection == connection.id.rawValue else { return connection.closeNow() }
        now = reactor.nowNanoseconds
        connection.inputLimit = settings.valueLimitBytes + 64 << 10
        links[link].machine.opened(nowNanoseconds: now)
        nodes[links[link].node].meter?.connects.add(1, ordering: .relaxed)
        nodes[links[link].node].meter?.connections.add(1, ordering: .relaxed)
        shared.count(.connects)
        markDirty(link)
    }

    func received(_ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer) -> Int {
        let link = Int(truncatingIfNeeded: connection.tag)
        guard links[link].connection == connection.id.rawValue else {
            connection.closeNow()
            return input.count
        }
        if !isMarkedAwake {
            isMarkedAwake = true
            queue.noteAwake()
        }
        now = reactor.nowNanoseconds
        links[link].machine.heard(nowNanoseconds: now)
        var offset = 0
        while offset < input.count {
            let leg = Int(links[link].first)
            guard leg >= 0 else {
                links[link].nonsense = "a reply that nobody asked for"
                connection.closeNow()
                return input.count
            }
            switch ReplyReading.next(
                input, at: &offset, legs[leg].operation, valueLimit: settings.valueLimitBytes)
            {
            case .reply(let reply): take(reply, link, leg)
            case .incomplete(let needed):
                if needed > 0 { connection.minimumInput(needed) }
                return offset
            case .nonsense(let what):
                links[link].nonsense = what
                connection.closeNow()
                return input.count
            }
        }
        return offset
    }

    func closed(_ connection: inout Connection, _ reason: CloseReason) {
        let link = Int(truncatingIfNeeded: connection.tag)
        guard link < links.count, links[link].connection == connection.id.rawValue else { return }
        now = Clock.monotonicNanoseconds()
        if links[link].machine.state == .open {
            nodes[links[link].node].meter?.connections.subtract(1, ordering: .relaxed)
        }
        lost(link)
    }
}
