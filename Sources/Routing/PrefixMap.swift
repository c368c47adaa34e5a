// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Finds the longest of a set of prefixes that a key begins with. Lookups do not allocate.
///
/// The prefixes are sorted, and each knows the longest other one that it begins with itself: the last prefix that is
/// not above a key leads, by those, to all that the key begins with.
struct PrefixMap: Sendable {
    private let bytes: [UInt8]
    /// Where each prefix begins, and where the last one ends.
    private let starts: [Int32]
    /// The longest other prefix that it begins with; -1 for none.
    private let parents: [Int32]
    private let values: [Int32]
    /// What keys get that begin with no prefix.
    let otherwise: Int32

    init(_ entries: [(prefix: [UInt8], value: Int32)], otherwise: Int32) {
        let sorted = entries.sorted { $0.prefix.lexicographicallyPrecedes($1.prefix) }
        var bytes: [UInt8] = []
        var starts: [Int32] = [0]
        var parents: [Int32] = []
        for (index, entry) in sorted.enumerated() {
            bytes += entry.prefix
            starts.append(Int32(bytes.count))
            var parent = Int32(index) - 1
            while parent >= 0, !entry.prefix.starts(with: sorted[Int(parent)].prefix) { parent = parents[Int(parent)] }
            parents.append(parent)
        }
        self.bytes = bytes
        self.starts = starts
        self.parents = parents
        values = sorted.map(\.value)
        self.otherwise = otherwise
    }

    var isEmpty: Bool { values.isEmpty }

    /// The value of the longest prefix of `key`.
    func value(of key: Span<UInt8>) -> Int32 {
        var index = lastNotAbove(key)
        while index >= 0 {
            let place = Int(index)
            if isPrefix(place, of: key) { return values[place] }
            index = parents[place]
        }
        return otherwise
    }

    /// The value of the prefix that is all of `key`; -1 when there is none.
    func exactValue(of key: Span<UInt8>) -> Int32 {
        let index = Int(lastNotAbove(key))
        guard index >= 0, Int(starts[index &+ 1] &- starts[index]) == key.count, isPrefix(index, of: key) else {
            return -1
        }
        return values[index]
    }

    /// The last prefix that does not come after `key`; -1 when all do.
    private func lastNotAbove(_ key: Span<UInt8>) -> Int32 {
        var (low, high) = (0, values.count)
        while low < high {
            let middle = (low &+ high) &>> 1
            if isAbove(middle, key) { high = middle } else { low = middle &+ 1 }
        }
        return Int32(truncatingIfNeeded: low &- 1)
    }

    /// Whether the prefix comes after `key` in the order of their bytes.
    private func isAbove(_ index: Int, _ key: Span<UInt8>) -> Bool {
        let (start, end) = (Int(starts[index]), Int(starts[index &+ 1]))
        let common = min(end &- start, key.count)
        for offset in 0..<common {
            let (mine, its) = (bytes[start &+ offset], key[offset])
            if mine != its { return mine > its }
        }
        return end &- start > key.count
    }

    private func isPrefix(_ index: Int, of key: Span<UInt8>) -> Bool {
        let (start, end) = (Int(starts[index]), Int(starts[index &+ 1]))
        guard end &- start <= key.count else { return false }
        for offset in 0..<(end &- start) where bytes[start &+ offset] != key[offset] { return false }
        return true
    }
}
