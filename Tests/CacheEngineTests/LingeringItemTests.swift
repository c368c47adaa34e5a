// Martlet
// SPDX-License-Identifier: Apache-2.0

import CacheEngine
import Memory
import Testing

/// Items that stay behind their expiry for who asks for them.
struct LingeringItemTests {
    private let engine: CacheEngine
    private let key: [UInt8] = Array("key".utf8)
    private var hash: UInt64 { stableHash(key.span, seed: engine.hashSeed) }

    init() {
        var configuration = EngineConfiguration(limitBytes: 1 << 20)
        configuration.lingerSeconds = 10
        engine = CacheEngine(configuration)
    }

    private func store(lingers: Bool, bytes: Int = 5) {
        let (hash, key) = (hash, key)
        let request = StoreRequest(mode: .set, clientFlags: 0, expiry: 110, compare: 0, version: 7)
        let value = [UInt8](repeating: 120, count: bytes)
        engine.withShard(hash) { shard in
            let result = shard.store(hash, key: key.span, value: value.span, request, now: 100)
            #expect(result.outcome == .stored)
            guard lingers, var item = shard.find(hash, key.span, now: 100) else { return }
            item.linger()
        }
    }

    /// Which of the three ways of looking find the item.
    private func found(now: UInt32) -> (toRead: Bool, lingering: Bool) {
        let (hash, key) = (hash, key)
        return engine.withShard(hash) { shard in
            (
                shard.findToRead(hash, key.span, now: now) != nil,
                shard.findLingering(hash, key.span, now: now) != nil
            )
        }
    }

    @Test(arguments: [5, 300_000])
    func staysForWhoAsks(bytes: Int) {
        store(lingers: true, bytes: bytes)
        #expect(found(now: 109) == (true, true))
        #expect(found(now: 110) == (false, true))
        for shard in 0..<engine.shardCount { _ = engine.sweepExpired(shard: shard, now: 119) }
        #expect(found(now: 119) == (false, true))
        for shard in 0..<engine.shardCount { _ = engine.sweepExpired(shard: shard, now: 120) }
        #expect(engine.statistics().items == 0)
    }

    @Test func goesWhenItsTimeIsOver() {
        store(lingers: true)
        #expect(found(now: 120) == (false, false))
        #expect(engine.statistics().items == 0)
    }

    @Test func othersDoNotLinger() {
        store(lingers: false)
        #expect(found(now: 110) == (false, false))
    }

    @Test func aWriteTakesItsPlaceOnce() {
        store(lingers: true)
        let (hash, key) = (hash, key)
        let request = StoreRequest(mode: .add, clientFlags: 0, expiry: 0, compare: 0, version: 8)
        let result = engine.withShard(hash) {
            $0.store(hash, key: key.span, value: [1].span, request, now: 115)
        }
        #expect(result.outcome == .stored)
        #expect(engine.statistics().items == 1)
        #expect(found(now: 200) == (true, true))
    }

    @Test func anOverwriteInPlaceEndsLingering() {
        store(lingers: true)
        store(lingers: false)
        #expect(found(now: 110) == (false, false))
    }
}
