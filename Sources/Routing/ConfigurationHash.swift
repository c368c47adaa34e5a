// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// The hashes that mcrouter's configurations can compute while they are read.
package enum ConfigurationHash {
    /// `@hash` of a text: SpookyHash V2.
    package static func value(of text: String) -> UInt64 {
        let bytes = Array(text.utf8)
        return spooky64(bytes.span, seed: 0)
    }

    /// `@hash` of a number: T. Wang's mix of 64 bits.
    package static func value(of number: Int64) -> UInt64 { mixed(UInt64(bitPattern: number)) }

    /// `weightedHash`: the index of the weight that takes the key; nil when all are 0. A weight's part of all keys is
    /// its part of the sum.
    package static func choice(of key: UInt64, _ weights: [(name: String, weight: Double)]) -> Int? {
        let sum = weights.reduce(0) { $0 + $1.weight }
        guard sum >= .ulpOfOne else { return nil }
        var (best, index) = (-Double.infinity, 0)
        for (place, entry) in weights.enumerated() {
            let weight = entry.weight / sum
            let part = Double(mixed(fnv1(entry.name) &+ key)) / Double(UInt64.max)
            // The logarithm of what is compared there: the part to the power of 1/weight.
            let score = weight > .ulpOfOne ? naturalLogarithm(part) / weight : -Double.greatestFiniteMagnitude
            if score > best { (best, index) = (score, place) }
        }
        return index
    }

    private static func mixed(_ number: UInt64) -> UInt64 {
        var key = ~number &+ number &<< 21
        key ^= key &>> 24
        key = key &+ key &<< 3 &+ key &<< 8
        key ^= key &>> 14
        key = key &+ key &<< 2 &+ key &<< 4
        key ^= key &>> 28
        return key &+ key &<< 31
    }

    private static func fnv1(_ text: String) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in text.utf8 { hash = hash &* 0x100_0000_01b3 ^ UInt64(bitPattern: Int64(Int8(bitPattern: byte))) }
        return hash
    }
}
