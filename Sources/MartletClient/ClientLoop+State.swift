// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Synchronization

/// What a loop takes from the client's configuration, in its own units.
struct LoopSettings: Sendable {
    let connection: ConnectionStateMachine.Configuration
    let breaker: CircuitBreaker.Configuration
    let valueLimitBytes: Int
    let linksPerNode: Int
    let pipelineDepth: Int
    let requestsPerNode: Int
    let waitingPerNode: Int
    let isClassic: Bool
    let hedgeQuantile: Double

    init(_ configuration: ClientConfiguration) {
        let backoff = Backoff(firstNanoseconds: 20_000_000, longestNanoseconds: 2_000_000_000)
        let timeout = configuration.timeout.wholeNanoseconds
        connection = ConnectionStateMachine.Configuration(
            connectNanoseconds: configuration.connectTimeout.wholeNanoseconds,
            silenceNanoseconds: min(2 * timeout, 10_000_000_000), backoff: backoff)
        var breaker = CircuitBreaker.Configuration()
        breaker.failuresInRow = configuration.failuresThatOpen
        breaker.openNanoseconds = configuration.openTime.wholeNanoseconds
        breaker.longestOpenNanoseconds = max(breaker.openNanoseconds, 15_000_000_000)
        self.breaker = breaker
        valueLimitBytes = configuration.valueLimitBytes
        linksPerNode = configuration.connectionsPerServer
        pipelineDepth = configuration.pipelineDepth
        requestsPerNode = configuration.requestsPerServer
        waitingPerNode = configuration.waitingCallsPerServer
        isClassic = configuration.wireProtocol == .classic
        hedgeQuantile = configuration.hedgeQuantile
    }
}

/// An attempt that somebody waits for.
struct PendingCall: ~Copyable {
    var isLive = false
    var id: UInt64 = 0
    var request = CacheRequest(operation: .ping, key: "")
    /// The place of its server in the loop's table.
    var node = -1
    var deadline: UInt64 = 0
    /// When it is sent once more; 0 for never.
    var hedgeAt: UInt64 = 0
    var started: UInt64 = 0
    var hedges = false
    /// Whether it decides if its server is back.
    var isProbe = false
    /// Whether it stands in its server's line.
    var isWaiting = false
    var leg: Int32 = -1
    var hedgeLeg: Int32 = -1
    var waiter: CallWaiter?
}

/// A request on its way.
struct Leg {
    var operation = CacheRequest.Operation.ping
    /// Whose it is; -1 when nobody waits any more.
    var call: Int32 = -1
    var link: Int32 = -1
    var next: Int32 = -1
    /// Its number on the connection.
    var sequence: UInt64 = 0
}

/// A connection to a server, or the wish for one.
struct Link: ~Copyable {
    var machine: ConnectionStateMachine
    var node = -1
    /// The connection, as ``ConnectionID/rawValue``.
    var connection = UInt64.max
    /// What goes out when the turn ends.
    var pending = OutputBuffer(capacity: 256)
    /// The legs whose replies are to come.
    var first: Int32 = -1
    var last: Int32 = -1
    /// Requests that were ever given to it, and how many of them went out.
    var sequence: UInt64 = 0
    var flushed: UInt64 = 0
    var isDirty = false
    /// What the server said that was no reply.
    var nonsense: String?

    init(_ configuration: ConnectionStateMachine.Configuration) {
        machine = ConnectionStateMachine(configuration)
    }
}

/// Calls that wait for their turn, in order.
struct WaitingLine {
    private var entries: [(call: Int32, id: UInt64)] = []
    private var head = 0

    mutating func append(_ call: Int, _ id: UInt64) {
        if head > 1_024, head * 2 > entries.count {
            entries.removeFirst(head)
            head = 0
        }
        entries.append((Int32(truncatingIfNeeded: call), id))
    }

    mutating func popFirst() -> (call: Int, id: UInt64)? {
        guard head < entries.count else {
            entries.removeAll(keepingCapacity: true)
            head = 0
            return nil
        }
        defer { head += 1 }
        return (Int(entries[head].call), entries[head].id)
    }
}

/// A server as its loop knows it.
struct NodeState: ~Copyable {
    var node: ServerNode?
    var breaker: CircuitBreaker
    var limit: ConcurrencyLimit
    var readLatency: QuantileEstimate
    var links: [Int] = []
    /// Requests on their way, those included that nobody waits for any more.
    var inFlight = 0
    var line = WaitingLine()
    var waiting = 0
    var isReady = false
    var isLeaving = false

    init(_ settings: LoopSettings) {
        breaker = CircuitBreaker(settings.breaker)
        limit = ConcurrencyLimit(fewest: 8, most: settings.requestsPerNode)
        readLatency = QuantileEstimate(fraction: settings.hedgeQuantile)
    }

    var meter: NodeMeter? { node?.meter }
    var name: String { node?.name ?? "" }
}
