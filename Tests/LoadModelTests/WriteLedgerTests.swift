// Martlet
// SPDX-License-Identifier: Apache-2.0

import Synchronization
import Testing

@testable import LoadModel

struct WriteLedgerTests {
    private var ledger = WriteLedger(limit: 10)

    private mutating func acknowledge(_ key: UInt64, _ entry: (version: UInt32, supersedes: SupersededVersions)) {
        ledger.acknowledge(key, version: entry.version, supersedes: entry.supersedes)
    }

    private func seen(_ key: UInt64, upTo last: UInt32) -> [UInt32] {
        (1...last).filter { ledger.superseded(key).contains($0) }
    }

    @Test mutating func writesUnderWayAtOnceDoNotMakeEachOtherStale() {
        let first = ledger.send(1)
        let second = ledger.send(1)
        #expect((first.version, second.version) == (1, 2))
        acknowledge(1, first)
        acknowledge(1, second)
        #expect(seen(1, upTo: 2) == [])
        let third = ledger.send(1)
        #expect(seen(1, upTo: 3) == [])
        acknowledge(1, third)
        #expect(seen(1, upTo: 3) == [1, 2])
        #expect(!ledger.superseded(5).contains(1))
    }

    /// An older write that is still under way when a later one is sent may land after it.
    @Test mutating func whatIsStillUnderWayMayLandLater() {
        let slow = ledger.send(1)
        let second = ledger.send(1)
        acknowledge(1, second)
        let third = ledger.send(1)
        acknowledge(1, third)
        #expect(seen(1, upTo: 3) == [2])
        acknowledge(1, slow)
        #expect(seen(1, upTo: 3) == [2])
        acknowledge(1, ledger.send(1))
        #expect(seen(1, upTo: 4) == [1, 2, 3])
    }

    @Test mutating func whatDidNotTakeEffectSupersedesNothing() {
        acknowledge(1, ledger.send(1))
        let refused = ledger.send(1)
        ledger.settle(1, version: refused.version)
        #expect(seen(1, upTo: 2) == [])
        acknowledge(1, ledger.send(1))
        #expect(seen(1, upTo: 3) == [1, 2])
    }

    @Test mutating func anUnknownOutcomeStaysPossible() {
        _ = ledger.send(1)
        for _ in 0..<63 { acknowledge(1, ledger.send(1)) }
        #expect(seen(1, upTo: 64) == Array(2...63))
        // One more, and the first is too old to be remembered: nothing is told of the key any more.
        #expect(ledger.send(1).version == 0)
        #expect(seen(1, upTo: 64) == [])
        #expect(ledger.send(2).version == 1)
    }

    @Test mutating func nothingIsToldBehindTheLastVersion() {
        ledger = WriteLedger(limit: 10, versionLimit: 3)
        for version in 1...3 as ClosedRange<UInt32> {
            let entry = ledger.send(1)
            #expect(entry.version == version)
            acknowledge(1, entry)
        }
        #expect(ledger.send(1).version == 0)
        #expect(seen(1, upTo: 3) == [])
    }

    @Test mutating func keysOverTheLimitAreNotRemembered() {
        for key in 0..<10 as Range<UInt64> { #expect(ledger.send(key).version == 1) }
        #expect(ledger.send(10).version == 0)
        acknowledge(10, (0, SupersededVersions(upTo: 3)))
        #expect(seen(10, upTo: 3) == [])
    }

    @Test mutating func aHistoryHasTheLastSteps() {
        #expect(ledger.history(1) == "never written by this run")
        let first = ledger.send(1, at: 1_000_000)
        ledger.acknowledge(1, version: first.version, supersedes: first.supersedes, at: 2_500_000)
        _ = ledger.send(2, at: 2_600_000)
        let second = ledger.send(1, at: 3_000_000)
        ledger.settle(1, version: second.version, at: 3_250_000)
        #expect(
            ledger.history(1, since: 500_000)
                == "versions sent up to 2, 0 of them without a known outcome; 1 sent at 0.500 ms, "
                + "1 acknowledged at 2.000 ms, 2 sent at 2.500 ms, 2 refused at 2.750 ms")
        ledger = WriteLedger(limit: 10, eventLimit: 3)
        for time in 1...4 as ClosedRange<UInt64> { _ = ledger.send(1, at: time * 1_000_000) }
        #expect(ledger.history(1).hasSuffix("; 2 sent at 2.000 ms, 3 sent at 3.000 ms, 4 sent at 4.000 ms"))
        for time in 5...7 as ClosedRange<UInt64> { _ = ledger.send(3, at: time * 1_000_000) }
        #expect(ledger.history(1) == "versions sent up to 4, 4 of them without a known outcome")
    }

    /// Unions against sets, with versions up to three windows apart.
    @Test func unionsAreThoseOfSets() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            let pair = (0..<2).map { _ in
                SupersededVersions(
                    upTo: UInt32.random(in: 0...200, using: &random),
                    open: UInt64.random(in: 0...UInt64.max, using: &random)
                        & UInt64.random(in: 0...UInt64.max, using: &random))
            }
            var union = pair[0]
            union.formUnion(pair[1])
            for version in 0...201 as ClosedRange<UInt32> {
                #expect(union.contains(version) == pair.contains { $0.contains(version) }, "\(version) in \(pair)")
            }
        }
    }
}

/// Several threads with one ledger, and a store that each of them reaches.
struct SharedLedgerTests {
    /// What a store shows of a key: the version that was written last, or the one before it.
    private final class Store: Sendable {
        private let versions = Mutex<[UInt64: (last: UInt32, before: UInt32)]>([:])

        func write(_ key: UInt64, _ version: UInt32) {
            versions.withLock { $0[key] = (version, $0[key]?.last ?? 0) }
        }

        func read(_ key: UInt64, isStale: Bool) -> UInt32 {
            versions.withLock { isStale ? $0[key]?.before ?? 0 : $0[key]?.last ?? 0 }
        }
    }

    /// How many of the values that threads read are told to be stale, and how many are not.
    private func accusations(seed: UInt64, isStale: Bool) async -> (stale: Int, fresh: Int) {
        let (ledger, store) = (SharedLedger(writer: 1, limit: 1 << 12), Store())
        return await withTaskGroup(of: (Int, Int).self) { group in
            for task in 0..<4 as Range<UInt64> {
                group.addTask {
                    var random = RandomSource(seed: RandomSource.mix(seed &* 8 &+ task))
                    var (stale, fresh) = (0, 0)
                    for _ in 0..<5_000 {
                        // Spread over the shards as hashes are.
                        let key = RandomSource.mix(random.next() % 20)
                        if random.next() % 3 == 0 {
                            let entry = ledger.send(key, at: 0)
                            guard entry.version > 0 else { continue }
                            store.write(key, entry.version)
                            ledger.acknowledge(key, version: entry.version, supersedes: entry.supersedes, at: 0)
                        } else {
                            let superseded = ledger.superseded(key)
                            if superseded.contains(store.read(key, isStale: isStale)) { stale += 1 } else { fresh += 1 }
                        }
                    }
                    return (stale, fresh)
                }
            }
            return await group.reduce((0, 0)) { ($0.0 + $1.0, $0.1 + $1.1) }
        }
    }

    @Test(arguments: 1...20) func aStoreThatIsRightIsNeverAccused(seed: UInt64) async {
        let found = await accusations(seed: seed, isStale: false)
        #expect(found.stale == 0 && found.fresh > 10_000, "seed \(seed)")
    }

    /// Whoever wrote the later version: a quarter of the writes are the reader's own.
    @Test(arguments: 1...5) func aStaleValueIsToldWhoeverOverwroteIt(seed: UInt64) async {
        let found = await accusations(seed: seed, isStale: true)
        #expect(found.stale > found.fresh * 4, "seed \(seed): \(found)")
    }
}
