// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How keys are spread over servers. docs/decisions/0011-default-hash.md compares them.
package enum HashScheme: Sendable, Equatable {
    /// Our own default: sixteen points a server and sixteen probes a key; see `ProbeRing`. Weights from 0.1 to 100.
    case multiProbe
    /// A ring of points, in one of its dialects.
    case ketama(KetamaDialect, KeyHash)
    /// mcrouter's Ch3 (furc); weights are not looked at. Servers may come and go at the end of the list only.
    case ch3
    /// mcrouter's WeightedCh3. Weights from 0 to 1.
    case weightedCh3
    /// mcrouter's Rendezvous; weights are not looked at. Time of a lookup grows with the number of servers.
    case rendezvous
    /// mcrouter's WeightedRendezvous. Weights from 0 on.
    case weightedRendezvous
    /// The rendezvous hash that pymemcache's HashClient has by default; weights are not looked at.
    case pymemcacheRendezvous
    /// Jump hash of a key's XXH3; weights are not looked at. Servers may come and go at the end of the list only.
    /// Source: J. Lamping and E. Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm".
    case jump
    /// A hash divided by the number of servers: libmemcached's modula and, with `crc32Positive`, mcrouter's Crc32.
    /// Weights are not looked at. Nearly all keys move when a server comes or goes.
    case modulo(KeyHash)
    /// twemproxy's modula: servers in the order of their names, each as often as its weight says. Whole weights.
    case twemproxyModula(KeyHash)

    /// What a pool has that names no scheme.
    package static var standard: HashScheme { .multiProbe }
}

/// The programs whose rings of points differ.
package enum KetamaDialect: Sendable, Equatable {
    /// libmemcached's consistent distribution without weights: 100 points, each the key's own hash of `host:port-N`.
    case libmemcached
    /// libmemcached's weighted ketama: 160 points on average, four of each MD5 of `host:port-N`. Whole weights.
    case libmemcachedWeighted
    /// twemproxy's: as the weighted one; servers may have aliases, and come in the order of their names. Whole weights.
    case twemproxy
    /// uhashring's with `hash_fn="ketama"`: points in proportion to whole weights, always MD5, and a point belongs to
    /// the arc after it rather than before.
    case uhashringKetama
    /// uhashring's default: 160 points for each unit of a whole weight, each a whole MD5. python-binary-memcached's.
    case uhashring
}
