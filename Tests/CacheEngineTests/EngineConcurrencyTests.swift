// Martlet
// SPDX-License-Identifier: Apache-2.0

import CacheEngine
import Memory
import Platform
import Synchronization
import Testing

/// The engine with several threads at once; `make sanitize` runs these under the thread and address sanitizers.
@Suite(.serialized)
struct EngineConcurrencyTests {
    static let threads = 5

    @Test func readersSeeWholeValuesWhateverTheOthersDo() throws {
        let shared = EngineStress(limitBytes: 4 << 20, keyCount: 4000, seed: Seed.current)
        try EngineStress.run(threads: Self.threads) { number in
            var worker = StressWorker(shared, thread: number)
            for _ in 0..<30_000 { worker.step() }
        }
        #expect(shared.failures.isEmpty, "seed \(shared.seed): \(shared.failures)")
        #expect(shared.hits.load(ordering: .relaxed) > 5000, "seed \(shared.seed): too few hits to mean anything")
        #expect(shared.largeHits.load(ordering: .relaxed) > 100, "seed \(shared.seed): too few pinned reads")
        #expect(shared.accountsAgree(), "seed \(shared.seed)")
        shared.engine.removeAll()
        let after = shared.engine.statistics()
        #expect(after.items == 0 && after.itemBytes == 0 && after.segments == 0 && after.deadBytes == 0)
    }

    @Test func hintsMayBeTakenWhileTheIndexGrowsAndIsEmptied() throws {
        let shared = EngineStress(limitBytes: 32 << 20, keyCount: 20_000, seed: Seed.current, shards: 1)
        let isDone = Atomic<Bool>(false)
        try EngineStress.run(threads: 3) { number in
            var random = SplitMix(state: shared.seed &+ UInt64(number))
            guard number > 0 else {
                // The one writer: grows the index to many chunks, twice over.
                defer { isDone.store(true, ordering: .releasing) }
                for round in 0..<2 {
                    for key in 0..<shared.keyCount { Self.put(shared, key, round) }
                    if round == 0 { shared.engine.removeAll() }
                }
                return
            }
            while !isDone.load(ordering: .acquiring) {
                let hash = shared.hash(shared.keyBytes(random.below(shared.keyCount)))
                shared.engine.prefetchIndex(hash)
                shared.engine.prefetchItem(hash)
            }
        }
        #expect(shared.engine.statistics().items == shared.keyCount)
        #expect(shared.accountsAgree())
    }

    private static func put(_ shared: EngineStress, _ key: Int, _ round: Int) {
        let bytes = shared.keyBytes(key)
        let (value, hash) = (StampedValue.record(key: key, nonce: UInt64(round), length: 8), shared.hash(bytes))
        let request = StoreRequest(
            mode: .set, clientFlags: 0, expiry: 0, compare: 0, version: shared.engine.newVersion())
        let result = shared.engine.withShard(hash) {
            $0.store(hash, key: bytes.span, value: value.span, request, now: 100)
        }
        if result.outcome != .stored { shared.fail("key \(key): \(result.outcome)") }
    }

    @Test func noIncrementIsLost() throws {
        let shared = EngineStress(limitBytes: 4 << 20, keyCount: 1, seed: Seed.current)
        let (bytes, rounds) = (Array("counter".utf8), 10_000)
        let hash = shared.hash(bytes)
        Self.set(shared, bytes, hash, Array("0".utf8))
        try EngineStress.run(threads: Self.threads) { _ in
            for _ in 0..<rounds {
                let version = shared.engine.newVersion()
                let outcome = shared.engine.withShard(hash) {
                    $0.add(3, increment: true, hash, key: bytes.span, compare: 0, version: version, now: 100)
                }
                guard case .value = outcome else { return shared.fail("\(outcome)") }
            }
        }
        #expect(shared.failures == [])
        #expect(Self.text(shared, bytes, hash) == "\(3 * rounds * Self.threads)")
    }

    @Test func oneOfTheComparesWithOneVersionWins() throws {
        let shared = EngineStress(limitBytes: 4 << 20, keyCount: 1, seed: Seed.current)
        let bytes = Array("compared".utf8)
        let hash = shared.hash(bytes)
        let wins = Atomic<Int>(0)
        Self.set(shared, bytes, hash, Array("0".utf8))
        try EngineStress.run(threads: Self.threads) { _ in
            for _ in 0..<4000 where Self.incrementByCompare(shared, bytes, hash) { wins.add(1, ordering: .relaxed) }
        }
        #expect(Self.text(shared, bytes, hash) == "\(wins.load(ordering: .relaxed))")
        #expect(wins.load(ordering: .relaxed) >= 4000)
    }

    /// Reads a number and its version, then stores the next number if the version is still the same.
    private static func incrementByCompare(_ shared: EngineStress, _ bytes: [UInt8], _ hash: UInt64) -> Bool {
        let read = shared.engine.withShard(hash) { shard -> UInt64? in
            shard.find(hash, bytes.span, now: 100)?.version
        }
        guard let version = read, let number = Int(text(shared, bytes, hash)) else { return false }
        let next = Array("\(number + 1)".utf8)
        let request = StoreRequest(
            mode: .compareAndSet, clientFlags: 0, expiry: 0, compare: version, version: shared.engine.newVersion())
        return shared.engine.withShard(hash) {
            $0.store(hash, key: bytes.span, value: next.span, request, now: 100).outcome == .stored
        }
    }

    @Test func noAppendedRecordIsLost() throws {
        let shared = EngineStress(limitBytes: 16 << 20, keyCount: 1, seed: Seed.current)
        let bytes = shared.keyBytes(1)
        let hash = shared.hash(bytes)
        Self.set(shared, bytes, hash, StampedValue.record(key: 1, nonce: .max, length: 0))
        try EngineStress.run(threads: Self.threads) { number in
            for round in 0..<200 {
                let record = StampedValue.record(key: 1, nonce: UInt64(number * 1000 + round), length: round % 40)
                let request = StoreRequest(
                    mode: round % 2 == 0 ? .append : .prepend, clientFlags: 0, expiry: 0, compare: 0,
                    version: shared.engine.newVersion())
                let result = shared.engine.withShard(hash) {
                    $0.store(hash, key: bytes.span, value: record.span, request, now: 100)
                }
                if result.outcome != .stored { shared.fail("\(result.outcome)") }
            }
        }
        #expect(shared.failures == [])
        let nonces = shared.engine.withShard(hash) { shard -> [UInt64]? in
            guard let item = shard.find(hash, bytes.span, now: 100) else { return nil }
            return item.bytes.slice(item.valueOffset, item.valueLength).withSpan { StampedValue.nonces(in: $0, key: 1) }
        }
        let wanted = (0..<Self.threads).flatMap { number in (0..<200).map { UInt64(number * 1000 + $0) } } + [.max]
        #expect(nonces?.sorted() == wanted.sorted())
    }

    private static func set(_ shared: EngineStress, _ bytes: [UInt8], _ hash: UInt64, _ value: [UInt8]) {
        let request = StoreRequest(
            mode: .set, clientFlags: 0, expiry: 0, compare: 0, version: shared.engine.newVersion())
        _ = shared.engine.withShard(hash) { $0.store(hash, key: bytes.span, value: value.span, request, now: 100) }
    }

    private static func text(_ shared: EngineStress, _ bytes: [UInt8], _ hash: UInt64) -> String {
        shared.engine.withShard(hash) { shard in
            guard let item = shard.find(hash, bytes.span, now: 100) else { return "absent" }
            return item.bytes.slice(item.valueOffset, item.valueLength).withSpan { span in
                String(decoding: span.indices.map { span[$0] }.prefix { $0 != 32 }, as: UTF8.self)
            }
        }
    }
}
