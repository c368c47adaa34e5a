// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// A hash of 32 bits that a client or a proxy may be set to, by the name that it has there.
///
/// The names are those of libmemcached and twemproxy, which agree on all values; `crc32` is the upper half of a CRC in
/// 15 bits, as both have it, `crc32a` the whole one, `crc32_positive` what mcrouter's Crc32 divides. Bytes from 128 on
/// hash as they do in those programs on x86-64, where a character is signed.
package enum KeyHash: String, Sendable, CaseIterable {
    /// libmemcached's default.
    case oneAtATime = "one_at_a_time"
    /// The first four bytes of an MD5, the first byte lowest: what ketama hashes by.
    case md5
    case crc16
    case crc32
    case crc32a
    case crc32Positive = "crc32_positive"
    case fnv1Lower64 = "fnv1_64"
    /// twemproxy's default.
    case fnv1aLower64 = "fnv1a_64"
    case fnv1 = "fnv1_32"
    case fnv1a = "fnv1a_32"
    case hsieh
    case murmur
    case jenkins
    /// libmemcached only.
    case murmur3

    /// The hash of `bytes`. Does not allocate.
    package func value(of bytes: Span<UInt8>) -> UInt32 {
        switch self {
        case .oneAtATime: Routing.oneAtATime(bytes)
        case .md5: MD5(bytes).words.0
        case .crc16: crc16Unmasked(bytes)
        case .crc32: Routing.crc32(bytes) &>> 16 & 0x7fff
        case .crc32a: Routing.crc32(bytes)
        case .crc32Positive: Routing.crc32(bytes) & 0x7fff_ffff
        case .fnv1Lower64: Routing.fnv1Lower64(bytes)
        case .fnv1aLower64: Routing.fnv1aLower64(bytes)
        case .fnv1: Routing.fnv1(bytes)
        case .fnv1a: Routing.fnv1a(bytes)
        case .hsieh: superFast(bytes)
        case .murmur: murmur2(bytes)
        case .jenkins: lookup3(bytes)
        case .murmur3: Routing.murmur3(bytes, seed: 0xdead_beef &* UInt32(truncatingIfNeeded: bytes.count))
        }
    }
}
