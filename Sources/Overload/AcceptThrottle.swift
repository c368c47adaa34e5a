// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which requests are refused before they are sent, because the server refuses most of their class. Pure: time is
/// given, and chance comes from a seed.
///
/// A server spends something on each request that it refuses. Once it takes less than half of what is asked of it, the
/// rest is refused where it would be sent, with a probability of (requests − 2 × accepted) / (requests + 1): it then
/// gets about twice what it takes. Classes count by themselves, so what a server takes of each is what it is sent.
///
/// Where tenants are told apart, those who ask for no more than an even part of that are sent whole, and the others are
/// refused instead. It is no less than twice what the server takes: a sender that left it at less would lose to those
/// who do not.
///
/// Source: Beyer et al., "Site Reliability Engineering", chapter 21. Their window is two minutes; this one is about a
/// seventh of a second, since that is thousands of requests here and an end of the overload is to be seen at once.
@usableFromInline
package struct AcceptThrottle: Sendable {
    private static let factor = 2.0
    private static let mostRefused = 0.9
    private static let fewestRequests = 20.0
    private static let stepNanoseconds: UInt64 = 50_000_000
    private static let decay = 0.7
    private static let classes = 5
    /// Places of tenants in a class: a router has a throttle for each of its servers.
    private static let tenantPlaces = 512

    private struct Counts {
        var requests = 0.0
        var accepted = 0.0
    }

    private var counts = InlineArray<5, Counts>(repeating: Counts())
    /// What tenants ask for, of classes that are refused; nil where there is nobody to tell apart.
    private var shares = InlineArray<5, TenantShares?>(repeating: nil)
    private var nextStep: UInt64 = 0
    private var random: UInt64
    /// Whether any class is being refused.
    @usableFromInline package private(set) var isActive = false

    /// Refuses nothing yet.
    package init(seed: UInt64) { random = seed | 1 }

    /// The part of a class that is refused now, 0 to 0.9.
    package func refusedPart(_ requestClass: RequestClass) -> Double {
        let mine = counts[Int(requestClass.rawValue)]
        guard mine.requests >= Self.fewestRequests else { return 0 }
        let part = (mine.requests - Self.factor * mine.accepted) / (mine.requests + 1)
        return min(max(part, 0), Self.mostRefused)
    }

    /// Whether to send a request of a tenant, whom a hash tells from others; 0 is of nobody. One
    /// that is not sent counts as a request. Invalidations are always sent.
    package mutating func admits(_ requestClass: RequestClass, tenant: UInt64 = 0, now: UInt64) -> Bool {
        guard isActive else { return true }
        if now >= nextStep { step(now) }
        var part = refusedPart(requestClass)
        if tenant != 0, requestClass != .invalidation { part = refusedPart(part, requestClass, tenant) }
        guard requestClass != .invalidation, next() < part else { return true }
        counts[Int(requestClass.rawValue)].requests += 1
        return false
    }

    /// The part of a tenant's requests that is refused where so much of its class is.
    private mutating func refusedPart(_ part: Double, _ requestClass: RequestClass, _ tenant: UInt64) -> Double {
        let index = Int(requestClass.rawValue)
        var mine = shares[index] ?? TenantShares(places: Self.tenantPlaces)
        let place = mine.place(tenant: tenant, requestClass)
        shares[index] = nil
        mine.noteOffered(place, cost: 1)
        defer { shares[index] = mine }
        return part > 0 && mine.share > 0 ? mine.excess(place) : part
    }

    /// The server took a request.
    @inline(__always)
    package mutating func accepted(_ requestClass: RequestClass, now: UInt64) {
        if now >= nextStep { step(now) }
        counts[Int(requestClass.rawValue)].requests += 1
        counts[Int(requestClass.rawValue)].accepted += 1
        if isActive { noteServed(requestClass) }
    }

    @inline(never)
    private mutating func noteServed(_ requestClass: RequestClass) {
        shares[Int(requestClass.rawValue)]?.noteServed(Self.factor)
    }

    /// The server refused a request, or left it unanswered.
    @inline(__always)
    package mutating func refused(_ requestClass: RequestClass, now: UInt64) {
        if now >= nextStep { step(now) }
        counts[Int(requestClass.rawValue)].requests += 1
        isActive = true
    }

    @inline(never)
    private mutating func step(_ now: UInt64) {
        let steps = nextStep == 0 ? 1 : min((now &- nextStep) / Self.stepNanoseconds + 1, 40)
        nextStep = now &+ Self.stepNanoseconds
        var isLeft = false
        for place in 0..<Self.classes {
            for _ in 0..<steps {
                counts[place].requests *= Self.decay
                counts[place].accepted *= Self.decay
            }
            if counts[place].requests - counts[place].accepted >= 1 { isLeft = true }
            shares[place]?.settle()
        }
        isActive = isLeft
        if !isLeft { shares = InlineArray(repeating: nil) }
    }

    /// A number from 0 to 1. Source: Marsaglia, "Xorshift RNGs", 2003.
    private mutating func next() -> Double {
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        return Double(random >> 11) / Double(1 << 53)
    }
}
