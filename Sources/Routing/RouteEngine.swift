// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The time, as routes look at it.
package struct RouteClock: Sendable {
    /// A monotonic clock. Nanoseconds.
    package let nowNanoseconds: UInt64
    /// The time of day. Seconds since 1970.
    package let unixSeconds: UInt64

    /// A time.
    package init(nowNanoseconds: UInt64, unixSeconds: UInt64) {
        self.nowNanoseconds = nowNanoseconds
        self.unixSeconds = unixSeconds
    }

    var seconds: Double { Double(nowNanoseconds) / 1e9 }
}

/// Expiries as memcached has them: up to 30 days they count from now, beyond they are a Unix time.
extension RouteClock {
    private static var relativeMaximum: Int64 { 30 * 24 * 3600 }

    /// The expiry that says so many seconds from now: every one that a route makes comes from here. 0 is for ever, and
    /// below it expired already. What can only be a Unix time, in configurations of mcrouter's, stays one.
    func exptime(inSeconds seconds: Int64) -> Int64 {
        guard seconds > Self.relativeMaximum else { return seconds }
        let now = Int64(unixSeconds)
        return min(seconds >= now ? seconds : now + seconds, Int64(Int32.max))
    }

    /// How many seconds an expiry leaves: 0 for one that is for ever, below 0 for one that has passed.
    func secondsLeft(of exptime: Int64) -> Int64 {
        guard exptime > Self.relativeMaximum else { return exptime }
        let left = exptime - Int64(unixSeconds)
        return left > 0 ? left : -1
    }

    /// An expiry that is as early as one of so many seconds: the client's own, unless that is later.
    func exptime(_ own: Int64, atMostSeconds limit: Int64) -> Int64 {
        let left = secondsLeft(of: own)
        return left == 0 || left > limit ? exptime(inSeconds: limit) : own
    }
}

/// A request that an outstanding limit held back and now lets go.
package struct RouteTicket: Sendable, Equatable {
    /// The request's identifier.
    package let request: UInt64
    let frame: Int
}

/// What the handles of a plan remember from request to request. One for each thread that routes; not shared.
package final class RouteEngine {
    /// The plan it is for.
    package let plan: RoutePlan

    var random: RouteRandom
    private let start: Double
    private var rates: [Int: Rates] = [:]
    private var failovers: [Int: Failovers] = [:]
    private var outstanding: [Int: Outstanding] = [:]
    private var hits: [Int: Hits] = [:]
    private var countdowns: [Int: Int] = [:]
    var hedging = Hedging()
    private var tickets: [RouteTicket] = []
    private var leases = LeaseMap()
    private var shadowLeases: [UInt64: UInt64] = [:]
    private var shadowOrder: [UInt64] = []

    /// Requests that may wait for one outstanding limit.
    package static var maximumWaiting: Int { 65_536 }
    /// Leases that are remembered at a time.
    package static var maximumLeases: Int { 65_536 }

    private struct Rates {
        var buckets: [RouteOperation.Group: TokenBucket] = [:]
    }

    private struct Failovers {
        var requests = 0.0
        var bucket: TokenBucket?
        var failures: [Int]
    }

    private struct Hits {
        var hits = 0.0
        var misses = 0.0
        var isWarmingUp = false
    }

    private struct Outstanding {
        var active = 0
        var waiting = 0
        /// Senders in turn; those before `head` are through.
        private var turns: [UInt64] = []
        private var head = 0
        private var queues: [UInt64: [RouteTicket]] = [:]
        private var anonymous: UInt64 = 0

        mutating func append(_ ticket: RouteTicket, of sender: UInt64) {
            // Requests without a sender have turns of their own.
            if sender == 0 { anonymous += 1 }
            let owner = sender == 0 ? 1 << 63 | anonymous : sender
            if queues[owner, default: []].isEmpty { turns.append(owner) }
            queues[owner, default: []].append(ticket)
            waiting += 1
        }

        mutating func next() -> RouteTicket? {
            guard head < turns.count else { return nil }
            let owner = turns[head]
            head += 1
            if head > 1024, head * 2 > turns.count {
                turns.removeFirst(head)
                head = 0
            }
            guard var queue = queues.removeValue(forKey: owner), !queue.isEmpty else { return nil }
            let ticket = queue.removeFirst()
            waiting -= 1
            if !queue.isEmpty {
                queues[owner] = queue
                turns.append(owner)
            }
            return ticket
        }
    }

    /// Remembers nothing yet. The same seed and the same requests give the same choices.
    package init(plan: RoutePlan, seed: UInt64, nowNanoseconds: UInt64) {
        self.plan = plan
        random = RouteRandom(seed: seed)
        start = Double(nowNanoseconds) / 1e9
    }

    /// The next request that may go on: its machine's ``RouteMachine/resume(_:engine:clock:actions:)`` is to be called.
    package func nextResumable() -> RouteTicket? { tickets.isEmpty ? nil : tickets.removeFirst() }

    // MARK: Limits

    func mayPass(_ handle: Int, _ limits: RateLimits, _ operation: RouteOperation, _ clock: RouteClock) -> Bool {
        guard let rate = limits.rate(operation) else { return true }
        let fresh = TokenBucket(rate: rate.perSecond, burst: rate.burst, emptyAt: start)
        return rates[handle, default: Rates()].buckets[operation.group, default: fresh].take(now: clock.seconds)
    }

    /// Whether a request may go on now; otherwise it waits, or is refused when too many do.
    enum Admission { case granted, waits, refused }

    func admit(_ handle: Int, limit: Int, sender: UInt64, _ ticket: RouteTicket) -> Admission {
        var state = outstanding[handle] ?? Outstanding()
        defer { outstanding[handle] = state }
        if state.active < limit {
            state.active += 1
            return .granted
        }
        guard state.waiting < Self.maximumWaiting else { return .refused }
        state.append(ticket, of: sender)
        return .waits
    }

    /// A request is through: the next one takes its place.
    func release(_ handle: Int) {
        guard var state = outstanding.removeValue(forKey: handle) else { return }
        if let next = state.next() { tickets.append(next) } else { state.active -= 1 }
        outstanding[handle] = state
    }

    // MARK: Failover

    private func withFailovers<R>(_ handle: Int, _ route: FailoverRoute, _ body: (inout Failovers) -> R) -> R {
        let fresh = Failovers(
            bucket: limit(route).map { TokenBucket(rate: $0.rate, burst: $0.burst, emptyAt: 0, isFull: true) },
            failures: Array(repeating: 0, count: route.children.count))
        return body(&failovers[handle, default: fresh])
    }

    private func limit(_ route: FailoverRoute) -> FailoverLimit? { route.limit ?? plan.defaults.failoverLimit }

    func countRequest(_ handle: Int, _ route: FailoverRoute) {
        guard limit(route) != nil else { return }
        withFailovers(handle, route) { $0.requests += 1 }
    }

    func mayFailOver(_ handle: Int, _ route: FailoverRoute) -> Bool {
        guard limit(route) != nil else { return true }
        return withFailovers(handle, route) { $0.bucket?.take(now: $0.requests) ?? true }
    }

    func note(_ handle: Int, _ route: FailoverRoute, child: Int, failed: Bool) {
        withFailovers(handle, route) { $0.failures[child] = failed ? $0.failures[child] + 1 : 0 }
    }

    /// The children, the first first, the others by how often they failed of late.
    func leastFailing(_ handle: Int, _ route: FailoverRoute) -> [Int] {
        withFailovers(handle, route) { state in
            [0]
                + (1..<route.children.count).sorted {
                    (state.failures[$0], $0) < (state.failures[$1], $1)
                }
        }
    }

    // MARK: Leases

    func remember(lease token: UInt64, of handle: Int, child: Int, _ clock: RouteClock) -> UInt64 {
        leases.insert(LeaseMap.Item(handle: handle, child: child, token: token), now: clock.nowNanoseconds)
    }

    func lease(_ token: UInt64, of handle: Int, _ clock: RouteClock) -> (child: Int, token: UInt64)? {
        leases.take(token, handle: handle, now: clock.nowNanoseconds).map { ($0.child, $0.token) }
    }

    func remember(shadowLease shadow: UInt64, for token: UInt64) {
        if shadowLeases.updateValue(shadow, forKey: token) == nil { shadowOrder.append(token) }
        guard shadowOrder.count > Self.maximumLeases else { return }
        for old in shadowOrder.prefix(Self.maximumLeases / 2) { shadowLeases[old] = nil }
        shadowOrder.removeFirst(Self.maximumLeases / 2)
    }

    func shadowLease(for token: UInt64) -> UInt64? { shadowLeases[token] }

    // MARK: Warming up, and marks of misses

    /// Whether a read goes to a server that may be cold.
    func takesRead(_ handle: Int, _ settings: SlowWarmUp) -> Bool {
        var state = hits[handle] ?? Hits()
        let total = state.hits + state.misses
        let rate = total < Double(settings.minimumRequests) ? 1 : state.hits / total
        state.isWarmingUp = rate < (state.isWarmingUp ? settings.disableThreshold : settings.enableThreshold)
        hits[handle] = state
        return !state.isWarmingUp || random.fraction() <= settings.start + rate * settings.step
    }

    func note(_ handle: Int, _ result: RouteResult) {
        if result.isHit { hits[handle, default: Hits()].hits += 1 }
        if result.isMiss { hits[handle, default: Hits()].misses += 1 }
    }

    /// Whether the period of a mark's reads is over with this one.
    func isRefreshed(_ handle: Int, period: Int) -> Bool {
        let left = countdowns[handle] ?? period
        countdowns[handle] = left <= 1 ? period : left - 1
        return left <= 1
    }
}

/// Which destination a lease came from, by a token of our own: what mcrouter calls lease pairing.
struct LeaseMap: Sendable {
    struct Item: Sendable {
        let handle: Int
        let child: Int
        let token: UInt64
    }

    private var items: [UInt32: (item: Item, expiry: UInt64)] = [:]
    private var order: [UInt32] = []
    private var head = 0
    private var next: UInt32 = 1

    private static var lifetimeNanoseconds: UInt64 { 10_000_000_000 }
    private static var mark: UInt64 { 0x7ace_b00c_0000_0000 }
    private static var markMask: UInt64 { 0xffff_ffff_0000_0000 }

    /// Whether a token looks like one of ours.
    static func isOurs(_ token: UInt64) -> Bool { token & markMask == mark }

    mutating func insert(_ item: Item, now: UInt64) -> UInt64 {
        while head < order.count, items.count >= RouteEngine.maximumLeases || isGone(order[head], now) {
            items[order[head]] = nil
            head += 1
        }
        if head > 1024, head * 2 > order.count {
            order.removeFirst(head)
            head = 0
        }
        let number = next
        next &+= 1
        items[number] = (item, now &+ Self.lifetimeNanoseconds)
        order.append(number)
        return Self.mark | UInt64(number)
    }

    private func isGone(_ number: UInt32, _ now: UInt64) -> Bool {
        guard let entry = items[number] else { return true }
        return entry.expiry <= now
    }

    mutating func take(_ token: UInt64, handle: Int, now: UInt64) -> Item? {
        let number = UInt32(truncatingIfNeeded: token)
        guard Self.isOurs(token), let entry = items[number], entry.item.handle == handle, entry.expiry > now else {
            return nil
        }
        items[number] = nil
        return entry.item
    }
}
