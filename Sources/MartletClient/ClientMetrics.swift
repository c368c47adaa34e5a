// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization
internal import Telemetry

/// What a client has done so far, at one moment. Counts only grow.
public struct ClientMetrics: Sendable {
    /// A server's part.
    public struct Server: Sendable {
        /// As it was given or found.
        public var name: String
        /// Attempts that ended, with a reply or without.
        public var requests: UInt64
        /// Attempts that ran out of time, and connections that broke or did not come to stand.
        public var failures: UInt64
        /// Connections that were made, and those that are open.
        public var connects: UInt64
        /// Connections that are open now.
        public var connections: Int
        /// Requests on their way now.
        public var inFlight: Int
        /// Whether it is left alone for a while, because it failed too often.
        public var isCircuitOpen: Bool
    }

    /// Calls, retries not counted.
    public var calls: UInt64
    /// Reads that found a value, and those that found none.
    public var hits: UInt64
    /// Reads that found no value.
    public var misses: UInt64
    /// Attempts beyond the first of a call.
    public var retries: UInt64
    /// Retries that the budget did not allow.
    public var retriesRefused: UInt64
    /// Reads that were sent a second time while the first was under way, and how often the second was first.
    public var hedges: UInt64
    /// Hedges whose reply came first.
    public var hedgeWins: UInt64
    /// Attempts that ran out of time.
    public var timeouts: UInt64
    /// Refusals of servers that shed load.
    public var busy: UInt64
    /// What is a failure of a server: timeouts and connections that broke or did not come to stand.
    public var failures: UInt64
    /// How often a server's circuit opened.
    public var circuitOpenings: UInt64
    /// Connections that were made.
    public var connects: UInt64
    /// Open connections that broke.
    public var connectionsLost: UInt64
    /// Computations of ``MartletClient/getOrCompute(_:ttl:lease:options:_:)``.
    public var computed: UInt64
    /// Callers that got the value of another's read or computation.
    public var sharedComputations: UInt64
    /// Stale values that were taken while somebody else renewed them.
    public var staleTaken: UInt64
    /// By server.
    public var servers: [Server]
    /// How many attempts with a reply took up to each bound: seconds, the last one infinite. Not cumulative.
    public var latencies: [(upToSeconds: Double, count: UInt64)]

    /// The bound in seconds under which at least `fraction` (0 to 1) of the attempts with a reply stayed; nil without
    /// any. Bounds are powers of two times 50 µs.
    public func latency(fraction: Double) -> Double? {
        let all = latencies.reduce(0) { $0 + $1.count }
        guard all > 0 else { return nil }
        var seen: UInt64 = 0
        for (bound, count) in latencies {
            seen += count
            if Double(seen) >= fraction * Double(all) { return bound }
        }
        return nil
    }

    /// The metrics in Prometheus's text format, their names beginning with `prefix`.
    public func prometheusText(prefix: String = "martlet_client") -> String {
        var text = ""
        func add(_ name: String, _ value: UInt64) {
            text += "# TYPE \(prefix)_\(name) counter\n\(prefix)_\(name) \(value)\n"
        }
        let counters: [(String, UInt64)] = [
            ("calls_total", calls), ("hits_total", hits), ("misses_total", misses), ("retries_total", retries),
            ("retries_refused_total", retriesRefused), ("hedges_total", hedges), ("hedge_wins_total", hedgeWins),
            ("timeouts_total", timeouts), ("busy_total", busy), ("failures_total", failures),
            ("circuit_openings_total", circuitOpenings), ("connects_total", connects),
            ("connections_lost_total", connectionsLost), ("computed_total", computed),
            ("shared_computations_total", sharedComputations), ("stale_taken_total", staleTaken),
        ]
        for (name, value) in counters { add(name, value) }
        text += "# TYPE \(prefix)_latency_seconds histogram\n"
        var sum: UInt64 = 0
        for (bound, count) in latencies {
            sum += count
            text += "\(prefix)_latency_seconds_bucket{le=\"\(bound.isFinite ? "\(bound)" : "+Inf")\"} \(sum)\n"
        }
        text += "\(prefix)_latency_seconds_count \(sum)\n"
        text += "# TYPE \(prefix)_server_in_flight gauge\n"
        for server in servers {
            text += "\(prefix)_server_in_flight{server=\"\(server.name)\"} \(server.inFlight)\n"
        }
        text += "# TYPE \(prefix)_server_circuit_open gauge\n"
        for server in servers {
            text += "\(prefix)_server_circuit_open{server=\"\(server.name)\"} \(server.isCircuitOpen ? 1 : 0)\n"
        }
        return text
    }
}

extension MartletClient {
    /// What the client has done so far. Takes a few microseconds.
    public var metrics: ClientMetrics {
        func value(_ counter: ClientCounter) -> UInt64 { shared.value(of: counter) }
        var histogram = HistogramSnapshot()
        for latency in shared.latencies { histogram.add(latency.histogram) }
        let latencies = histogram.counts.enumerated().map { index, count in
            let isLast = index == histogram.counts.count - 1
            return (isLast ? Double.infinity : Double(LatencyHistogram.boundNanoseconds(index)) / 1e9, count)
        }
        let nodes = shared.topology.withLock { $0 }?.nodes ?? []
        let servers = nodes.map { node in
            ClientMetrics.Server(
                name: node.name, requests: node.meter.requests.load(ordering: .relaxed),
                failures: node.meter.failures.load(ordering: .relaxed),
                connects: node.meter.connects.load(ordering: .relaxed),
                connections: node.meter.connections.load(ordering: .relaxed),
                inFlight: node.meter.inFlight.load(ordering: .relaxed),
                isCircuitOpen: node.meter.isOpen.load(ordering: .relaxed))
        }
        return ClientMetrics(
            calls: value(.calls), hits: value(.hits), misses: value(.misses), retries: value(.retries),
            retriesRefused: value(.retriesRefused), hedges: value(.hedges), hedgeWins: value(.hedgeWins),
            timeouts: value(.timeouts), busy: value(.busy), failures: value(.failures),
            circuitOpenings: value(.circuitOpenings), connects: value(.connects),
            connectionsLost: value(.connectionsLost), computed: value(.computed),
            sharedComputations: value(.sharedComputations), staleTaken: value(.staleTaken), servers: servers,
            latencies: latencies)
    }
}
