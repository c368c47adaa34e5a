// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a thread knows of reads that may be asked twice: how long destinations take, how many were asked twice, and
/// whether servers have too much to do. Pure.
struct Hedging: Sendable {
    /// By handle and destination.
    private var latencies: [Place: LatencyQuantile] = [:]
    /// By handle: how many reads there were, and how many may be asked twice.
    private var budgets: [Int: Budget] = [:]
    /// When a server last said that it is busy; 0 for never.
    var lastBusy: UInt64 = 0
    /// Reads that would have been asked twice and were not.
    var withheld: UInt64 = 0

    /// After an answer that says busy, how long nothing is asked twice.
    static var calmNanoseconds: UInt64 { 1_000_000_000 }

    private struct Place: Hashable {
        let handle: Int
        let destination: Int
    }

    private struct Budget {
        var requests = 0.0
        var bucket: TokenBucket
    }

    /// Takes in how long a request took.
    mutating func note(_ handle: Int, _ destination: Int, quantile: Double, nanoseconds: UInt64) {
        latencies[Place(handle: handle, destination: destination), default: LatencyQuantile(quantile)].add(
            nanoseconds: nanoseconds)
    }

    /// Counts a read; how long it may take until it is asked a second time, or nil when that is not known yet.
    mutating func delay(_ handle: Int, _ destination: Int, _ route: HedgeRoute) -> UInt64? {
        budgets[handle, default: Self.budget(route)].requests += 1
        guard let usual = latencies[Place(handle: handle, destination: destination)]?.nanoseconds else { return nil }
        return max(usual, UInt64(route.minimumMilliseconds) * 1_000_000)
    }

    /// Whether a read may be asked a second time now, which is counted then.
    mutating func take(_ handle: Int, _ route: HedgeRoute, now: UInt64) -> Bool {
        let isCalm = lastBusy == 0 || now &- lastBusy >= Self.calmNanoseconds
        let requests = budgets[handle]?.requests ?? 0
        if isCalm, budgets[handle, default: Self.budget(route)].bucket.take(now: requests) { return true }
        withheld += 1
        return false
    }

    private static func budget(_ route: HedgeRoute) -> Budget {
        Budget(bucket: TokenBucket(rate: route.limit.rate, burst: route.limit.burst, emptyAt: 0, isFull: true))
    }
}

extension RouteEngine {
    /// A server said that it has too much to do: for a while no read is asked twice.
    package func noteBusy(nowNanoseconds now: UInt64) { hedging.lastBusy = now }

    /// Whether a server said so a moment ago.
    package func isBusy(nowNanoseconds now: UInt64) -> Bool {
        hedging.lastBusy > 0 && now &- hedging.lastBusy < Hedging.calmNanoseconds
    }

    /// How many reads were not asked twice, because servers are busy or too many were, since this was last asked.
    package func takeWithheldHedges() -> UInt64 {
        defer { hedging.withheld = 0 }
        return hedging.withheld
    }
}
