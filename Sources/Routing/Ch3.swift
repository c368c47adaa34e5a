// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// mcrouter's Ch3: a consistent hash over the numbers 0 to `count - 1` by a binary tree of pseudorandom bits.
///
/// Every number is as likely as any other, and when `count` grows by one, keys move to the new number only. Does not
/// allocate. Source: mcrouter's documentation of Ch3 (furc), and the values in its tests.
struct Ch3: Sendable {
    /// Numbers to choose from: at most 2^23.
    let count: Int

    static var maximumCount: Int { 1 << bitsApart }
    private static var seed: UInt64 { 4_193_360_111 }
    private static var bitsApart: Int { 23 }
    private static var tries: Int { 32 }

    func owner(of key: Span<UInt8>) -> Int {
        guard count > 1 else { return 0 }
        var bits = BitStream(key, seed: Self.seed)
        var depth = Int.bitWidth &- (count &- 1).leadingZeroBitCount
        var place = depth
        for _ in 0..<Self.tries {
            // The first set bit, from the tree's depth downwards, says how many binary digits the number has.
            while !bits[place] {
                depth &-= 1
                if depth == 0 { return 0 }
                place = depth
            }
            place &+= Self.bitsApart
            var number = 1
            for _ in 0..<(depth &- 1) {
                number = number &<< 1 | (bits[place] ? 1 : 0)
                place &+= Self.bitsApart
            }
            if number < count { return number }
        }
        return 0
    }

    /// Bits without end: those of the key's hash, then of that hash's hash, and so on.
    private struct BitStream {
        private let first: UInt64
        private var word: UInt64
        private var index = 0
        private let seed: UInt64

        init(_ key: Span<UInt8>, seed: UInt64) {
            first = murmur64A(key, seed: seed)
            word = first
            self.seed = seed
        }

        /// The bit at `place`. Going back means starting over, and only happens within the first word.
        subscript(place: Int) -> Bool {
            mutating get {
                let wanted = place &>> 6
                if wanted < index {
                    word = first
                    index = 0
                }
                while index < wanted {
                    let start = seed ^ 8 &* Murmur64.multiplier
                    word = Murmur64.finished(Murmur64.added(word, to: start))
                    index &+= 1
                }
                return word &>> UInt64(truncatingIfNeeded: place & 63) & 1 == 1
            }
        }
    }
}

/// mcrouter's WeightedCh3: a server that Ch3 names takes the key with the probability of its weight; else the key is
/// hashed again with a number behind it.
///
/// After 32 refusals the last one named takes it. Source: mcrouter's documentation of WeightedCh3, and its tests.
struct WeightedCh3: Sendable {
    private let ch3: Ch3
    /// For each server, what a hash of 32 bits must be below.
    private let thresholds: [UInt64]

    private static var seed: UInt32 { 0xface_2014 }
    private static var tries: Int { 32 }

    init(weights: [Double]) {
        ch3 = Ch3(count: weights.count)
        thresholds = weights.map { UInt64($0 * Double(UInt32.max)) }
    }

    func owner(of key: Span<UInt8>) -> Int {
        let first = ch3.owner(of: key)
        if spooky32(key, seed: Self.seed) < thresholds[first] { return first }
        var salted = KeyBuffer(key)
        var index = first
        for salt in 0..<(Self.tries &- 1) {
            salted.cut(to: key.count)
            salted.appendReversedDecimal(salt)
            index = ch3.owner(of: salted.span)
            if spooky32(salted.span, seed: Self.seed) < thresholds[index] { break }
        }
        return index
    }
}
