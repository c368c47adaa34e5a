// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MartletClient

/// Retries, waits and estimates, in virtual time.
struct BudgetTests {
    @Test(arguments: 1...20) func retriesStayWithinShareTimeAndBurst(seed: UInt64) {
        var random = TestRandom(seed)
        var now: UInt64 = 5_000_000_000
        let begun = now
        var budget = RetryBudget(share: 0.1, perSecond: 4, burst: 20, nowNanoseconds: now)
        var (attempts, retries) = (0, 0)
        for _ in 0..<20_000 {
            now += random.next() % 3_000_000
            attempts += 1
            budget.attempted()
            while random.next() % 3 == 0 {
                if budget.withdraw(nowNanoseconds: now) { retries += 1 }
            }
            let allowed = 0.1 * Double(attempts) + 4 * Double(now - begun) / 1e9 + 20
            #expect(Double(retries) <= allowed + 1e-6)
        }
        // Nor is what is allowed kept back: asked as often as here, nearly all of it is given.
        let allowed = 0.1 * Double(attempts) + 4 * Double(now - begun) / 1e9 + 20
        #expect(Double(retries) > 0.9 * allowed)
    }

    @Test func anIdleClientSavesUpOneBurstOnly() {
        var budget = RetryBudget(share: 0.1, perSecond: 10, burst: 5, nowNanoseconds: 0)
        let given = (0..<100).filter { _ in budget.withdraw(nowNanoseconds: 3_600_000_000_000) }.count
        #expect(given == 5)
    }

    @Test func waitsGrowAreSpreadAndBounded() {
        let backoff = Backoff(firstNanoseconds: 1_000, longestNanoseconds: 64_000)
        for failures in 1...100 {
            let whole = min(UInt64(1_000) << UInt64(min(failures - 1, 20)), 64_000)
            #expect(backoff.wait(failures: failures, random: 0) == 500)
            #expect(backoff.wait(failures: failures, random: 1) == whole)
            let middle = backoff.wait(failures: failures, random: 0.5)
            #expect(middle >= 500 && middle <= whole)
        }
    }

    @Test(arguments: [0.5, 0.9, 0.98]) func anEstimateRestsAtItsQuantile(fraction: Double) {
        var random = TestRandom(7)
        var estimate = QuantileEstimate(fraction: fraction)
        var samples: [UInt64] = []
        var below = 0
        for number in 0..<60_000 {
            // Between 0.1 and 10 ms, and ten times as much in the second half.
            let sample = (100_000 + random.next() % 9_900_000) * (number < 30_000 ? 1 : 10)
            estimate.add(sample)
            if number >= 35_000 {
                samples.append(sample)
                if Double(sample) <= estimate.nanoseconds { below += 1 }
            }
        }
        let share = Double(below) / Double(samples.count)
        #expect(abs(share - fraction) < 0.03)
    }

    @Test(arguments: 1...10) func aLimitNeverLeavesItsRange(seed: UInt64) {
        var random = TestRandom(seed)
        var limit = ConcurrencyLimit(fewest: 4, most: 200)
        var now: UInt64 = 0
        for _ in 0..<5_000 {
            now += random.next() % 50_000_000
            if random.next() % 8 == 0 {
                limit.overloaded(nowNanoseconds: now)
            } else {
                limit.succeeded(inFlight: Int(random.next() % 200))
            }
            #expect((4...200).contains(limit.value))
        }
    }

    @Test func aLimitFallsOnceForOneSlowMomentAndRecovers() {
        var limit = ConcurrencyLimit(fewest: 4, most: 100)
        for _ in 0..<50 { limit.overloaded(nowNanoseconds: 1_000_000_000) }
        #expect(limit.value == 70)
        // What was far below the limit says nothing about it.
        for _ in 0..<100_000 { limit.succeeded(inFlight: 3) }
        #expect(limit.value == 70)
        for _ in 0..<100_000 { limit.succeeded(inFlight: 99) }
        #expect(limit.value == 100)
    }
}

/// SplitMix64: the same numbers for the same seed.
struct TestRandom {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed &>> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed &>> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed &>> 31
    }

    /// From 0 to 1.
    mutating func share() -> Double { Double(next() >> 11) / Double(1 << 53) }
}
