// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which servers a ``MartletClient`` speaks to, and how. The defaults are safe: every call ends within a second, a
/// server that fails is left alone, retries are few.
public struct ClientConfiguration: Sendable {
    /// Where the servers are.
    public enum Servers: Sendable, Equatable {
        /// These: `host:port`, `host` (port 11211), `[::1]:port`, or the path of a unix socket, beginning with a slash.
        case fixed([String])
        /// The members that one server of the cluster names: `config get cluster`, asked at `host:port` again and
        /// again.
        case cluster(String)
        /// What discovery finds: `dns+HOST:PORT`, `dnssrv+NAME`, `dnssrvnoa+NAME`, `file:PATH`,
        /// `etcd://HOST:PORT/PREFIX` or `k8s:///NAMESPACE/SERVICE`; see docs/discovery.md.
        case discovered(String)
    }

    /// How keys are spread over the servers.
    public enum Placement: String, Sendable, CaseIterable {
        /// Martlet's own hash, which martlet-router has by default.
        case martlet
        /// libmemcached's weighted ketama: what most clients mean by ketama.
        case ketama
        /// twemproxy's ketama with its ordinary hash.
        case twemproxy
        /// pymemcache's rendezvous hash.
        case rendezvous
        /// libmemcached's modula.
        case modulo
        /// Every server can answer for every key: routers. The less busy of two is asked, and another one after a
        /// failure.
        case any
    }

    /// The protocol that is spoken. Leases, invalidation and counters that begin need the meta protocol.
    public enum WireProtocol: Sendable {
        /// memcached's meta commands (1.6 and later).
        case meta
        /// The classic text protocol.
        case classic
    }

    /// How the servers are spoken to over TLS.
    public struct TLS: Sendable, Equatable {
        /// Authorities that the servers' certificates must come from, a PEM file; the system's when nil.
        public var authorityPath: String?
        /// Our certificate, and those between it and its authority, a PEM file.
        public var certificatePath: String?
        /// Our private key, a PEM file; nil when it is in the certificate's.
        public var keyPath: String?
        /// The name that the servers' certificates must have; each server's own when nil.
        public var serverName: String?
        /// Whether certificates are checked.
        public var verifiesPeer = true

        /// The system's authorities, and no certificate of our own.
        public init() {}
    }

    /// Where the servers are.
    public var servers: Servers
    /// How keys are spread over them.
    public var placement = Placement.martlet
    /// The protocol that is spoken.
    public var wireProtocol = WireProtocol.meta
    /// TLS; nil for none.
    public var tls: TLS?

    /// How long a call takes at most, with all its attempts. 1 millisecond to 1 hour.
    public var timeout = Duration.seconds(1)
    /// How long one attempt of an operation that may be tried again takes at most.
    public var attemptTimeout = Duration.milliseconds(400)
    /// How long making a connection takes at most.
    public var connectTimeout = Duration.milliseconds(400)
    /// How often a call is tried again at most: only what surely was not executed, or may be executed twice (reads,
    /// touch, delete). 0 to 16.
    public var retries = 2
    /// The wait before a retry: between half the first and the longest, doubled each time, with jitter.
    public var retryWait = Duration.milliseconds(4)
    /// The longest wait before a retry.
    public var longestRetryWait = Duration.milliseconds(100)
    /// Retries as a part of first attempts, in all that the client does. 0 to 1.
    public var retryShare = 0.1
    /// Retries a second that are allowed beside that part.
    public var retriesPerSecond = 5.0
    /// Whether a read that takes longer than nearly all others is sent once more, on another connection; the first
    /// reply counts.
    public var hedgesReads = false
    /// The quantile of the reads' own latencies after which one is hedged. 0.5 to 0.999.
    public var hedgeQuantile = 0.98
    /// Hedges as a part of reads. 0 to 1.
    public var hedgeShare = 0.05

    /// Connections to a server at most; a second one is made when the first has many requests under way. 1 to 64.
    public var connectionsPerServer = 2
    /// Requests under way on a connection before another is used.
    public var pipelineDepth = 256
    /// Requests that are with a server at once at most; fewer after it was too slow. 1 to 65,536.
    public var requestsPerServer = 1_024
    /// Calls that wait for their turn with a server; more fail at once. 0 to 1,000,000.
    public var waitingCallsPerServer = 65_536
    /// Failures in a row that open a server's circuit.
    public var failuresThatOpen = 8
    /// How long a circuit stays open at first; twice as long each time, up to 15 seconds.
    public var openTime = Duration.milliseconds(500)
    /// The longest value that is sent or taken. Bytes.
    public var valueLimitBytes = 64 << 20
    /// Threads that do the client's input and output. 1 to 64; one does several hundred thousand requests a second.
    public var threads = 1
    /// How often a cluster is asked for its members.
    public var refreshInterval = Duration.seconds(30)
    /// Callers of ``MartletClient/getOrCompute(_:ttl:lease:options:_:)`` that wait for one key within the process.
    public var waitingCallersPerKey = 100_000

    /// The ordinary settings for these servers.
    public init(_ servers: Servers) { self.servers = servers }

    /// The ordinary settings for these servers; see ``Servers/fixed(_:)``.
    public init(servers: [String]) { self.init(.fixed(servers)) }

    /// What is wrong with the settings; nil when nothing is.
    var problem: String? {
        func outside(_ name: String, _ value: Int, _ range: ClosedRange<Int>) -> String? {
            range.contains(value)
                ? nil : "\(name) is \(value): allowed is \(range.lowerBound) to \(range.upperBound)"
        }
        func share(_ name: String, _ value: Double, _ range: ClosedRange<Double>) -> String? {
            range.contains(value)
                ? nil : "\(name) is \(value): allowed is \(range.lowerBound) to \(range.upperBound)"
        }
        func outside(_ name: String, _ value: Duration) -> String? {
            value >= .milliseconds(1) && value <= .seconds(3_600)
                ? nil : "\(name) is \(value): allowed is 1 millisecond to 1 hour"
        }
        let problems = [
            outside("timeout", timeout), outside("attemptTimeout", attemptTimeout),
            outside("connectTimeout", connectTimeout), outside("openTime", openTime),
            outside("refreshInterval", refreshInterval), outside("retries", retries, 0...16),
            share("retryShare", retryShare, 0...1), share("retriesPerSecond", retriesPerSecond, 0...1e6),
            share("hedgeShare", hedgeShare, 0...1), share("hedgeQuantile", hedgeQuantile, 0.5...0.999),
            outside("connectionsPerServer", connectionsPerServer, 1...64),
            outside("pipelineDepth", pipelineDepth, 1...65_536),
            outside("requestsPerServer", requestsPerServer, 1...65_536),
            outside("waitingCallsPerServer", waitingCallsPerServer, 0...1_000_000),
            outside("failuresThatOpen", failuresThatOpen, 1...1_000),
            outside("valueLimitBytes", valueLimitBytes, 1...(1 << 30)), outside("threads", threads, 1...64),
            outside("waitingCallersPerKey", waitingCallersPerKey, 0...10_000_000),
        ]
        return problems.lazy.compactMap { $0 }.first
    }
}

/// How ``MartletClient/getOrCompute(_:ttl:lease:options:_:)`` shares the work.
public struct LeaseOptions: Sendable {
    /// For how long the cache keeps others from computing the key. 1 second to 1 hour; whole seconds.
    public var duration = Duration.seconds(10)
    /// How long somebody else's computation is waited for before the caller computes for itself.
    public var patience = Duration.seconds(5)
    /// Whether a stale value is taken while somebody renews it.
    public var takesStale = true
    /// A value whose time to live is shorter than this is renewed by the first who reads it, while others go on taking
    /// it; nil for not. Whole seconds.
    public var renewsBefore: Duration?

    /// The ordinary ones.
    public init() {}
}

extension Duration {
    /// Nanoseconds, none of a negative duration.
    var wholeNanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        return UInt64(min(seconds, 1 << 33)) * 1_000_000_000 + UInt64(attoseconds) / 1_000_000_000
    }

    /// Seconds, a part of one counted as a whole one; negative below 0.
    var roundedUpSeconds: Int64 {
        let (seconds, attoseconds) = components
        return attoseconds > 0 ? seconds + 1 : seconds
    }
}
