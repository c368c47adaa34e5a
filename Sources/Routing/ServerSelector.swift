// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Says which server of a pool a key belongs to.
///
/// A value that is built once for a set of servers and looked up from any thread. A lookup does no I/O and allocates
/// nothing; building sorts the ring's points. Limits: 65,536 servers, 2^24 points, keys and salts of 508 bytes
/// together.
package struct ServerSelector: Sendable {
    /// The servers, in the order that owners are counted in.
    package let servers: [Server]
    /// How keys are spread over them.
    package let scheme: HashScheme
    private let part: HashedPart
    private let salt: [UInt8]
    private let table: Table

    /// Servers in a pool.
    package static var maximumServers: Int { 1 << 16 }
    /// Bytes that may stand behind keys: a key has 250.
    package static var maximumSaltBytes: Int { 256 }

    private enum Table: Sendable {
        case probes(ProbeRing)
        case ring(Ketama)
        case ch3(Ch3)
        case weightedCh3(WeightedCh3)
        case rendezvous(Rendezvous)
        case pymemcache(PymemcacheRendezvous)
        case jump
        case modulo(KeyHash, owners: [UInt32])
    }

    /// A selector of `servers` by a scheme.
    ///
    /// `part` says what of a key is hashed; `salt` is hashed behind it, as mcrouter's option of that name says. Throws
    /// what the scheme cannot do with these servers.
    package init(
        _ servers: [Server], scheme: HashScheme = .standard, part: HashedPart = .whole, salt: [UInt8] = []
    ) throws(SelectorError) {
        guard 1...Self.maximumServers ~= servers.count else {
            throw .serverCount(servers.count, allowed: 1...Self.maximumServers)
        }
        guard salt.count <= Self.maximumSaltBytes else { throw .salt(salt.count, allowed: Self.maximumSaltBytes) }
        try Self.check(servers, scheme)
        self.servers = servers
        self.scheme = scheme
        self.part = part
        self.salt = salt
        table = try Self.table(servers, scheme)
    }

    private static func table(_ servers: [Server], _ scheme: HashScheme) throws(SelectorError) -> Table {
        let (names, weights) = (servers.map(\.name), servers.map(\.weight))
        return switch scheme {
        case .multiProbe: .probes(ProbeRing(names: names, weights: weights))
        case .ketama(let dialect, let hash): .ring(try Ketama(servers, dialect, hash))
        case .ch3: .ch3(Ch3(count: servers.count))
        case .weightedCh3: .weightedCh3(WeightedCh3(weights: weights))
        case .rendezvous: .rendezvous(Rendezvous(names: names, weights: []))
        case .weightedRendezvous: .rendezvous(Rendezvous(names: names, weights: weights))
        case .pymemcacheRendezvous: .pymemcache(PymemcacheRendezvous(names: names))
        case .jump: .jump
        case .modulo(let hash): .modulo(hash, owners: servers.indices.map { UInt32($0) })
        case .twemproxyModula(let hash):
            .modulo(
                hash,
                owners: Ketama.twemproxyOrder(servers).flatMap {
                    Array(repeating: UInt32($0), count: Int(servers[$0].weight))
                })
        }
    }

    /// The index of the server that `key` belongs to.
    package func owner(of key: Span<UInt8>) -> Int {
        let range = part.range(in: key)
        let hashed = key.extracting(range)
        guard !salt.isEmpty else { return lookup(hashed) }
        var salted = KeyBuffer(hashed)
        salted.append(salt.span)
        return lookup(salted.span)
    }

    /// What of `key` is hashed, without the salt.
    @_lifetime(copy key)
    func hashedPart(of key: Span<UInt8>) -> Span<UInt8> { key.extracting(part.range(in: key)) }

    private func lookup(_ key: Span<UInt8>) -> Int {
        switch table {
        case .probes(let ring): ring.owner(of: key)
        case .ring(let ring): ring.owner(of: key)
        case .ch3(let tree): tree.owner(of: key)
        case .weightedCh3(let tree): tree.owner(of: key)
        case .rendezvous(let scores): scores.owner(of: key)
        case .pymemcache(let scores): scores.owner(of: key)
        case .jump: jumpOwner(stableHash(key), count: servers.count)
        case .modulo(let hash, let owners): Int(owners[Int(hash.value(of: key)) % owners.count])
        }
    }

    /// The part of all keys that each server has, where it is known without trying keys: of rings.
    package var shares: [Double]? {
        switch table {
        case .probes(let ring): ring.shares(count: servers.count)
        case .ring(let ring): ring.shares(count: servers.count)
        default: nil
        }
    }
}

extension ServerSelector {
    /// Which weights a scheme takes.
    private enum Weights {
        case any
        case whole
        case range(ClosedRange<Double>)

        func allows(_ weight: Double) -> Bool {
            switch self {
            case .any: true
            case .whole: weight >= 1 && weight <= 1_000_000 && weight == weight.rounded()
            case .range(let range): range.contains(weight)
            }
        }

        var text: String {
            switch self {
            case .any: "any"
            case .whole: "a whole number from 1 to 1000000"
            case .range(let range): "a number from \(range.lowerBound) to \(range.upperBound)"
            }
        }
    }

    private static func rules(_ scheme: HashScheme) -> (weights: Weights, name: ((Server) -> String)?) {
        switch scheme {
        case .multiProbe: (.range(0.1...100), { $0.name })
        case .ketama(.libmemcached, _): (.any, { $0.ketamaName })
        case .ketama(.libmemcachedWeighted, _): (.whole, { $0.ketamaName })
        case .ketama(.twemproxy, _), .twemproxyModula: (.whole, { $0.twemproxyName })
        case .ketama(.uhashring, _), .ketama(.uhashringKetama, _): (.whole, { $0.name })
        case .rendezvous, .pymemcacheRendezvous: (.any, { $0.name })
        case .weightedRendezvous: (.range(0...1_000_000), { $0.name })
        case .weightedCh3: (.range(0...1), nil)
        case .ch3, .jump, .modulo: (.any, nil)
        }
    }

    private static func check(_ servers: [Server], _ scheme: HashScheme) throws(SelectorError) {
        let (weights, name) = rules(scheme)
        var names: Set<String> = []
        var points = 0.0
        for server in servers {
            guard weights.allows(server.weight) else {
                throw .weight(server.weight, server: server.name, allowed: weights.text)
            }
            if let name, !names.insert(name(server)).inserted { throw .sameName(name(server)) }
            points += server.weight
        }
        let limit = Ketama.maximumPoints
        switch scheme {
        case .multiProbe where points * Double(ProbeRing.pointsPerServer) > Double(limit),
            .ketama(.uhashring, _) where points * 160 > Double(limit), .twemproxyModula where points > Double(limit):
            throw .points(Int(points), allowed: limit)
        default: break
        }
    }
}
