// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which tenants ask for more than their share: max-min fairness over what they offered and what could be served.
/// Tenants are told apart by a hash; two that share a place share its share.
struct TenantShares {
    private let shift: UInt64
    private var offered: [Double]
    private var served = 0.0
    /// What each tenant may have: 0 while that is not known, which is no limit.
    private(set) var share = 0.0
    /// Tenants that offered something lately.
    private(set) var active = 0
    private var known: [Double]

    /// `places` is a power of two: each takes 16 bytes.
    init(places: Int) {
        shift = 64 - UInt64(places.trailingZeroBitCount)
        offered = [Double](repeating: 0, count: places)
        known = offered
    }

    /// Where a tenant's requests of a class are counted: each class by itself, so that background work is not held
    /// against critical requests. Hashes that differ in any of their lower 61 bits have places that have nothing to do
    /// with each other.
    ///
    /// Source: Knuth, The Art of Computer Programming, volume 3, section 6.4 (Fibonacci hashing).
    func place(tenant: UInt64, _ requestClass: RequestClass) -> Int {
        let mixed = (tenant &* 8 &+ UInt64(requestClass.rawValue)) &* 0x9e37_79b9_7f4a_7c15
        return Int(truncatingIfNeeded: mixed >> shift)
    }

    /// Notes what a tenant's request costs or would have cost.
    mutating func noteOffered(_ place: Int, cost: Double) { offered[place] += cost }

    /// Notes what was spent.
    mutating func noteServed(_ cost: Double) { served += cost }

    /// The part of a share that is safe from others. What the ratio must refuse is just what is beyond all shares, so
    /// without some room a ratio that is a little too high would refuse those within theirs. Nothing is lost by it: of
    /// what is beyond, only as much is refused as must be.
    private static let safePart = 0.8

    /// The part of a tenant's requests that is beyond its share, 0 to 1.
    func excess(_ place: Int) -> Double {
        let mine = known[place]
        return share > 0 && mine > share ? 1 - Self.safePart * share / mine : 0
    }

    /// Works out the shares from what came since the last call, and lets the past count less.
    mutating func settle() {
        for place in offered.indices { known[place] = known[place] / 2 + offered[place] }
        let rates = known.filter { $0 > 0 }.sorted()
        active = rates.count
        capacity = capacity / 2 + served
        var left = capacity
        share = 0
        // One that is alone takes nothing from anybody.
        for (index, rate) in rates.enumerated() where rates.count > 1 {
            let even = left / Double(rates.count - index)
            // The first that wants more than an even part of what is left: all from here on get that part.
            if rate > even {
                share = even
                break
            }
            left -= rate
        }
        for place in offered.indices {
            offered[place] = 0
            if known[place] < 1 { known[place] = 0 }
        }
        served = 0
    }

    private var capacity = 0.0
}
