// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A ring of points in one of its dialects.
///
/// Sources: libmemcached's and twemproxy's behaviour, uhashring's documentation; Tests/Integration/placement holds it
/// against all three.
struct Ketama: Sendable {
    /// Points of 32 bits; without any where the points are wide.
    private let narrow: PointRing<UInt32>
    /// uhashring's default has points of 128 bits, of which the upper 64 are kept: two that agree in those are in one
    /// of some fifty million rings of 5,000 servers.
    private let wide: PointRing<UInt64>
    private let hash: KeyHash
    /// 1 where a key that meets a point belongs to the next one.
    private let step: UInt32

    /// Points a ring may have.
    static var maximumPoints: Int { 1 << 24 }

    init(_ servers: [Server], _ dialect: KetamaDialect, _ hash: KeyHash) throws(SelectorError) {
        // uhashring knows MD5 only.
        self.hash = dialect == .uhashringKetama ? .md5 : hash
        switch dialect {
        case .libmemcached:
            try Self.check(points: servers.count * 100)
            narrow = PointRing(Self.single(servers, hash))
            (wide, step) = (PointRing([]), 0)
        case .libmemcachedWeighted:
            let counts = Self.proportional(servers.map(\.weight))
            narrow = PointRing(try Self.quadruple(servers.map(\.ketamaName), counts, Array(servers.indices)))
            (wide, step) = (PointRing([]), 0)
        case .twemproxy:
            let order = Self.twemproxyOrder(servers)
            let counts = Self.proportional(order.map { servers[$0].weight })
            narrow = PointRing(try Self.quadruple(order.map { servers[$0].twemproxyName }, counts, order))
            (wide, step) = (PointRing([]), 0)
        case .uhashringKetama:
            let sum = servers.reduce(0) { $0 + Int($1.weight) }
            let counts = servers.map { 40 * servers.count * Int($0.weight) / sum }
            // Of points at one position the last server's counts, so the last come first.
            let points = try Self.quadruple(servers.map(\.name), counts, Array(servers.indices))
            narrow = PointRing(points.reversed())
            (wide, step) = (PointRing([]), 1)
        case .uhashring:
            wide = PointRing(try Self.wide(servers).reversed())
            (narrow, step) = (PointRing([]), 1)
        }
    }

    private static func check(points: Int) throws(SelectorError) {
        guard points > 0, points <= maximumPoints else { throw .points(points, allowed: maximumPoints) }
    }

    /// 100 points a server, each by the hash that keys have.
    private static func single(_ servers: [Server], _ hash: KeyHash) -> [PointRing<UInt32>.Point] {
        var points: [PointRing<UInt32>.Point] = []
        points.reserveCapacity(servers.count * 100)
        for (owner, server) in servers.enumerated() {
            let name = server.ketamaName
            for number in 0..<100 {
                points.append(.init(position: hash.value(of: Array("\(name)-\(number)".utf8).span), owner: owner))
            }
        }
        return points
    }

    /// MD5s a server in proportion to its weight, 40 on average: in single precision and rounded down, as the programs
    /// that we follow do.
    private static func proportional(_ weights: [Double]) -> [Int] {
        let total = Float(weights.reduce(0, +))
        return weights.map { weight in
            let share = Float(weight) / total
            return Int(share * 160 / 4 * Float(weights.count) + 0.0000000001)
        }
    }

    /// Four points of each MD5.
    private static func quadruple(
        _ names: [String], _ counts: [Int], _ owners: [Int]
    ) throws(SelectorError) -> [PointRing<UInt32>.Point] {
        try check(points: counts.reduce(0, +) * 4)
        var points: [PointRing<UInt32>.Point] = []
        points.reserveCapacity(counts.reduce(0, +) * 4)
        for index in names.indices {
            for number in 0..<counts[index] {
                let words = MD5(Array("\(names[index])-\(number)".utf8).span).words
                let owner = owners[index]
                points.append(.init(position: words.0, owner: owner))
                points.append(.init(position: words.1, owner: owner))
                points.append(.init(position: words.2, owner: owner))
                points.append(.init(position: words.3, owner: owner))
            }
        }
        return points
    }

    private static func wide(_ servers: [Server]) throws(SelectorError) -> [PointRing<UInt64>.Point] {
        let counts = servers.map { 160 * Int($0.weight) }
        try check(points: counts.reduce(0, +))
        var points: [PointRing<UInt64>.Point] = []
        for (owner, server) in servers.enumerated() {
            for number in 0..<counts[owner] {
                let digest = MD5(Array("\(server.name)-\(number)".utf8).span)
                points.append(.init(position: digest.leadingBigEndian, owner: owner))
            }
        }
        return points
    }

    /// twemproxy sorts a pool's servers by name, and shorter names come first.
    static func twemproxyOrder(_ servers: [Server]) -> [Int] {
        let names = servers.map { Array($0.twemproxyName.utf8) }
        return names.indices.sorted { left, right in
            if names[left].count != names[right].count { return names[left].count < names[right].count }
            return names[left].lexicographicallyPrecedes(names[right])
        }
    }

    func owner(of key: Span<UInt8>) -> Int {
        if narrow.count == 0 { return wide.owner(of: MD5(key).leadingBigEndian, step: 1) }
        return narrow.owner(of: hash.value(of: key), step: step)
    }

    /// The part of the circle that each of `count` servers has.
    func shares(count: Int) -> [Double] {
        narrow.count == 0 ? wide.shares(count: count) : narrow.shares(count: count)
    }
}
