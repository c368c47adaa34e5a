// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Synchronization
internal import Telemetry

/// What is counted of a whole client.
enum ClientCounter: Int, CaseIterable {
    case calls, hits, misses, retries, retriesRefused, hedges, hedgeWins, timeouts, busy, failures, circuitOpenings
    case connects, connectionsLost, computed, sharedComputations, staleTaken, leaseRests
}

/// What the parts of a client share.
final class ClientShared: Sendable {
    let configuration: ClientConfiguration
    let queues: [CallQueue]
    let flights: FlightDesk
    let budget: Guarded<RetryBudget>
    let hedgeBudget: Guarded<RetryBudget>
    let topology = Guarded<Topology?>(nil)
    /// By loop: how long calls took.
    let latencies: [NodeLatency]
    /// The configuration's times, worked out once.
    let timeoutNanoseconds: UInt64
    let attemptNanoseconds: UInt64
    /// Names attempts, and callers of flights.
    let nextID = Atomic<UInt64>(1)
    let isShutDown = Atomic<Bool>(false)
    private let cells: FixedArray<Atomic<UInt64>>
    private let starting = Guarded(Starting())

    private struct Starting {
        var reason = "nobody was asked yet"
        var waiting: [CheckedContinuation<Void, Never>] = []
        var isOver = false
    }

    init(_ configuration: ClientConfiguration) {
        self.configuration = configuration
        timeoutNanoseconds = configuration.timeout.wholeNanoseconds
        attemptNanoseconds = configuration.attemptTimeout.wholeNanoseconds
        queues = (0..<configuration.threads).map { _ in CallQueue() }
        latencies = (0..<configuration.threads).map { _ in NodeLatency() }
        flights = FlightDesk(followerLimit: configuration.waitingCallersPerKey)
        let now = Clock.monotonicNanoseconds()
        budget = Guarded(
            RetryBudget(
                share: configuration.retryShare, perSecond: configuration.retriesPerSecond, burst: 100,
                nowNanoseconds: now))
        hedgeBudget = Guarded(
            RetryBudget(share: configuration.hedgeShare, perSecond: 0, burst: 20, nowNanoseconds: now))
        cells = FixedArray(count: ClientCounter.allCases.count) { _ in Atomic<UInt64>(0) }
    }

    func count(_ counter: ClientCounter, _ amount: UInt64 = 1) {
        cells[counter.rawValue].add(amount, ordering: .relaxed)
    }

    func value(of counter: ClientCounter) -> UInt64 { cells[counter.rawValue].load(ordering: .relaxed) }

    func makeID() -> UInt64 { nextID.add(1, ordering: .relaxed).oldValue }

    /// These servers count from now on.
    func publish(_ topology: Topology) {
        self.topology.withLock { $0 = topology }
        endStart()
    }

    /// Why no servers are known.
    func noteNoServers(_ reason: String) { starting.withLock { $0.reason = reason } }

    var noServersReason: String { starting.withLock { $0.reason } }

    /// Whoever waits for the first servers waits no longer.
    func endStart() {
        let waiting = starting.withLock { starting in
            starting.isOver = true
            defer { starting.waiting = [] }
            return starting.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// Returns when servers are known, or the start was given up.
    func awaitStart() async {
        await withCheckedContinuation { continuation in
            let isOver = starting.withLock { starting in
                if !starting.isOver { starting.waiting.append(continuation) }
                return starting.isOver
            }
            if isOver { continuation.resume() }
        }
    }
}

/// How long calls of one loop took.
final class NodeLatency: Sendable {
    let histogram = LatencyHistogram()
}
