// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What one sender knows of how much a server can take: how many requests may be with it, and which are not worth
/// sending. Pure: time is given. Allocates nothing.
///
/// What is looked at for each request is inlined: a getter of another module is called with a copy of all of this.
@usableFromInline
package struct BackendGuard: Sendable {
    /// How a server is spared.
    package struct Configuration: Sendable, Equatable {
        /// The limit of requests with a server.
        package var limit = ConcurrencyLimit.Configuration()
        /// How long a request may wait for its turn, in nanoseconds; 0 is half of what it may take.
        package var waitNanoseconds: UInt64 = 0
        /// Requests that may wait.
        package var waiting = 4096
        /// Whether requests are refused that the server would probably refuse.
        package var throttles = true

        /// The defaults.
        package init() {}
    }

    @usableFromInline let throttles: Bool
    @usableFromInline var limit: ConcurrencyLimit
    @usableFromInline var throttle: AcceptThrottle
    /// When the server last had too much to do, in monotonic nanoseconds; 0 for never.
    package private(set) var lastBusy: UInt64 = 0

    /// Knows nothing yet.
    package init(_ configuration: Configuration = Configuration(), seed: UInt64 = 1) {
        throttles = configuration.throttles
        limit = ConcurrencyLimit(configuration.limit)
        throttle = AcceptThrottle(seed: seed)
    }

    /// How many requests may be with the server.
    @inlinable package var inFlightLimit: Int { @inline(__always) get { limit.value } }
    /// Whether that is less than it may be at most.
    package var isLimiting: Bool { limit.isLimiting }

    /// The part of a class that is refused now.
    package func refusedPart(_ requestClass: RequestClass) -> Double {
        throttles ? throttle.refusedPart(requestClass) : 0
    }

    /// Whether requests are being refused: then it matters whose they are.
    @inlinable package var isThrottling: Bool { @inline(__always) get { throttles && throttle.isActive } }

    /// Whether a request is worth sending. Of tenants that are told apart, those who ask for the most are refused
    /// first; see ``AcceptThrottle``.
    package mutating func admits(_ requestClass: RequestClass, tenant: UInt64 = 0, now: UInt64) -> Bool {
        !isThrottling || throttle.admits(requestClass, tenant: tenant, now: now)
    }

    /// The server answered a request that was sent `latency` nanoseconds ago, while `inFlight` were with it. An answer
    /// that is late shows how the server is, but it took too long to count as one.
    @inline(__always)
    package mutating func answered(
        _ requestClass: RequestClass, latency: UInt64, inFlight: Int, isLate: Bool = false, now: UInt64
    ) {
        if !isLate { throttle.accepted(requestClass, now: now) }
        limit.answered(latency: latency, inFlight: inFlight, now: now)
    }

    /// The server said that it is too busy. How long that took says nothing of its queue.
    package mutating func refused(_ requestClass: RequestClass, now: UInt64) {
        throttle.refused(requestClass, now: now)
        lastBusy = now
    }

    /// The server did not answer in time.
    package mutating func timedOut(_ requestClass: RequestClass, now: UInt64) { refused(requestClass, now: now) }

    /// A request found no room with the server in time.
    package mutating func waitedInVain(now: UInt64) { lastBusy = now }
}
