// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which tenants ask for more than their share: max-min fairness over what they offered and what could be served.
/// Tenants are told apart by a hash; two that share one of 256 places share its share.
struct TenantShares {
    static let places = 256

    private var offered = [Double](repeating: 0, count: places)
    private var served = 0.0
    /// What each tenant may have: 0 while that is not known, which is no limit.
    private(set) var share = 0.0
    /// Tenants that offered something lately.
    private(set) var active = 0
    private var known = [Double](repeating: 0, count: places)

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
        for (index, rate) in rates.enumerated() {
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
