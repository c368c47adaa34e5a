// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing

@testable import RouterProxy

/// Keys that servers call hot.
struct HotCacheTests {
    private let second: UInt64 = 1_000_000_000
    private let key = Array("key".utf8)
    private var hash: UInt64 { stableHash(key.span) }

    /// So many reads of the key; whether the last found it hot.
    private func read(_ cache: inout HotCache, _ count: Int) -> Bool {
        var isHot = false
        for _ in 0..<count { isHot = cache.note(hash, key.span) >= 0 }
        return isHot
    }

    @Test func aKeyThatAServerCallsHotIsHotOnceItIsRead() {
        var cache = HotCache(HotKeySettings())
        #expect(!read(&cache, 200))
        cache.choose(now: second)
        #expect(!read(&cache, 200), "so few reads make nothing hot")
        cache.setReported([hash, 5])
        #expect(read(&cache, 200) && cache.count == 1)
        cache.choose(now: 2 * second)
        #expect(read(&cache, 100), "it stays")
        cache.setReported([])
        cache.choose(now: 3 * second)
        #expect(!read(&cache, 1) && cache.count == 0)
    }

    @Test func whatNobodyReadsIsNotHotForLong() {
        var cache = HotCache(HotKeySettings())
        cache.setReported([hash])
        #expect(read(&cache, 200))
        for number in UInt64(1)...3 { cache.choose(now: number * second) }
        #expect(cache.count == 1)
        cache.choose(now: 4 * second)
        #expect(cache.count == 0)
    }

    @Test func reportsCountForAWhile() {
        let keys = ReportedKeys()
        keys.note([1, 2], until: 10, now: 0)
        let epoch = keys.epoch
        keys.note([2], until: 20, now: 5)
        #expect(keys.epoch == epoch && keys.hashes == [1, 2], "nothing changed")
        keys.note([], until: 0, now: 10)
        #expect(keys.epoch != epoch && keys.hashes == [2])
        keys.note([], until: 0, now: 20)
        #expect(keys.hashes.isEmpty)
    }
}
