// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform

/// A key and how often it was asked for, estimated.
struct HotKey: Sendable {
    let key: [UInt8]
    /// Requests, scaled up from the sample.
    let count: UInt64
    /// By how much `count` may be too high, at most.
    let error: UInt64
}

/// Which keys are asked for most: a Space-Saving sketch per reactor, fed with a sample of the reads.
///
/// One read in 64 (with a random distance) takes the sketch's lock, which nobody else wants except for statistics, and
/// updates one of its 64 places; that keeps the cost under a nanosecond a request. A sketch per reactor rather than per
/// shard needs no time under a shard's lock. Source: Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent
/// and Top-k Elements in Data Streams" (2005).
final class HotKeys: Sendable {
    static var sampleInterval: Int { 64 }

    let isOn: Bool
    private let sketches: [Guarded<SpaceSaving>]
    private let recent: [Guarded<RecentReads>]

    init(reactors: Int, isOn: Bool) {
        self.isOn = isOn
        sketches = (0..<reactors).map { _ in Guarded(SpaceSaving()) }
        recent = (0..<reactors).map { _ in Guarded(RecentReads()) }
    }

    fileprivate func note(_ hash: UInt64, _ key: Span<UInt8>, reactor: Int) {
        sketches[reactor].withLock { $0.note(hash, key) }
        let now = Clock.monotonicNanoseconds()
        // Not the engine's hash, which is another one in each process.
        let stable = stableHash(key)
        recent[reactor].withLock { $0.note(stable, now: now) }
    }

    /// The keys that are read most now, by the stable hash of each, with reads a second; most first.
    func rates(_ limit: Int) -> [(hash: UInt64, perSecond: UInt64)] {
        let now = Clock.monotonicNanoseconds()
        var merged: [UInt64: Double] = [:]
        for sketch in recent {
            for (hash, rate) in sketch.withLock({ $0.rates(now: now) }) { merged[hash, default: 0] += rate }
        }
        let sorted = merged.sorted { ($0.value, $0.key) > ($1.value, $1.key) }
        return sorted.prefix(limit).map { ($0.key, UInt64($0.value * Double(Self.sampleInterval))) }
    }

    /// The `limit` hottest keys, hottest first.
    func top(_ limit: Int) -> [HotKey] {
        var merged: [UInt64: SpaceSaving.Entry] = [:]
        for sketch in sketches {
            for entry in sketch.withLock({ $0.entries }) {
                merged[entry.hash, default: SpaceSaving.Entry(hash: entry.hash, key: entry.key, count: 0, error: 0)]
                    .add(entry)
            }
        }
        let scale = UInt64(Self.sampleInterval)
        return merged.values.sorted { ($0.count, $0.hash) > ($1.count, $1.hash) }.prefix(limit).map {
            HotKey(key: $0.key, count: $0.count * scale, error: $0.error * scale)
        }
    }

    /// Forgets everything.
    func reset() { for sketch in sketches { sketch.withLock { $0.entries.removeAll() } } }
}

/// Metwally's stream summary over a few places; small enough that a scan beats a heap.
struct SpaceSaving: Sendable {
    struct Entry: Sendable {
        var hash: UInt64
        var key: [UInt8]
        var count: UInt64
        var error: UInt64

        mutating func add(_ other: Entry) {
            count += other.count
            error += other.error
        }
    }

    static var places: Int { 64 }
    var entries: [Entry] = []

    mutating func note(_ hash: UInt64, _ key: Span<UInt8>) {
        var least = 0
        for index in entries.indices {
            if entries[index].hash == hash {
                entries[index].count += 1
                return
            }
            if entries[index].count < entries[least].count { least = index }
        }
        if entries.count < Self.places {
            entries.append(Entry(hash: hash, key: Self.copy(key), count: 1, error: 0))
            return
        }
        // The newcomer inherits the count of the one it replaces: it may have been as frequent.
        let count = entries[least].count
        entries[least].hash = hash
        entries[least].count = count + 1
        entries[least].error = count
        entries[least].key.removeAll(keepingCapacity: true)
        for index in key.indices { entries[least].key.append(key[index]) }
    }

    private static func copy(_ key: Span<UInt8>) -> [UInt8] {
        var bytes: [UInt8] = []
        // Room for any key at once, so that a replacement never allocates.
        bytes.reserveCapacity(250)
        for index in key.indices { bytes.append(key[index]) }
        return bytes
    }
}

/// Picks the reads that the sketch sees.
struct HotKeySampler {
    private let hotKeys: HotKeys
    private let reactor: Int
    private var countdown: Int
    private var state: UInt64

    init(_ hotKeys: HotKeys, reactor: Int) {
        self.hotKeys = hotKeys
        self.reactor = reactor
        countdown = hotKeys.isOn ? 1 : Int.max
        state = UInt64(reactor) &+ 0x9E37_79B9_7F4A_7C15
    }

    @inline(__always)
    mutating func note(_ hash: UInt64, _ key: Span<UInt8>) {
        countdown &-= 1
        if countdown == 0 { take(hash, key) }
    }

    @inline(never)
    private mutating func take(_ hash: UInt64, _ key: Span<UInt8>) {
        // A random distance, or a client that repeats a pattern of 64 keys would show one of them only.
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        countdown = 1 + Int(state % UInt64(2 * HotKeys.sampleInterval - 1))
        hotKeys.note(hash, key, reactor: reactor)
    }
}
