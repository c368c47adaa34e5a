// Martlet
// SPDX-License-Identifier: Apache-2.0

import CacheEngine
import Memory
import Testing

/// Entries that say that there is no row, and leases, which outlive that.
struct AbsentItemTests {
    private let engine = CacheEngine(EngineConfiguration(limitBytes: 1 << 20))
    private let key: [UInt8] = Array("key".utf8)
    private var hash: UInt64 { stableHash(key.span, seed: engine.hashSeed) }

    private func noteAbsent(until expiry: UInt32, now: UInt32) {
        let (hash, key) = (hash, key)
        engine.withShard(hash) { shard in
            let isNoted = shard.noteAbsent(hash, key: key.span, expiry: expiry, now: now)
            #expect(isNoted)
        }
    }

    /// A client is told to bring the row.
    private func lease(until end: UInt32, absentUntil absence: UInt32, now: UInt32) {
        let (hash, key) = (hash, key)
        engine.withShard(hash) { shard in
            var shape = ItemShape(keyLength: key.count, valueLength: 0, clientFlags: absence, expiry: end)
            shape.reservesExpiry = true
            let old = shard.find(hash, key.span, now: now)
            var item = shard.create(hash, key: key.span, shape, version: 9, now: now, replacing: old)
            item?.setAbsent()
            item?.setTokenSent(true)
        }
    }

    private func forgetRow(now: UInt32) {
        let (hash, key) = (hash, key)
        engine.withShard(hash) { $0.forgetRow(hash, key: key.span, now: now) }
    }

    /// Whether there is an entry, whether it says that there is no row, and whether it is a lease.
    private func look(now: UInt32) -> [Bool] {
        let (hash, key) = (hash, key)
        return engine.withShard(hash) { shard in
            guard let item = shard.findToRead(hash, key.span, now: now) else { return [false, false, false] }
            return [true, item.saysAbsent(now: now), item.isLease]
        }
    }

    @Test func anEntryGoesWithItsTimeAndIsForgotten() {
        noteAbsent(until: 105, now: 100)
        #expect(look(now: 104) == [true, true, false])
        #expect(look(now: 105) == [false, false, false])
        noteAbsent(until: 205, now: 200)
        forgetRow(now: 201)
        #expect(look(now: 201) == [false, false, false])
    }

    @Test(arguments: [130, 0] as [UInt32])
    func aLeaseOutlivesWhatIsKnown(_ end: UInt32) {
        noteAbsent(until: 105, now: 100)
        lease(until: end, absentUntil: 105, now: 101)
        #expect(look(now: 104) == [true, true, true])
        #expect(look(now: 105) == [true, false, true])
        noteAbsent(until: 115, now: 110)
        #expect(look(now: 114) == [true, true, true])
        #expect(look(now: 115) == [true, false, true])
        noteAbsent(until: 125, now: 120)
        forgetRow(now: 121)
        #expect(look(now: 121) == [true, false, true])
        #expect(look(now: 130) == (end == 0 ? [true, false, true] : [false, false, false]))
    }

    @Test func aRowTakesItsPlace() {
        lease(until: 130, absentUntil: Item.unknownAbsence, now: 100)
        #expect(look(now: 100) == [true, false, true])
        let (hash, key) = (hash, key)
        let value = Array("value".utf8)
        let request = StoreRequest(mode: .set, clientFlags: 3, expiry: 0, compare: 0, version: 10)
        engine.withShard(hash) { shard in
            let result = shard.store(hash, key: key.span, value: value.span, request, now: 101)
            #expect(result.outcome == .stored)
        }
        #expect(look(now: 101) == [true, false, false])
        forgetRow(now: 101)
        #expect(look(now: 101) == [false, false, false])
    }
}
