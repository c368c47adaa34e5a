// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Platform
internal import Reactor
internal import Storage
internal import Synchronization
internal import Telemetry

/// What the parts of a ``RegionBackend`` share. Two reactors work on it, one for reads, which may wait for those who
/// take rows, and one for writes.
final class RegionCore: Sendable {
    /// Reactors, and queues, by number.
    static var readsIndex: Int { 0 }
    static var writesIndex: Int { 1 }

    let configuration: RegionConfiguration
    let endpoints: [RegionEndpoint]
    /// The home region's mark: see ``RegionMark``.
    let mark: [UInt8]
    /// How far the stream was followed, which reads tell.
    let places: StreamPlaces?
    /// What waits for each reactor.
    let queues: [SubmissionQueue<RegionRequest>]
    let counters = SharedCounterSet<RegionCounter>()
    /// By reactor: from submission to answer.
    let replyTimes = [RegionTimes(), RegionTimes()]
    /// Requests without an answer.
    let outstanding = Atomic<Int>(0)
    let isStopping = Atomic<Bool>(false)
    /// Which writes may be sent and answered, where several nodes of the region share its keys out.
    let fence: RegionFence?
    private let woken = [RegionFlag(), RegionFlag()]
    private let state = Guarded(State())
    private let lookups = Parking()
    private let firstLookup = Parking()
    private let hasLookedUp = Atomic<Bool>(false)

    private struct State {
        var sink: (any StorageSink)?
        var reactors: [Reactor] = []
        var connections = 0
        /// Why there is no connection; empty while none was lost or failed.
        var reason = ""
    }

    /// Loads certificates. Errors name the file.
    init(
        _ configuration: RegionConfiguration, places: StreamPlaces?, fence: RegionFence? = nil
    ) throws(TLSError) {
        self.configuration = configuration
        self.places = places
        self.fence = fence
        mark = RegionMark.token(configuration.home)
        var endpoints: [RegionEndpoint] = []
        for address in configuration.endpoints {
            endpoints.append(try RegionEndpoint(address, configuration.security))
        }
        self.endpoints = endpoints
        queues = (0..<2).map { _ in
            SubmissionQueue(
                countLimit: configuration.waitingMax, byteLimit: configuration.waitingBytesMax, size: { $0.bytes })
        }
    }

    /// Whom answers go to; nil before the start and after the end.
    var sink: (any StorageSink)? {
        get { state.withLock { $0.sink } }
        set { state.withLock { $0.sink = newValue } }
    }

    func attach(_ reactors: [Reactor]) { state.withLock { $0.reactors = reactors } }

    /// Puts requests in line; those that found no room are answered at once, with nothing done.
    func submit(_ requests: [RegionRequest], to index: Int) { refuse(offer(requests, to: index), index) }

    /// Puts requests in line, and gives those that found no room: see ``refuse(_:_:)``.
    func offer(_ requests: [RegionRequest], to index: Int) -> [RegionRequest] {
        outstanding.add(requests.count, ordering: .relaxed)
        let rest = queues[index].offer(requests)
        if rest.count < requests.count { wake(index) }
        return rest
    }

    /// Sends writes home, or holds them back until the node may write their keys; and those that were held back.
    func pass(_ writes: [FencedWrite]) {
        guard let fence else {
            return submit(
                writes.map {
                    RegionRequest(
                        token: $0.submitted.token, question: .write($0.submitted.write),
                        sinceNanoseconds: $0.sinceNanoseconds)
                }, to: Self.writesIndex)
        }
        let decision = fence.pass(writes) { offer($0, to: Self.writesIndex) }
        refuse(decision.unsent, Self.writesIndex)
        guard !decision.refused.isEmpty else { return }
        counters.add(.writesFailed, UInt64(decision.refused.count))
        sink?.writesCompleted(decision.refused)
    }

    /// Answers requests that found no room.
    func refuse(_ rest: [RegionRequest], _ index: Int) {
        guard !rest.isEmpty else { return }
        counters.add(.refused, UInt64(rest.count))
        answer(rest, index, .notSent, queues[index].isClosed ? "the node is stopping" : "too many wait for storage")
    }

    /// Answers requests that were not done.
    func answer(_ requests: [RegionRequest], _ index: Int, _ kind: StorageFailure.Kind, _ reason: String) {
        let failure = StorageFailure(kind, reason)
        if index == Self.readsIndex {
            counters.add(.readsFailed, UInt64(requests.count))
            deliver(reads: requests.map { ($0.token, .failed(failure)) })
        } else {
            counters.add(.writesFailed, UInt64(requests.count))
            deliver(writes: requests.map { ($0.token, .failed(failure)) })
        }
    }

    func deliver(reads: [(token: UInt64, outcome: ReadOutcome)]) {
        guard !reads.isEmpty else { return }
        sink?.readsCompleted(reads)
        outstanding.subtract(reads.count, ordering: .relaxed)
    }

    func deliver(writes: [(token: UInt64, outcome: WriteOutcome)]) {
        guard !writes.isEmpty else { return }
        let (results, unknown) = fence?.judge(writes) ?? (writes, 0)
        sink?.writesCompleted(results)
        if unknown > 0 {
            counters.add(.writesDisowned, UInt64(unknown))
            // They were done, so a read shows them.
            sink?.unknownOutcomesSettled()
        }
        outstanding.subtract(writes.count, ordering: .relaxed)
    }

    private func wake(_ index: Int) {
        guard !woken[index].isSet.exchange(true, ordering: .acquiringAndReleasing) else { return }
        let reactor = state.withLock { $0.reactors.indices.contains(index) ? $0.reactors[index] : nil }
        reactor?.post(ReactorMessage(kind: 0))
    }

    /// A reactor looks: what comes from now on wakes it again.
    func noteAwake(_ index: Int) { woken[index].isSet.store(false, ordering: .releasing) }

    // MARK: Health

    func connectionOpened() {
        counters.add(.connectionsMade)
        state.withLock { state in
            state.connections += 1
            state.reason = ""
        }
    }

    /// A connection that stood is gone; with a reason where that was not its peer's good right.
    func connectionClosed(_ reason: String?) {
        if reason != nil { counters.add(.connectionsLost) }
        state.withLock { state in
            state.connections -= 1
            if let reason { state.reason = reason }
        }
    }

    func connectionFailed(_ reason: String) {
        counters.add(.connectionsLost)
        state.withLock { $0.reason = reason }
    }

    var connections: Int { state.withLock { $0.connections } }

    var health: StorageHealth {
        state.withLock { state in
            state.connections > 0 || state.reason.isEmpty ? .ready : .unavailable(state.reason)
        }
    }

    // MARK: Names

    /// Looks names up, at first and whenever one is doubtful, until the end. Blocks on DNS.
    func lookUp() {
        while !isStopping.load(ordering: .acquiring) {
            let ticket = lookups.ticket
            for endpoint in endpoints where endpoint.isDoubtful.exchange(false, ordering: .acquiringAndReleasing) {
                endpoint.lookUp()
            }
            hasLookedUp.store(true, ordering: .releasing)
            firstLookup.announce()
            // Names that lead nowhere are not asked for more than once a second.
            lookups.wait(ticket, timeoutNanoseconds: 60_000_000_000)
            if isStopping.load(ordering: .acquiring) { return }
            firstLookup.wait(firstLookup.ticket, timeoutNanoseconds: 1_000_000_000)
        }
    }

    /// An endpoint does not answer: perhaps its name leads elsewhere now. Does not block.
    func lookUpAgain(_ endpoint: RegionEndpoint) {
        endpoint.isDoubtful.store(true, ordering: .releasing)
        lookups.announce()
    }

    /// Waits until all names were looked up once, or the time is over.
    func awaitFirstLookup() {
        let end = Clock.monotonicNanoseconds() &+ UInt64(configuration.lookupMilliseconds) * 1_000_000
        while true {
            let ticket = firstLookup.ticket
            let now = Clock.monotonicNanoseconds()
            if hasLookedUp.load(ordering: .acquiring) || now >= end { return }
            firstLookup.wait(ticket, timeoutNanoseconds: end - now)
        }
    }

    /// Lets nothing in any more, and ends the looking up.
    func beginStop() {
        isStopping.store(true, ordering: .releasing)
        for queue in queues { queue.close() }
        lookups.announce()
        firstLookup.announce()
    }
}

/// How long replies took. Written by one reactor.
final class RegionTimes: Sendable {
    let record = DurationRecord()
}

/// Whether a reactor was woken.
final class RegionFlag: Sendable {
    let isSet = Atomic<Bool>(false)
}
