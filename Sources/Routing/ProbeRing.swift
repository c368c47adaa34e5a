// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Our default: a ring of few points, where a key looks at several places and takes the point that is nearest.
///
/// A server has sixteen points for each unit of its weight: XXH3 of its name with the point's number for a seed. A key
/// has sixteen places: SplitMix64's numbers from the key's XXH3 on. Of the points that come first at or after the
/// places, the one at the least distance owns the key; where a server's points stand for less than a whole share each,
/// distances to them are divided by it. No server gets more than 16/15 of its share on average, however many there are.
/// One that comes or goes moves keys to or from itself only; with weights that are no sixteenths, some few others too.
/// Does not allocate. Source: B. Appleton and M. O'Reilly, "Multi-probe consistent hashing", 2015.
struct ProbeRing: Sendable {
    /// The upper halves of positions, in the order of the whole: which of two that share one is found does not hang on
    /// the order of servers.
    private let ring: PointRing<UInt32>
    /// What a distance to a server's points is multiplied by; empty where all are 1.
    private let factors: [Double]

    static var pointsPerServer: Int { 16 }
    static var probes: Int { 16 }

    init(names: [String], weights: [Double]) {
        let counts = weights.map { max(1, Int(($0 * Double(Self.pointsPerServer)).rounded(.up))) }
        let factors = zip(weights, counts).map { Double($1) / ($0 * Double(Self.pointsPerServer)) }
        var points: [(position: UInt64, owner: Int)] = []
        points.reserveCapacity(counts.reduce(0, +))
        for (owner, name) in names.enumerated() {
            let bytes = Array(name.utf8)
            for number in 0..<counts[owner] {
                points.append((stableHash(bytes.span, seed: UInt64(number)), owner))
            }
        }
        points.sort { $0.position < $1.position }
        ring = PointRing(points.map { .init(position: UInt32($0.position >> 32), owner: $0.owner) })
        self.factors = factors.allSatisfy { $0 == 1 } ? [] : factors
    }

    func owner(of key: Span<UInt8>) -> Int {
        let hash = stableHash(key)
        return factors.isEmpty ? unweightedOwner(hash) : weightedOwner(hash)
    }

    /// SplitMix64's numbers, of which the upper half is taken. Source: G. Steele, D. Lea and C. Flood, "Fast Splittable
    /// Pseudorandom Number Generators".
    @inline(__always)
    private static func place(_ hash: UInt64, _ number: Int) -> UInt32 {
        var value = hash &+ UInt64(truncatingIfNeeded: number &+ 1) &* 0x9e37_79b9_7f4a_7c15
        value = (value ^ value &>> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value &>> 27) &* 0x94d0_49bb_1331_11eb
        return UInt32(truncatingIfNeeded: (value ^ value &>> 31) &>> 32)
    }

    private func unweightedOwner(_ hash: UInt64) -> Int {
        // Distance above, point below: the smallest is the nearest, of equals the first point of the circle.
        var best = UInt64.max
        for number in 0..<Self.probes {
            let place = Self.place(hash, number)
            let index = ring.index(of: place)
            let distance = UInt64(ring.distance(from: place, to: index))
            best = min(best, distance &<< 32 | UInt64(truncatingIfNeeded: index))
        }
        return ring.owner(Int(truncatingIfNeeded: best & 0xffff_ffff))
    }

    private func weightedOwner(_ hash: UInt64) -> Int {
        var (best, nearest) = (Double.infinity, 0)
        for number in 0..<Self.probes {
            let place = Self.place(hash, number)
            let index = ring.index(of: place)
            let distance = Double(ring.distance(from: place, to: index)) * factors[ring.owner(index)]
            // Of equals the first point of the circle, as without weights.
            let isNearer = distance < best || (distance == best && index < nearest)
            if isNearer { (best, nearest) = (distance, index) }
        }
        return ring.owner(nearest)
    }

    /// The part of all keys that each of `count` servers has, exact for places that are independent of each other.
    ///
    /// Of a key's places, the nearest is farther than some distance with the probability that all are; a point takes
    /// its part of what falls between two distances as long as its arc is longer.
    func shares(count: Int) -> [Double] {
        let arcs = (0..<ring.count).map { index in
            let owner = ring.owner(index)
            let factor = factors.isEmpty ? 1 : factors[owner]
            return (end: ring.arc(index) * factor, rate: 1 / factor, owner: owner)
        }
        var shares = [Double](repeating: 0, count: count)
        var rate = arcs.reduce(0) { $0 + $1.rate }
        var (covered, distance, taken) = (0.0, 0.0, 0.0)
        for arc in arcs.sorted(by: { $0.end < $1.end }) {
            let next = min(1, covered + rate * (arc.end - distance))
            if rate > 0 { taken += (Self.unmet(covered) - Self.unmet(next)) / rate }
            shares[arc.owner] += arc.rate * taken
            rate -= arc.rate
            (covered, distance) = (next, arc.end)
        }
        return shares
    }

    /// The probability that no place is within the part of the circle that is covered.
    private static func unmet(_ covered: Double) -> Double {
        var result = 1.0
        for _ in 0..<probes { result *= 1 - covered }
        return result
    }
}
