// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Hashes by the names that the setting `hash` knows.
package enum HashName: String, CaseIterable, Sendable {
    case multiProbe, ketama, ketamaWeighted, twemproxy, ch3, weightedCh3, rendezvous, weightedRendezvous, jump, crc32

    /// The scheme of that name.
    package var scheme: HashScheme {
        switch self {
        case .multiProbe: .multiProbe
        case .ketama: .ketama(.libmemcached, .md5)
        case .ketamaWeighted: .ketama(.libmemcachedWeighted, .md5)
        case .twemproxy: .ketama(.twemproxy, .fnv1aLower64)
        case .ch3: .ch3
        case .weightedCh3: .weightedCh3
        case .rendezvous: .rendezvous
        case .weightedRendezvous: .weightedRendezvous
        case .jump: .jump
        case .crc32: .modulo(.crc32Positive)
        }
    }
}
