// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// A cache in virtual time: small, forgetful, and true to its promise that a copy is whole and never expired. Its times
/// are those of a clock that nobody sets.
final class SimulatedCache: CachedCopies, @unchecked Sendable {
    // SAFETY (Sendable): as VirtualWorld.
    private enum Copy {
        case row(StoredRow, until: UInt64)
        case absent(until: UInt64)
    }

    private let world: VirtualWorld
    private let capacity: Int
    private let noMemory: Int
    private let negativeMilliseconds: Int64
    private var copies: [[UInt8]: Copy] = [:]
    private var hashes: [[UInt8]: UInt64] = [:]
    /// Keys whose copies went for want of room, to be told to the tier.
    private(set) var evicted: [UInt64] = []

    init(_ world: VirtualWorld, capacity: Int, noMemory: Int, negativeMilliseconds: Int64) {
        self.world = world
        self.capacity = capacity
        self.noMemory = noMemory
        self.negativeMilliseconds = negativeMilliseconds
    }

    /// What the cache says of a key; nil is a miss.
    func get(_ key: [UInt8]) -> ReadOutcome? {
        switch copies[key] {
        case .row(let row, let until): until > world.microseconds ? .found(row) : nil
        case .absent(let until): until > world.microseconds ? .absent : nil
        case nil: nil
        }
    }

    func install(_ row: StoredRow, key: [UInt8], hash: UInt64, pool: Int) {
        let expiry = row.expiryMilliseconds
        put(.row(row, until: expiry == 0 ? .max : world.microseconds(unixMilliseconds: expiry)), key, hash)
    }

    func installAbsent(key: [UInt8], hash: UInt64, pool: Int) {
        put(.absent(until: (world.microseconds / 1000 + UInt64(negativeMilliseconds)) * 1000), key, hash)
    }

    func drop(key: [UInt8], hash: UInt64) { copies[key] = nil }

    private func put(_ copy: Copy, _ key: [UInt8], _ hash: UInt64) {
        copies[key] = nil
        if world.random.chance(noMemory) { return world.noteFault("no memory") }
        while copies.count >= capacity { evictOne() }
        copies[key] = copy
        hashes[key] = hash
    }

    /// Forgets a copy, any.
    func evictOne() {
        let keys = copies.keys.sorted { $0.lexicographicallyPrecedes($1) }
        guard !keys.isEmpty else { return }
        let key = keys[world.random.below(keys.count)]
        copies[key] = nil
        if let hash = hashes[key] { evicted.append(hash) }
    }

    /// The keys that it has copies of, with their hashes.
    var held: [(key: [UInt8], hash: UInt64)] {
        copies.keys.sorted { $0.lexicographicallyPrecedes($1) }.map { ($0, hashes[$0] ?? 0) }
    }

    func takeEvicted() -> [UInt64] {
        defer { evicted = [] }
        return evicted
    }

    func removeAll() { copies = [:] }

    /// Forgets the copies that have a time, and that rows are not there.
    func removeTimed() {
        copies = copies.filter { if case .row(_, until: .max) = $0.value { true } else { false } }
    }
}
