// Martlet
// SPDX-License-Identifier: Apache-2.0

import SimulationKit
import Storage
import Testing

struct HybridLogicalClockTests {
    @Test func versionsAreTheTimeThenACounter() {
        var clock = HybridLogicalClock(persistedMark: 0)
        #expect(clock.next(unixMilliseconds: 1000) == 1000 << 16)
        #expect(clock.next(unixMilliseconds: 1000) == 1000 << 16 + 1)
        #expect(clock.next(unixMilliseconds: 1001) == 1001 << 16)
    }

    @Test func versionsGrowWhenTheClockGoesBack() {
        var clock = HybridLogicalClock(persistedMark: 0)
        let first = clock.next(unixMilliseconds: 5000)
        let second = clock.next(unixMilliseconds: 10)
        #expect(second > first)
        #expect(clock.next(unixMilliseconds: -7) > second)
    }

    @Test func versionsPassTheStoredOne() {
        var clock = HybridLogicalClock(persistedMark: 0)
        let stored = UInt64(9_000) << 16
        #expect(clock.next(after: stored, unixMilliseconds: 1000) == stored + 1)
        #expect(clock.next(unixMilliseconds: 1000) > stored + 1)
    }

    @Test func moreThanTheCounterHoldsRunsAheadOfTheTime() {
        var clock = HybridLogicalClock(persistedMark: 0)
        var last: UInt64 = 0
        for _ in 0..<200_000 {
            let version = clock.next(unixMilliseconds: 1)
            #expect(version > last)
            last = version
        }
        #expect(last >> 16 == 1 + 200_000 / 65_536)
    }

    @Test func asksForAMarkUntilOneIsDurable() throws {
        var clock = HybridLogicalClock(persistedMark: 0)
        let version = clock.next(unixMilliseconds: 1000)
        let mark = try #require(clock.mustPersistBefore(version))
        #expect(mark == version + HybridLogicalClock.reserveMilliseconds << 16)
        #expect(clock.mustPersistBefore(version) == mark, "the first was not confirmed")
        clock.notePersisted(mark)
        #expect(clock.mustPersistBefore(version) == nil)
        #expect(clock.mustPersistBefore(clock.next(unixMilliseconds: 1000 + 9_000)) == nil)
        #expect(clock.mustPersistBefore(clock.next(unixMilliseconds: 1000 + 10_001)) != nil)
    }

    /// Crashes at random points, each with the clock set back: no version that was committed comes again.
    @Test func versionsNeverRepeatAcrossCrashesWithTheClockSetBack() {
        var random = SimulationRandom(seed: Seed.current)
        var durable: UInt64 = 0
        var clock = HybridLogicalClock(persistedMark: 0)
        var committed: UInt64 = 0
        var time: Int64 = 1_000_000
        for _ in 0..<20_000 {
            time += Int64(random.below(2000))
            let version = clock.next(unixMilliseconds: time)
            // The mark is in the same atomic write: a crash before it loses both.
            if random.chance(30) {
                time -= Int64(random.below(100_000))
                clock = HybridLogicalClock(persistedMark: durable)
                continue
            }
            if let mark = clock.mustPersistBefore(version) {
                durable = mark
                clock.notePersisted(mark)
            }
            #expect(version > committed, "seed \(Seed.current)")
            #expect(version <= durable, "seed \(Seed.current)")
            committed = version
        }
    }
}
