// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Synchronization

/// How hot keys are found and served.
package struct HotKeySettings: Sendable, Equatable {
    /// How long a value that was read is given to others; 0 for not at all. Nanoseconds.
    package var cacheNanoseconds: UInt64 = 0
    /// Reads a second, of one thread, that make a key hot.
    package var threshold = 1000
    /// Servers that a hot key of a look-aside pool is read from, its own among them; 1 for no other.
    package var copies = 1
    /// How long a copy lives that was made on another one: at least 1. Seconds.
    package var copySeconds = 1
    /// Whether servers are asked which keys they are asked for most, by all routers together.
    package var learns = true

    /// Copies at most.
    package static var mostCopies: Int { 16 }

    /// None are served.
    package init() {}
}

/// Counts the writes that a router knows of, by hash of their keys, when they are sent and when they are over: what was
/// read before or during a write is not given to anybody who asks later. Shared by all reactors.
final class WriteVersions: Sendable {
    private static var places: Int { 4096 }
    private let started = FixedArray<Atomic<UInt64>>(count: WriteVersions.places) { _ in Atomic(0) }
    private let ended = FixedArray<Atomic<UInt64>>(count: WriteVersions.places) { _ in Atomic(0) }

    /// A key will be written.
    func begin(_ hash: UInt64) { started[Self.place(hash)].add(1, ordering: .sequentiallyConsistent) }

    /// That is over; once for each ``begin(_:)``.
    func end(_ hash: UInt64) { ended[Self.place(hash)].add(1, ordering: .sequentiallyConsistent) }

    /// Every key was written.
    func bumpAll() {
        for place in 0..<Self.places {
            started[place].add(1, ordering: .sequentiallyConsistent)
            ended[place].add(1, ordering: .sequentiallyConsistent)
        }
    }

    /// Changes with each write of a key that begins.
    subscript(hash: UInt64) -> UInt64 { started[Self.place(hash)].load(ordering: .sequentiallyConsistent) }

    /// The same; nil while a write is under way.
    func quiet(_ hash: UInt64) -> UInt64? {
        let done = ended[Self.place(hash)].load(ordering: .sequentiallyConsistent)
        let version = self[hash]
        return done == version ? version : nil
    }

    private static func place(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: hash & UInt64(places - 1)) }
}

/// Keys that servers said are hot, by hash, each for a while. Written by one reactor, read by all.
final class ReportedKeys: Sendable {
    private let keys = Guarded<[UInt64: UInt64]>([:])
    private let changes = Atomic<UInt64>(0)

    /// Counts the changes.
    var epoch: UInt64 { changes.load(ordering: .acquiring) }
    /// What holds now.
    var hashes: Set<UInt64> { keys.withLock { Set($0.keys) } }

    /// These were reported; they count until a time. Those whose time is over go.
    func note(_ hashes: Set<UInt64>, until time: UInt64, now: UInt64) {
        let isChanged = keys.withLock { keys in
            let before = Set(keys.keys)
            for hash in hashes { keys[hash] = time }
            keys = keys.filter { $0.value > now }
            return before != Set(keys.keys)
        }
        if isChanged { changes.add(1, ordering: .releasing) }
    }
}

/// Keys that one reactor's clients read so often that it gives a value that one of them read to the others, for some
/// milliseconds.
///
/// A sample of the reads votes for keys: each of 256 places, by the hash, has one candidate, which gains by votes for
/// it and loses by votes for others (Boyer and Moore's majority vote). Once a second candidates with enough votes are
/// the hot keys. A value counts while no write of its key that the router knows of was under way when it was asked for,
/// or began since.
struct HotCache: ~Copyable {
    private let settings: HotKeySettings
    private var candidates = [Candidate](repeating: Candidate(), count: HotCache.placeCount)
    private var entries = [Entry](repeating: Entry(), count: HotCache.placeCount)
    /// How many keys are hot.
    private(set) var count = 0
    private var countdown = 1
    private var state: UInt64 = 0x9E37_79B9_7F4A_7C15
    private var nextChoice: UInt64 = 0
    /// Hashes of keys that are hot because servers say so.
    private var reported: Set<UInt64> = []

    private static var placeCount: Int { 256 }
    private static var sampleInterval: Int { 32 }
    private static var periodNanoseconds: UInt64 { 1_000_000_000 }
    /// Seconds without a sample after which a key that a server called hot is none here.
    private static var idleMax: Int { 3 }
    /// Bytes of a reply that is kept, at most.
    static var replyLimit: Int { 64 << 10 }

    private struct Candidate {
        var hash: UInt64 = 0
        var key: [UInt8] = []
        var votes = 0
    }

    private struct Entry {
        var isHot = false
        var hash: UInt64 = 0
        var key: [UInt8] = []
        /// The value with its line, and until when it counts.
        var reply: [UInt8] = []
        var until: UInt64 = 0
        var version: UInt64 = 0
        /// Whether a request for it is under way whose reply will be kept.
        var isAsked = false
        /// Seconds in which no sample had it.
        var idle = 0
    }

    init(_ settings: HotKeySettings) { self.settings = settings }

    /// Notes that a key is read, and says which hot one it is; -1 when it is none.
    @inline(__always)
    mutating func note(_ hash: UInt64, _ key: Span<UInt8>) -> Int {
        countdown &-= 1
        if countdown == 0 { vote(hash, key) }
        return find(hash)
    }

    @inline(__always)
    private func find(_ hash: UInt64) -> Int {
        let place = Self.place(hash)
        return entries[place].isHot && entries[place].hash == hash ? place : -1
    }

    /// Which of so many copies of a key is read now, by chance: 0 for its owner's.
    mutating func choose(of copies: Int) -> Int {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int(state % UInt64(copies))
    }

    @inline(never)
    private mutating func vote(_ hash: UInt64, _ key: Span<UInt8>) {
        // A random distance, or a client that repeats a pattern would show one of its keys only.
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        countdown = 1 + Int(state % UInt64(2 * Self.sampleInterval - 1))
        let place = Self.place(hash)
        if !reported.isEmpty, !entries[place].isHot, reported.contains(hash) {
            entries[place] = Entry(isHot: true, hash: hash, key: [UInt8](copying: key))
            count += 1
        }
        if entries[place].hash == hash { entries[place].idle = 0 }
        if candidates[place].votes > 0, candidates[place].hash != hash {
            candidates[place].votes -= 1
            return
        }
        candidates[place].votes += 1
        guard candidates[place].hash != hash else { return }
        candidates[place].hash = hash
        candidates[place].key.removeAll(keepingCapacity: true)
        for index in 0..<key.count { candidates[place].key.append(key[index]) }
    }

    private static func place(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: hash >> 32 & UInt64(placeCount - 1)) }

    /// Whether the value of a hot key may be given to who asks now.
    @inline(__always)
    func isFresh(_ place: Int, _ key: Span<UInt8>, _ versions: WriteVersions, now: UInt64) -> Bool {
        now < entries[place].until && entries[place].version == versions[entries[place].hash] && isSame(place, key)
    }

    private func isSame(_ place: Int, _ key: Span<UInt8>) -> Bool {
        guard entries[place].key.count == key.count else { return false }
        for index in 0..<key.count where entries[place].key[index] != key[index] { return false }
        return true
    }

    /// Appends the value with its line.
    func append(_ place: Int, to output: inout OutputBuffer) {
        let reply = entries[place].reply
        output.append(reply.span)
    }

    /// Whether the reply of the request that is about to be sent is to be kept.
    mutating func ask(_ place: Int, _ key: Span<UInt8>, _ versions: WriteVersions) -> Bool {
        guard !entries[place].isAsked, isSame(place, key), let version = versions.quiet(entries[place].hash) else {
            return false
        }
        entries[place].isAsked = true
        entries[place].until = 0
        entries[place].version = version
        return true
    }

    /// That request was answered with a value and its line; with nothing, it was not, or not with what can be kept.
    mutating func answered(_ hash: UInt64, _ reply: Span<UInt8>, _ versions: WriteVersions, now: UInt64) {
        let place = find(hash)
        guard place >= 0, entries[place].isAsked else { return }
        entries[place].isAsked = false
        guard 1...Self.replyLimit ~= reply.count, entries[place].version == versions[hash] else { return }
        entries[place].reply.removeAll(keepingCapacity: true)
        for index in 0..<reply.count { entries[place].reply.append(reply[index]) }
        entries[place].until = now &+ settings.cacheNanoseconds
    }

    /// Servers say that these are hot, and no others.
    mutating func setReported(_ hashes: Set<UInt64>) { reported = hashes }

    /// Once a second: which keys are hot now. Those that stay keep what is known of them.
    mutating func choose(now: UInt64) {
        guard now >= nextChoice else { return }
        let elapsed = nextChoice == 0 ? Self.periodNanoseconds : now &- nextChoice &+ Self.periodNanoseconds
        nextChoice = now &+ Self.periodNanoseconds
        let scale = Double(Self.sampleInterval) * 1e9 / Double(elapsed)
        count = 0
        for place in 0..<Self.placeCount {
            let isHot = Double(candidates[place].votes) * scale >= Double(settings.threshold)
            candidates[place].votes = 0
            entries[place].idle += 1
            let isKept =
                entries[place].isHot && entries[place].idle <= Self.idleMax && reported.contains(entries[place].hash)
            if isHot || isKept { count += 1 }
            if isHot, !entries[place].isHot || entries[place].hash != candidates[place].hash {
                entries[place] = Entry(isHot: true, hash: candidates[place].hash, key: candidates[place].key)
            } else if !isHot, !isKept, entries[place].isHot {
                entries[place] = Entry()
            }
        }
    }
}
