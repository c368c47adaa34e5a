// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MartletClient
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
internal import Storage
internal import Telemetry

/// Speaks to the home region on one reactor: requests out, replies back to the tier, a batch of each in a turn.
final class RegionHandler: ReactorHandler {
    let core: RegionCore
    let reactor: Reactor
    /// Which queue is worked on.
    let index: Int
    private(set) var lanes: [RegionLane]
    private var dirty: [Int] = []
    private var taken: [RegionRequest] = []
    private var reads: [(token: UInt64, outcome: ReadOutcome)] = []
    private var writes: [(token: UInt64, outcome: WriteOutcome)] = []
    /// Whether a write of unknown outcome was answered, so that it is to be said that it is settled.
    private var owesSettlement = false
    private var reply: RegionReply
    private var random = SystemRandomNumberGenerator()

    init(_ core: RegionCore, _ reactor: Reactor) {
        self.core = core
        self.reactor = reactor
        index = reactor.index
        reply = RegionReply(home: core.configuration.home)
        let limits = core.configuration
        let silence = UInt64(limits.silenceMilliseconds) * 1_000_000
        let machine = ConnectionStateMachine.Configuration(
            connectNanoseconds: silence, silenceNanoseconds: silence,
            backoff: Backoff(
                firstNanoseconds: UInt64(limits.firstRetryMilliseconds) * 1_000_000,
                longestNanoseconds: UInt64(limits.longestRetryMilliseconds) * 1_000_000))
        let share = limits.connections / 2
        let count = max(1, index == RegionCore.readsIndex ? share : limits.connections - share)
        lanes = (0..<count).map { RegionLane(machine, endpoint: $0 % core.endpoints.count) }
    }

    func turnEnded(_ loop: inout ReactorLoop) {
        core.noteAwake(index)
        core.queues[index].take(into: &taken, limit: .max)
        for request in taken { submit(request) }
        taken.removeAll(keepingCapacity: true)
        for (number, lane) in lanes.enumerated() where lane.triesNext { connect(number, &loop) }
        while let number = dirty.popLast() { flush(number, &loop) }
        deliver()
        // An attempt that failed at once goes on in the next turn.
        loop.wakeNanoseconds = lanes.contains { $0.triesNext } ? 1 : 0
    }

    func tick(_ loop: inout ReactorLoop, now: UInt64) {
        for lane in lanes where lane.machine.isOverdue(nowNanoseconds: now) {
            if lane.isOpen { lane.reason = "the home region \(core.configuration.home) does not answer" }
            if let id = lane.connection { loop.close(id) }
        }
        // One connection is kept, so that it is known whether the home region is there.
        if lanes[0].connection == nil, lanes[0].machine.accepts(nowNanoseconds: now) { markDirty(0) }
    }

    func stopped() {
        core.queues[index].take(into: &taken, limit: .max)
        core.answer(taken, index, .notSent, "the node is stopping")
        taken = []
        for number in lanes.indices { failAll(number, "the node is stopping") }
        deliver()
    }

    // MARK: Requests

    private func submit(_ request: RegionRequest) {
        if let obstacle = request.obstacle { return fail(request, .refused, obstacle) }
        let number = Int(truncatingIfNeeded: stableHash(request.key.span) % UInt64(lanes.count))
        let lane = lanes[number]
        guard lane.machine.accepts(nowNanoseconds: reactor.nowNanoseconds) else {
            return fail(request, .notSent, unreachable)
        }
        let limit = core.configuration.waitingBytesMax
        let waiting = lanes.reduce(0) { $0 + $1.bytes }
        guard waiting == 0 || waiting + request.bytes <= limit else {
            core.counters.add(.refused)
            return fail(request, .notSent, "too much waits for the home region \(core.configuration.home)")
        }
        var request = request
        request.askedMilliseconds = Int64(Clock.realtimeNanoseconds() / 1_000_000)
        lane.append(request)
        lane.machine.asked(nowNanoseconds: reactor.nowNanoseconds)
        lane.pending.append(request, mark: core.mark, place: place(request))
        markDirty(number)
    }

    /// What was told of a key before it is read: whatever is told later voids what comes of the read.
    private func place(_ request: RegionRequest) -> RegionPlace? {
        guard case .read(let key) = request.question, let place = core.places?.told(of: key.span), place.sequence >= 0
        else { return nil }
        return RegionPlace(numbering: place.numbering, sequence: UInt64(place.sequence))
    }

    private func markDirty(_ number: Int) {
        guard !lanes[number].isDirty else { return }
        lanes[number].isDirty = true
        dirty.append(number)
    }

    private func fail(_ request: RegionRequest, _ kind: StorageFailure.Kind, _ reason: String) {
        let failure = StorageFailure(kind, reason)
        switch request.question {
        case .read:
            core.counters.add(.readsFailed)
            reads.append((request.token, .failed(failure)))
        case .write:
            core.counters.add(kind == .unknownOutcome ? .writesUnknown : .writesFailed)
            owesSettlement = owesSettlement || kind == .unknownOutcome
            writes.append((request.token, .failed(failure)))
        }
    }

    private func deliver() {
        if !reads.isEmpty {
            let batch = reads
            reads.removeAll(keepingCapacity: true)
            core.deliver(reads: batch)
            // Nothing more is read from the home region until those who wait have taken most of it.
            core.sink?.waitForRoom()
        }
        if !writes.isEmpty {
            let batch = writes
            writes.removeAll(keepingCapacity: true)
            core.deliver(writes: batch)
        }
        // What a write does later, the stream tells: see docs/decisions/0034-writes-from-replicas.md.
        if owesSettlement {
            owesSettlement = false
            core.sink?.unknownOutcomesSettled()
        }
    }

    // MARK: Connections

    private var unreachable: String { "the home region \(core.configuration.home) cannot be reached" }

    private func flush(_ number: Int, _ loop: inout ReactorLoop) {
        let lane = lanes[number]
        lane.isDirty = false
        switch lane.machine.wanted(nowNanoseconds: reactor.nowNanoseconds) {
        case .connect:
            lane.candidates = candidates(from: lane.endpoint)
            return connect(number, &loop)
        case .refuse: return failAll(number, unreachable)
        case .nothing: break
        }
        guard lane.isOpen, let id = lane.connection, lane.pending.count > 0 else { return }
        loop.withConnection(id) { _, output in lane.pending.withSpan { output.append($0) } }
        lane.pending.removeAll()
        lane.pending.shrink(to: 64 << 10)
        lane.noteSent()
    }

    /// Every address of every endpoint, beginning with one endpoint's.
    private func candidates(from endpoint: Int) -> ArraySlice<RegionLane.Candidate> {
        let count = core.endpoints.count
        return (0..<count).flatMap { step in
            let number = (endpoint + step) % count
            return core.endpoints[number].addresses.map { RegionLane.Candidate(endpoint: number, address: $0) }
        }[...]
    }

    /// Tries the next address.
    private func connect(_ number: Int, _ loop: inout ReactorLoop) {
        let lane = lanes[number]
        lane.triesNext = false
        while let candidate = lane.candidates.popFirst() {
            let tls = core.endpoints[candidate.endpoint].tls
            guard let id = loop.connect(to: candidate.address, tag: UInt64(number), tls: tls) else { continue }
            (lane.connection, lane.endpoint) = (id, candidate.endpoint)
            lane.machine.triesAnother(nowNanoseconds: reactor.nowNanoseconds)
            return
        }
        lane.machine.lost(nowNanoseconds: reactor.nowNanoseconds, random: Double.random(in: 0...1, using: &random))
        let reason = lane.reason.isEmpty ? unreachable : lane.reason
        lane.reason = ""
        core.connectionFailed(reason)
        for endpoint in core.endpoints { core.lookUpAgain(endpoint) }
        failAll(number, reason)
    }

    /// A connection that stands may lead to a proxy whose way is cut: it counts once the other end has answered, and
    /// nothing that could be lost is sent before.
    func opened(_ connection: inout Connection, _ output: inout OutputBuffer) {
        let lane = lanes[Int(truncatingIfNeeded: connection.tag)]
        guard lane.connection == connection.id else { return connection.closeNow() }
        output.append("mn\r\n")
    }

    /// The other end answers the greeting: `input` is what it said.
    private func greeted(
        _ lane: RegionLane, _ connection: inout Connection, _ input: Span<UInt8>
    ) -> Int {
        switch ReplyParser.next(in: input, at: 0) {
        case .incomplete: return 0
        case .unit(let unit) where unit.kind == .metaNoop:
            lane.isOpen = true
            lane.candidates = []
            lane.reason = ""
            lane.machine.opened(nowNanoseconds: reactor.nowNanoseconds)
            core.connectionOpened()
            markDirty(Int(truncatingIfNeeded: connection.tag))
            return unit.end
        case .unit(let unit) where unit.kind.isError:
            let text = String(decoding: [UInt8](copying: input.extracting(unit.start..<unit.textEnd)), as: UTF8.self)
            lane.reason = "the home region \(core.configuration.home) does not let us in, \(text)"
        default: lane.reason = "what answers for the home region \(core.configuration.home) is no cache server"
        }
        connection.closeNow()
        return input.count
    }

    func closed(_ connection: inout Connection, _ reason: CloseReason) {
        let number = Int(truncatingIfNeeded: connection.tag)
        let lane = lanes[number]
        guard lane.connection == connection.id else { return }
        lane.connection = nil
        guard lane.isOpen else {
            // Where there is another address, that is tried.
            lane.triesNext = true
            return
        }
        lane.isOpen = false
        let home = core.configuration.home
        let lost = lane.reason.isEmpty ? "the connection to the home region \(home) was lost" : lane.reason
        lane.reason = ""
        // Whoever has nothing to answer may hang up.
        core.connectionClosed(lane.count > 0 ? lost : nil)
        lane.machine.lost(nowNanoseconds: reactor.nowNanoseconds, random: Double.random(in: 0...1, using: &random))
        failAll(number, lost)
    }

    /// Everything that waits for a lane fails: what went out may have been done.
    private func failAll(_ number: Int, _ reason: String) {
        let (sent, unsent) = lanes[number].takeAll()
        for request in sent { fail(request, .unknownOutcome, reason) }
        for request in unsent { fail(request, .notSent, reason) }
    }

    // MARK: Replies

    func received(_ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer) -> Int {
        let lane = lanes[Int(truncatingIfNeeded: connection.tag)]
        guard lane.connection == connection.id else {
            connection.closeNow()
            return input.count
        }
        guard lane.isOpen else { return greeted(lane, &connection, input) }
        lane.machine.heard(nowNanoseconds: reactor.nowNanoseconds)
        reply.answeredMilliseconds = Int64(Clock.realtimeNanoseconds() / 1_000_000)
        var offset = 0
        while offset < input.count {
            guard let request = lane.first else { return refuse(lane, &connection, input.count) }
            switch ReplyParser.next(in: input, at: offset) {
            case .incomplete: return offset
            case .malformed: return refuse(lane, &connection, input.count)
            case .unit(let unit):
                guard unit.end <= input.count else {
                    connection.minimumInput(unit.end - offset)
                    return offset
                }
                guard !unit.kind.hasBlock || ReplyParser.isTerminated(unit, in: input),
                    let answer = reply.answer(unit, input, to: request)
                else { return refuse(lane, &connection, input.count) }
                offset = unit.end
                lane.removeFirst()
                lane.machine.answered()
                note(answer, request)
            }
        }
        return offset
    }

    private func note(_ answer: RegionReply.Answer, _ request: RegionRequest) {
        let now = reactor.nowNanoseconds
        core.replyTimes[index].record.record(
            nanoseconds: now > request.sinceNanoseconds ? now - request.sinceNanoseconds : 0)
        switch answer {
        case .read(let outcome):
            if case .failed = outcome { core.counters.add(.readsFailed) } else { core.counters.add(.reads) }
            reads.append((request.token, outcome))
        case .write(.failed(let failure)): fail(request, failure.kind, failure.reason)
        case .write(let outcome):
            core.counters.add(.writes)
            writes.append((request.token, outcome))
        }
    }

    /// What the peer says is no reply: the connection is of no more use.
    private func refuse(_ lane: RegionLane, _ connection: inout Connection, _ count: Int) -> Int {
        lane.reason = "the home region \(core.configuration.home) does not speak memcached's meta protocol"
        connection.closeNow()
        return count
    }
}
