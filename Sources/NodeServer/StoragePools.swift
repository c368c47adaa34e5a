// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// Which keys belong to which pool: by the longest prefix that matches.
struct StoragePools: Sendable {
    private struct Rule: Sendable {
        let prefix: [UInt8]
        let pool: Int
    }

    /// The pools, by number; the last one is that of all keys that no prefix matches.
    let pools: [PoolSettings]
    /// Longest prefix first.
    private let rules: [Rule]

    /// The pools as configured, and one with storage for everything else.
    init(_ configured: [PoolSettings]) {
        var pools = configured
        if !pools.contains(where: { $0.prefix.isEmpty }) { pools.append(PoolSettings(name: "default", prefix: [])) }
        self.pools = pools
        rules = pools.indices.map { Rule(prefix: pools[$0].prefix, pool: $0) }
            .sorted { $0.prefix.count > $1.prefix.count }
    }

    /// What the tier has to know of each pool, by its number.
    var policies: [StoragePoolPolicy] { pools.map(\.policy) }

    /// How long copies of a pool stay behind their expiry, in seconds.
    func lingerSeconds(of pool: Int) -> UInt32 {
        max(staleIfErrorSeconds(of: pool), staleWhileRevalidateSeconds(of: pool))
    }

    /// How long behind it they may answer when the store does not.
    func staleIfErrorSeconds(of pool: Int) -> UInt32 { Self.seconds(pools[pool].policy.staleIfErrorMilliseconds) }

    /// How long behind it they answer while the store is asked.
    func staleWhileRevalidateSeconds(of pool: Int) -> UInt32 {
        Self.seconds(pools[pool].policy.staleWhileRevalidateMilliseconds)
    }

    private static func seconds(_ milliseconds: UInt64) -> UInt32 {
        milliseconds == 0 ? 0 : UInt32(clamping: max(1, milliseconds / 1000))
    }

    /// The longest of these times.
    var lingerSecondsMax: UInt32 { pools.indices.map { lingerSeconds(of: $0) }.max() ?? 0 }

    /// The rules for a key: those of its pool, whether or not that has storage.
    func settings(of key: Span<UInt8>) -> PoolSettings {
        for rule in rules where Self.begins(key, with: rule.prefix) { return pools[rule.pool] }
        return pools[pools.count - 1]
    }

    /// What becomes of reads of a key past the stream's bound.
    func lagPolicy(of key: Span<UInt8>) -> LagPolicy {
        for rule in rules where Self.begins(key, with: rule.prefix) { return pools[rule.pool].lagPolicy }
        return .revalidate
    }

    /// The pool of a key, if it has storage; nil for a look-aside pool.
    func pool(of key: Span<UInt8>) -> Int? {
        for rule in rules where Self.begins(key, with: rule.prefix) {
            return pools[rule.pool].hasStorage ? rule.pool : nil
        }
        return nil
    }

    private static func begins(_ key: Span<UInt8>, with prefix: [UInt8]) -> Bool {
        guard prefix.count <= key.count else { return false }
        for index in prefix.indices where key[index] != prefix[index] { return false }
        return true
    }
}
