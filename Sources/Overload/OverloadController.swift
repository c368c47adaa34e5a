// Martlet
// SPDX-License-Identifier: Apache-2.0

/// One reactor's overload control: what its turns tell it, and whether a request is served. Pure: time is a parameter,
/// and randomness comes from a seed.
///
/// Nothing is asked of it per request while the node is not overloaded. While it is, a turn serves what it can within
/// twice the target and refuses the rest at once: nothing waits for a later turn, so what is served is served in time.
package struct OverloadController: ~Copyable {
    /// What became of a request.
    package enum Verdict: Equatable, Sendable {
        case serve
        case refuse(ShedReason)
    }

    /// Steps after which shares and costs are worked out again, and the past counts half.
    private static let settleSteps = 10

    private let configuration: OverloadConfiguration
    private var signal = DelaySignal()
    private var law: ShedLaw
    private var histogram = CostHistogram()
    private var threshold = CostHistogram.Threshold()
    private var tenants = TenantShares(places: 4096)
    private var random: UInt64
    private var nextStep: UInt64 = 0
    /// When the last step was, and how long the reactor had run by then.
    private var lastStep: (now: UInt64, ran: UInt64) = (0, 0)
    private var stepCount = 0
    private var entriesSettled = 0

    private var arrival: UInt64 = 0
    private var turnStart: UInt64 = 0
    private var visits = 0
    private var visitsBefore = 1
    private var visitSpent: UInt64 = 0
    private var offered = 0.0
    private var refused = 0.0
    private var late = 0.0
    /// The band that matters most of those which were late.
    private var lateBand = RequestClass.allCases.count + 1
    private var invalidated = 0.0
    /// What a request costs lately, in nanoseconds: what a refused one is counted with.
    private var typicalCost = 1000.0

    /// The delay as of the last step, in nanoseconds.
    package private(set) var delay: UInt64 = 0
    /// Whether each request must be asked about. Stored: to ask a getter of another module, the controller is copied.
    package private(set) var isOverloaded: Bool

    /// A controller at rest.
    package init(_ configuration: OverloadConfiguration, seed: UInt64) {
        self.configuration = configuration
        law = ShedLaw(configuration)
        isOverloaded = law.isOverloaded
        random = seed | 1
        if configuration.refusesAll { threshold = .everything }
    }

    /// The share of the offered cost that is refused.
    package var ratio: Double { law.ratio }
    /// How often an overload began.
    package var entries: Int { law.entries }
    /// The level beyond which requests are refused: what to tell those who could refuse them earlier.
    package var level: Int { threshold.level }
    /// The share of one tenant, as nanoseconds of service lately; 0 while everybody gets what it asks for.
    package var tenantShare: Double { tenants.share }
    /// Tenants that asked for something lately, while overloaded.
    package var activeTenants: Int { tenants.active }

    /// A turn begins at `now` whose input may have been there since `arrival`; both in monotonic nanoseconds. `ran` is
    /// how long the reactor's thread has had a processor so far, asked at each step. True when a step was taken.
    package mutating func turnBegan(arrival: UInt64, now: UInt64, ran: @autoclosure () -> UInt64) -> Bool {
        guard configuration.targetNanoseconds > 0 else { return false }
        self.arrival = arrival
        turnStart = now
        visitsBefore = max(visits, 1)
        visits = 0
        signal.note(now &- arrival)
        guard now >= nextStep else { return false }
        if arrival == now, nextStep > 0 { rest((now - nextStep) / configuration.stepNanoseconds) }
        let count = nextStep > 0 ? 1 + Int((now - nextStep) / configuration.stepNanoseconds) : 1
        nextStep = now &+ configuration.stepNanoseconds
        step(count, now: now, ran: ran())
        isOverloaded = law.isOverloaded
        return true
    }

    /// The turn goes on at `now`: one that takes too long need not end before the node is overloaded.
    @inline(__always)
    package mutating func turnGoesOn(now: UInt64, ran: @autoclosure () -> UInt64) {
        guard !isOverloaded else { return }
        law.look(
            waited: turnStart &- arrival, spent: now &- turnStart,
            ran: ran() &- lastStep.ran, elapsed: now &- lastStep.now)
        isOverloaded = law.isOverloaded
    }

    /// Steps in which the reactor slept.
    private mutating func rest(_ steps: UInt64) {
        for _ in 0..<min(steps, 100) where law.isOverloaded { law.step(delay: 0, offered: 0, refused: 0, late: 0) }
    }

    private mutating func step(_ count: Int, now: UInt64, ran: UInt64) {
        delay = signal.step()
        let wasOverloaded = law.isOverloaded
        law.step(
            delay: delay, offered: offered, refused: refused, late: late,
            lateShare: histogram.share(from: lateBand * CostHistogram.cohorts), count: count,
            ran: ran &- lastStep.ran, elapsed: now &- lastStep.now)
        lastStep = (now, ran)
        offered = 0
        refused = 0
        late = 0
        lateBand = RequestClass.allCases.count + 1
        invalidated = 0
        guard law.isOverloaded else {
            if wasOverloaded { threshold = CostHistogram.Threshold() }
            return
        }
        if entriesSettled != law.entries { (entriesSettled, stepCount) = (law.entries, 0) }
        stepCount += 1
        if stepCount % Self.settleSteps == 0 { histogram.decay(0.5) }
        // The first steps of an overload refuse without knowing whose requests are too many: they are few.
        if stepCount % Self.settleSteps == 0 || stepCount == 2 { tenants.settle() }
        threshold = configuration.refusesAll ? .everything : histogram.threshold(law.ratio)
    }

    /// A connection's requests are next.
    @inline(__always)
    package mutating func visitBegan() {
        visits += 1
        visitSpent = 0
    }

    /// Whether each request of a tenant's class is refused by ratio now, whatever else holds: none need be judged.
    /// Never for invalidations, which have a share of their own.
    package func refusesAll(_ requestClass: RequestClass, tenant: UInt64) -> Bool {
        guard isOverloaded, requestClass != .invalidation else { return false }
        let (level, _) = places(requestClass, tenant: tenant)
        return level > threshold.level || (level == threshold.level && threshold.refusedPart >= 1)
    }

    /// So many requests were refused because of ``refusesAll(_:tenant:)``.
    package mutating func refused(_ requestClass: RequestClass, tenant: UInt64, count: Int) {
        let (level, place) = places(requestClass, tenant: tenant)
        let cost = typicalCost * Double(count)
        refused += cost
        // What is beyond the tenant's share counts with the class below, as where each is judged.
        let excess = tenants.excess(place)
        pending = (level, place)
        note(cost: cost * (1 - excess))
        guard excess > 0 else { return }
        pending.level = level + CostHistogram.cohorts
        note(cost: cost * excess)
    }

    /// The level of a tenant's class, and its place among the tenants.
    private func places(_ requestClass: RequestClass, tenant: UInt64) -> (level: Int, place: Int) {
        let cohort = Int(truncatingIfNeeded: (tenant >> 8) & UInt64(CostHistogram.cohorts - 1))
        return (
            Int(requestClass.rawValue) * CostHistogram.cohorts + cohort,
            tenants.place(tenant: tenant, requestClass)
        )
    }

    /// Whether to serve a request. Asked only while ``isOverloaded``. `tenant` is a hash of whom it is for.
    package mutating func judge(_ requestClass: RequestClass, tenant: UInt64, now: UInt64) -> Verdict {
        let (ownLevel, place) = places(requestClass, tenant: tenant)
        let cohort = ownLevel % CostHistogram.cohorts
        var band = Int(requestClass.rawValue)
        if requestClass == .invalidation {
            pending = (ownLevel, place)
            let reserved = configuration.reservedShare * Double(configuration.stepNanoseconds)
            // One in a step is always within, however long requests take.
            if invalidated == 0 || invalidated + typicalCost <= reserved { return .serve }
            band = Int(RequestClass.critical.rawValue)
        }
        let excess = tenants.excess(place)
        let last = excess > 0 ? band + 1 : band
        if excess > 0, next() < excess { band = last }
        let level = band * CostHistogram.cohorts + cohort
        let verdict = verdict(level, band, last, now: now)
        pending = (level, place)
        if verdict != .serve {
            refused += typicalCost
            if verdict != .refuse(.ratio) {
                late += typicalCost
                lateBand = min(lateBand, band)
            }
            note(cost: typicalCost)
        }
        return verdict
    }

    /// `last` is the band of what the tenant asks for of this class that matters least.
    private mutating func verdict(_ level: Int, _ band: Int, _ last: Int, now: UInt64) -> Verdict {
        if level > threshold.level || (level == threshold.level && next() < threshold.refusedPart) {
            return .refuse(.ratio)
        }
        // What is beyond a tenant's share waits as little as the class below. What matters more than what is being
        // refused may wait: it is served once that is out of the way. Not what is within its share of a tenant whose
        // other requests are being refused: it would keep those waiting who ask for less.
        let isBefore = law.ratio > 0 && last < threshold.level / CostHistogram.cohorts
        let own = RequestClass(rawValue: UInt8(truncatingIfNeeded: band)) ?? .background
        let halves = isBefore ? own.firstAgeLimitHalves : own.ageLimitHalves
        if now &- arrival > halves * configuration.targetNanoseconds / 2 { return .refuse(.age) }
        // A connection's part of what one turn may take; its first request is always within.
        let quantum = 2 * configuration.targetNanoseconds / UInt64(visitsBefore)
        if band > Int(RequestClass.critical.rawValue), !isBefore, visitSpent > quantum { return .refuse(.share) }
        return .serve
    }

    /// What the request that was judged last cost, in nanoseconds, if it was served.
    package mutating func served(_ requestClass: RequestClass, nanoseconds: UInt64) {
        let cost = Double(nanoseconds)
        typicalCost += (cost - typicalCost) / 64
        visitSpent &+= nanoseconds
        if requestClass == .invalidation { invalidated += cost }
        tenants.noteServed(cost)
        note(cost: cost)
    }

    /// The request that was judged last is served, and what it costs is not known.
    package mutating func servedElsewhere(_ requestClass: RequestClass) {
        served(requestClass, nanoseconds: UInt64(typicalCost))
    }

    private var pending = (level: 0, place: 0)

    private mutating func note(cost: Double) {
        offered += cost
        histogram.note(pending.level, cost: cost)
        tenants.noteOffered(pending.place, cost: cost)
    }

    /// A number from 0 to 1. Source: Marsaglia, "Xorshift RNGs", 2003.
    private mutating func next() -> Double {
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        return Double(random >> 11) / Double(1 << 53)
    }
}
