// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// mcrouter's rendezvous hashes: every server has a score for a key, and the highest takes it.
///
/// Every server's share follows its weight exactly, and a server that comes or goes moves its own keys only, wherever
/// it stands in the list. A lookup looks at every server; it does not allocate. Source: D. Thaler and C. Ravishankar,
/// "Using Name-Based Mappings to Increase Hit Rates"; the mixing of hashes by the values in mcrouter's tests.
struct Rendezvous: Sendable {
    private let serverHashes: [UInt64]
    /// Empty where all servers weigh the same, which has another formula.
    private let weights: [Double]

    private static var serverSeed: UInt64 { 4_193_360_111 }
    private static var keySeed: UInt64 { 2_718_281_828 }

    init(names: [String], weights: [Double]) {
        serverHashes = names.map { murmur64A(Array($0.utf8).span, seed: Self.serverSeed) }
        self.weights = weights
    }

    func owner(of key: Span<UInt8>) -> Int {
        let keyHash = murmur64A(key, seed: Self.keySeed)
        return weights.isEmpty ? unweightedOwner(keyHash) : weightedOwner(keyHash)
    }

    /// All servers, the one with the highest score first. Allocates.
    func ranking(of key: Span<UInt8>) -> [Int] {
        let keyHash = murmur64A(key, seed: Self.keySeed)
        let scores = serverHashes.indices.map { index in
            guard !weights.isEmpty else { return Double(Self.mixed(serverHashes[index], keyHash)) }
            let part = Double(Self.mixed(serverHashes[index], keyHash) & (1 &<< 53 &- 1)) / Double(1 << 53)
            return weights[index] * (1 / -naturalLogarithm(part))
        }
        return scores.indices.sorted { (scores[$0], $0) > (scores[$1], $1) }
    }

    private func unweightedOwner(_ keyHash: UInt64) -> Int {
        var (best, owner) = (-1.0, 0)
        for index in serverHashes.indices {
            // Scores are compared as doubles, as mcrouter does; of equals the last one takes the key.
            let score = Double(Self.mixed(serverHashes[index], keyHash))
            if score >= best { (best, owner) = (score, index) }
        }
        return owner
    }

    private func weightedOwner(_ keyHash: UInt64) -> Int {
        var (best, owner) = (0.0, 0)
        for index in serverHashes.indices {
            let part = Double(Self.mixed(serverHashes[index], keyHash) & (1 &<< 53 &- 1)) / Double(1 << 53)
            let score = weights[index] * (1 / -naturalLogarithm(part))
            if score > best { (best, owner) = (score, index) }
        }
        return owner
    }

    /// Two hashes as one: CityHash's way to make 64 bits of 128.
    @inline(__always)
    private static func mixed(_ server: UInt64, _ key: UInt64) -> UInt64 {
        let multiplier: UInt64 = 0x9ddf_ea08_eb38_2d69
        var low = (key ^ server) &* multiplier
        low ^= low &>> 47
        var high = (server ^ low) &* multiplier
        high ^= high &>> 47
        return high &* multiplier
    }
}

/// pymemcache's rendezvous hash: MurmurHash3 of `server-key`, the highest takes the key; of equals the greater name.
///
/// Source: pymemcache's documentation of HashClient and RendezvousHash.
struct PymemcacheRendezvous: Sendable {
    /// What each server's name and the hyphen leave behind.
    private let prefixes: [Murmur3State]
    /// A server's place among the names in ascending order.
    private let ranks: [Int]

    init(names: [String]) {
        prefixes = names.map { name in
            var state = Murmur3State(seed: 0)
            for byte in "\(name)-".utf8 { state.add(byte) }
            return state
        }
        let order = names.indices.sorted { names[$0].utf8.lexicographicallyPrecedes(names[$1].utf8) }
        var ranks = [Int](repeating: 0, count: names.count)
        for (rank, index) in order.enumerated() { ranks[index] = rank }
        self.ranks = ranks
    }

    func owner(of key: Span<UInt8>) -> Int {
        var (best, owner) = (-1, 0)
        for index in prefixes.indices {
            var state = prefixes[index]
            for offset in 0..<key.count { state.add(key[offset]) }
            let score = Int(state.value)
            if score > best || (score == best && ranks[index] > ranks[owner]) { (best, owner) = (score, index) }
        }
        return owner
    }
}
