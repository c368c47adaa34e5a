// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Keys whose rows are to be put into the topic of states, each once, in the order in which they came. Pure.
struct StateKeys {
    /// So many are remembered; then nothing is read of the topic until some are put.
    static let most = 16_384
    /// No key of ours is longer.
    static let longestKey = 250

    private var keys: [[UInt8]] = []
    /// How many of `keys` are taken.
    private var taken = 0
    private var known: Set<[UInt8]> = []

    var isEmpty: Bool { known.isEmpty }
    var isFull: Bool { known.count >= Self.most }
    var count: Int { known.count }

    /// Adds a key, unless it is there, or can be none of ours.
    mutating func add(_ key: [UInt8]) {
        guard !key.isEmpty, key.count <= Self.longestKey, known.insert(key).inserted else { return }
        keys.append(key)
    }

    /// The first of them, which stay.
    func first(_ count: Int) -> [[UInt8]] { Array(keys[taken...].prefix(count)) }

    /// Takes the first away.
    mutating func removeFirst() {
        guard taken < keys.count else { return }
        known.remove(keys[taken])
        keys[taken] = []
        taken += 1
        // Half of them are moved when the other half is gone: of each, a constant work.
        guard taken * 2 >= keys.count else { return }
        keys.removeFirst(taken)
        taken = 0
    }
}
