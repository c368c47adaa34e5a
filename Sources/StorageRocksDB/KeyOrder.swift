// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// The order of keys in the store: byte by byte, a prefix before what is longer.
enum KeyOrder {
    /// The keys in order.
    static func sorted(_ keys: [[UInt8]]) -> [[UInt8]] {
        if keys.count < 2 { return keys }
        return order(keys).map { keys[$0] }
    }

    /// The indices of `keys` in the order of the keys.
    static func order(_ keys: [[UInt8]]) -> [Int] {
        // The first eight bytes decide nearly always, as one number.
        var entries = keys.indices.map { (start: start(keys[$0]), index: $0) }
        entries.sort { left, right in
            if left.start != right.start { return left.start < right.start }
            return keys[left.index].lexicographicallyPrecedes(keys[right.index])
        }
        return entries.map(\.index)
    }

    // MARK: Places between keys

    /// Bytes of a key at most.
    private static let keyBytes = 250

    /// No key is behind it.
    static let last = [UInt8](repeating: 0xff, count: keyBytes)

    /// A key as a place: zeros follow it up to the length of the longest key.
    static func padded(_ key: [UInt8]) -> [UInt8] {
        key + [UInt8](repeating: 0, count: max(0, keyBytes - key.count))
    }

    /// The shortest key at a place.
    static func trimmed(_ place: [UInt8]) -> [UInt8] {
        Array(place[..<((place.lastIndex { $0 != 0 } ?? -1) + 1)])
    }

    /// The place in the middle between two; nil where they lie side by side.
    static func middle(_ low: [UInt8], _ high: [UInt8]) -> [UInt8]? {
        var sum = [UInt8](repeating: 0, count: low.count)
        var carry = 0
        for index in low.indices.reversed() {
            carry += Int(low[index]) + Int(high[index])
            sum[index] = UInt8(carry & 0xff)
            carry >>= 8
        }
        for index in sum.indices {
            let digit = carry << 8 | Int(sum[index])
            sum[index] = UInt8(digit / 2)
            carry = digit & 1
        }
        return sum == low ? nil : sum
    }

    /// The last key that there may be before `key`, which is not empty.
    static func predecessor(_ key: [UInt8]) -> [UInt8] {
        guard var digit = key.last else { return [] }
        let head = Array(key.dropLast())
        if digit == 0 { return head }
        digit -= 1
        return head + [digit] + [UInt8](repeating: 0xff, count: max(0, keyBytes - key.count))
    }

    // MARK: Sorting

    /// The first eight bytes, the first one highest; zeros where there are fewer.
    private static func start(_ key: [UInt8]) -> UInt64 {
        if key.count >= 8 { return key.span.bigEndian(at: 0, as: UInt64.self) }
        var result: UInt64 = 0
        for index in 0..<8 { result = result << 8 | (index < key.count ? UInt64(key[index]) : 0) }
        return result
    }
}
