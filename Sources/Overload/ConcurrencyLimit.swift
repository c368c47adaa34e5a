// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How many requests may be with a server at once, learnt from how long they take. Pure: time is given.
///
/// The least latency of a window says how long the server's queue was at its shortest; what it is above the least that
/// was seen lately is a standing queue. Where that is longer than the target, the limit becomes what the server did in
/// the window times what a request may take (Little's law), and grows again by its square root while the queue is
/// short. Where fewer requests take as long as more did, and at the lowest limit, nothing queues: the server is slower
/// now.
///
/// Source: Brakmo and Peterson, "TCP Vegas", 1995; Netflix/concurrency-limits; Nichols and Jacobson, "Controlling
/// Queue Delay", 2012, for the minimum rather than a mean.
@usableFromInline
package struct ConcurrencyLimit: Sendable {
    /// What a limit goes by.
    package struct Configuration: Sendable, Equatable {
        /// The queue that is left alone, in nanoseconds; 0 switches the limit off.
        package var targetNanoseconds: UInt64 = 5_000_000
        /// The limit at most, which is where it begins.
        package var most = 16_384
        /// The limit at least.
        package var fewest = 4
        /// How long a window lasts at least, in nanoseconds.
        package var windowNanoseconds: UInt64 = 20_000_000
        /// How many answers a window has at least.
        package var fewestSamples = 8
        /// Windows in a row with a standing queue, until there is a limit.
        package var entryWindows = 3
        /// Windows at the least limit with a standing queue, until the server is taken to be slower than it was.
        package var floorWindows = 5
        /// After what time the least latency is forgotten unless it was seen again, in nanoseconds.
        package var memoryNanoseconds: UInt64 = 10_000_000_000

        /// The defaults.
        package init() {}
    }

    private static let steepestCut = 0.7
    private static let fewer = 0.6
    private static let asLong = 0.85

    private let configuration: Configuration
    private var limit: Double
    /// The least latency lately, and that of the current stretch of ``Configuration/memoryNanoseconds``.
    private var base = UInt64.max
    private var nextBase = UInt64.max
    private var baseEnd: UInt64 = 0
    private var windowStart: UInt64 = 0
    private var least = UInt64.max
    private var samples = 0
    private var peak = 0
    private var windowsOver = 0
    private var windowsAtFloor = 0
    /// What was in flight, and what it took at least, when a queue was first cut; 0 while there is none. From when on
    /// what is answered was sent after that.
    private var cutPeak = 0
    private var cutLatency: UInt64 = 0
    private var cutSettled: UInt64 = 0

    /// No limit yet.
    package init(_ configuration: Configuration = Configuration()) {
        self.configuration = configuration
        limit = Double(configuration.most)
        value = configuration.most
    }

    /// How many requests may be with the server.
    @usableFromInline package private(set) var value: Int
    /// Whether that is less than the limit at most.
    package var isLimiting: Bool { value < configuration.most }

    /// A request was answered, and not refused, `latency` nanoseconds after it was sent; `inFlight` were with the
    /// server then, this one included.
    @inline(__always)
    package mutating func answered(latency: UInt64, inFlight: Int, now: UInt64) {
        samples &+= 1
        if latency < least { least = latency }
        if inFlight > peak { peak = inFlight }
        if now &- windowStart >= configuration.windowNanoseconds { endWindow(now) }
    }

    private mutating func endWindow(_ now: UInt64) {
        guard configuration.targetNanoseconds > 0 else { return }
        guard samples >= configuration.fewestSamples else {
            // Of long ago: says nothing of now.
            if now &- windowStart > 50 * configuration.windowNanoseconds { beginWindow(now) }
            return
        }
        remember(now)
        let delay = least &- base
        if delay > configuration.targetNanoseconds {
            windowsOver += 1
            if isLimiting || windowsOver >= configuration.entryWindows { cut(now) }
        } else {
            windowsOver = 0
            windowsAtFloor = 0
            cutPeak = 0
            // A limit that is not used says nothing of whether it is too small.
            if isLimiting, 2 * delay <= configuration.targetNanoseconds, 2 * peak >= value {
                limit += limit.squareRoot()
            }
        }
        limit = min(max(limit, Double(configuration.fewest)), Double(configuration.most))
        value = Int(limit)
        beginWindow(now)
    }

    private mutating func cut(_ now: UInt64) {
        if value <= configuration.fewest { windowsAtFloor += 1 }
        // A queue takes less time with fewer requests in it; what takes as long all the same is a slower server.
        let isSlower =
            cutPeak > 0 && windowStart >= cutSettled && Double(peak) <= Self.fewer * Double(cutPeak)
            && Double(least) >= Self.asLong * Double(cutLatency)
        guard !isSlower, windowsAtFloor < configuration.floorWindows else {
            (base, nextBase) = (least, least)
            if isSlower { limit = max(limit, Double(cutPeak)) }
            windowsAtFloor = 0
            windowsOver = 0
            cutPeak = 0
            return
        }
        let held = min(limit, Double(peak))
        let rate = Double(samples) / Double(now &- windowStart)
        if cutPeak == 0 {
            (cutPeak, cutLatency) = (peak, least)
            // What is in flight has to be answered first.
            cutSettled = now &+ max(2 &* least, UInt64(1.5 * Double(peak) / rate))
        }
        limit = max(rate * Double(base &+ configuration.targetNanoseconds), Self.steepestCut * held)
        limit = min(limit, held)
    }

    /// Learns what a request takes without a queue.
    private mutating func remember(_ now: UInt64) {
        nextBase = min(nextBase, least)
        if least < base { base = least }
        // While there is a limit, or a queue, the shortest is no measure of the server.
        if isLimiting || windowsOver > 0 { baseEnd = now &+ configuration.memoryNanoseconds }
        guard now >= baseEnd else { return }
        if baseEnd > 0 { base = nextBase }
        nextBase = .max
        baseEnd = now &+ configuration.memoryNanoseconds
    }

    private mutating func beginWindow(_ now: UInt64) {
        windowStart = now
        least = .max
        samples = 0
        peak = 0
    }
}
