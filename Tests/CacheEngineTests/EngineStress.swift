// Martlet
// SPDX-License-Identifier: Apache-2.0

import CacheEngine
import Memory
import Platform
import Synchronization

/// What the threads of a concurrency test share: an engine, its keys, a clock, and what went wrong.
final class EngineStress: Sendable {
    let engine: CacheEngine
    let seed: UInt64
    let keyCount: Int
    let now = Atomic<UInt32>(100)
    let hits = Atomic<Int>(0)
    let largeHits = Atomic<Int>(0)
    private let faults = Guarded<[String]>([])

    init(limitBytes: Int, keyCount: Int, seed: UInt64, evicts: Bool = true, shards: Int = 0) {
        self.seed = seed
        self.keyCount = keyCount
        var configuration = EngineConfiguration(limitBytes: limitBytes, hashSeed: seed)
        configuration.evicts = evicts
        configuration.shardCount = shards
        engine = CacheEngine(configuration)
    }

    /// Notes a fault; the first few are kept.
    func fail(_ what: String) { faults.withLock { if $0.count < 5 { $0.append(what) } } }

    var failures: [String] { faults.withLock { $0 } }

    /// Every tenth key holds numbers, for arithmetic.
    func isNumeric(_ key: Int) -> Bool { key % 10 == 0 }

    func keyBytes(_ key: Int) -> [UInt8] { Array("key:\(key)".utf8) }

    func hash(_ bytes: [UInt8]) -> UInt64 { stableHash(bytes.span, seed: engine.hashSeed) }

    /// Runs `count` threads of `body`, each with its number, and waits for all.
    static func run(threads count: Int, _ body: @escaping @Sendable (Int) -> Void) throws {
        let threads = try (0..<count).map { number in try Thread(name: "stress-\(number)") { body(number) } }
        for thread in threads { thread.join() }
    }

    /// Whether what a shard counts agrees with what lies in it. Only when nobody writes.
    func accountsAgree() -> Bool {
        var (items, bytes) = (0, 0)
        for shard in 0..<engine.shardCount {
            var bucket = 0
            while engine.forEachItem(
                shard: shard, bucket: bucket,
                { item in
                    items += 1
                    bytes += item.size
                })
            { bucket += 1 }
        }
        let statistics = engine.statistics()
        return statistics.items == items && statistics.itemBytes == bytes
    }
}

/// One thread's operations on a shared engine, by its own random numbers.
struct StressWorker {
    let shared: EngineStress
    var random: SplitMix

    init(_ shared: EngineStress, thread: Int) {
        self.shared = shared
        random = SplitMix(state: shared.seed &+ UInt64(thread) &* 0x1234_5678_9ABC)
    }

    var engine: CacheEngine { shared.engine }
    var now: UInt32 { shared.now.load(ordering: .relaxed) }

    mutating func step() {
        // Half of the operations meet on a few keys.
        let key = random.below(2) == 0 ? random.below(32) : random.below(shared.keyCount)
        let bytes = shared.keyBytes(key)
        let hash = shared.hash(bytes)
        engine.prefetchIndex(hash)
        engine.prefetchItem(hash)
        switch random.below(100) {
        case 0..<40: read(key, bytes, hash)
        case 40..<62: store(key, bytes, hash, .set)
        case 62..<65: store(key, bytes, hash, random.below(2) == 0 ? .add : .replace)
        case 65..<72: join(key, bytes, hash)
        case 72..<79: arithmetic(key, bytes, hash)
        case 79..<86: storeLarge(key, bytes, hash)
        case 86..<91: remove(bytes, hash)
        case 91..<96: touch(bytes, hash)
        case 96..<98: sweep()
        default: rare()
        }
    }

    /// Looks at a value under the lock; at a large one also without it, pinned.
    private mutating func read(_ key: Int, _ bytes: [UInt8], _ hash: UInt64) {
        let (shared, now) = (shared, now)
        let pinned = engine.withShard(hash) { shard -> (UInt64, MemoryBlock)? in
            guard var item = shard.find(hash, bytes.span, now: now) else { return nil }
            item.noteRead(now: now)
            let value = item.bytes.slice(item.valueOffset, item.valueLength)
            Self.check(value, key, shared, "under the lock")
            return shard.isLarge(item) ? (shard.pin(item), value) : nil
        }
        guard let (token, value) = pinned else { return }
        Self.check(value, key, shared, "pinned")
        shared.largeHits.add(1, ordering: .relaxed)
        engine.unpin(token)
    }

    private static func check(_ value: MemoryBlock, _ key: Int, _ shared: EngineStress, _ place: String) {
        shared.hits.add(1, ordering: .relaxed)
        let isWhole = value.withSpan {
            shared.isNumeric(key) ? StampedValue.isNumber($0) : StampedValue.nonces(in: $0, key: key) != nil
        }
        if !isWhole { shared.fail("key \(key) has a value of \(value.count) bytes that is not whole, \(place)") }
    }

    private mutating func request(_ mode: StoreMode) -> StoreRequest {
        StoreRequest(
            mode: mode, clientFlags: random.below(3) == 0 ? 7 : 0, expiry: random.below(4) == 0 ? now + 3 : 0,
            compare: 0,
            version: engine.newVersion())
    }

    private mutating func value(_ key: Int, length: Int) -> [UInt8] {
        if shared.isNumeric(key) { return Array(String(random.next() >> UInt64(random.below(64))).utf8) }
        return StampedValue.record(key: key, nonce: random.next(), length: length)
    }

    private mutating func store(_ key: Int, _ bytes: [UInt8], _ hash: UInt64, _ mode: StoreMode) {
        // Few lengths, so that overwriting in place happens often.
        let value = value(key, length: random.below(4) * 50)
        let (request, now) = (request(mode), now)
        let result = engine.withShard(hash) { $0.store(hash, key: bytes.span, value: value.span, request, now: now) }
        if result.outcome == .outOfMemory { _ = engine.makeRoom(bytes: value.count + (64 << 10), now: now) }
    }

    private mutating func join(_ key: Int, _ bytes: [UInt8], _ hash: UInt64) {
        guard !shared.isNumeric(key) else { return }
        let value = value(key, length: random.below(30))
        let (request, now) = (request(random.below(2) == 0 ? .append : .prepend), now)
        _ = engine.withShard(hash) { shard -> StoreOutcome in
            if let item = shard.find(hash, bytes.span, now: now), item.valueLength > 20_000 { return .notStored }
            return shard.store(hash, key: bytes.span, value: value.span, request, now: now).outcome
        }
    }

    private mutating func arithmetic(_ key: Int, _ bytes: [UInt8], _ hash: UInt64) {
        let (delta, version, now) = (random.next() >> 40, engine.newVersion(), now)
        let isUp = random.below(2) == 0
        let outcome = engine.withShard(hash) {
            $0.add(delta, increment: isUp, hash, key: bytes.span, compare: 0, version: version, now: now)
        }
        if case .value = outcome, !shared.isNumeric(key) { shared.fail("key \(key) took part in arithmetic") }
    }

    private mutating func storeLarge(_ key: Int, _ bytes: [UInt8], _ hash: UInt64) {
        guard !shared.isNumeric(key) else { return }
        let value = value(key, length: 4000 + random.below(60_000))
        let (request, now) = (request(random.below(4) == 0 ? .add : .set), now)
        let shape = ItemShape(
            keyLength: bytes.count, valueLength: value.count, clientFlags: request.clientFlags, expiry: request.expiry)
        guard let prepared = engine.prepare(key: bytes.span, shape, now: now) else { return }
        prepared.value.copy(value.span, at: 0)
        if random.below(10) == 0 { return engine.discard(prepared) }
        _ = engine.commit(prepared, hash, key: bytes.span, request, now: now)
    }

    private mutating func remove(_ bytes: [UInt8], _ hash: UInt64) {
        let now = now
        engine.withShard(hash) { shard in
            if let item = shard.find(hash, bytes.span, now: now) { shard.remove(item, hash) }
        }
    }

    private mutating func touch(_ bytes: [UInt8], _ hash: UInt64) {
        let (now, expiry) = (now, random.below(3) == 0 ? 0 : now + UInt32(random.below(6)))
        engine.withShard(hash) { shard in
            guard let item = shard.find(hash, bytes.span, now: now) else { return }
            _ = shard.setExpiry(expiry, of: item, hash, key: bytes.span, now: now)
        }
    }

    private mutating func sweep() { _ = engine.sweepExpired(shard: random.below(engine.shardCount), now: now) }

    private mutating func rare() {
        switch random.below(40) {
        case 0: engine.removeAll()
        case 1..<8: engine.setLimit(bytes: engine.configuration.limitBytes >> random.below(3), now: now)
        case 8..<20: _ = engine.statistics()
        case 20..<25: shared.now.add(1, ordering: .relaxed)
        case 25: engine.resetStatistics()
        default:
            let shard = random.below(engine.shardCount)
            var size = 0
            _ = engine.forEachItem(shard: shard, bucket: random.below(64)) { size += $0.size }
        }
    }
}
