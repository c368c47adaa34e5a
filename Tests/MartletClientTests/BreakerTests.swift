// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MartletClient

/// When a server is left alone, in virtual time.
struct BreakerTests {
    static let second: UInt64 = 1_000_000_000

    static func configuration() -> CircuitBreaker.Configuration {
        var configuration = CircuitBreaker.Configuration()
        configuration.failuresInRow = 3
        configuration.openNanoseconds = second
        configuration.longestOpenNanoseconds = 4 * second
        return configuration
    }

    private func fail(_ breaker: inout CircuitBreaker, at now: UInt64, probe: Bool = false) -> Bool {
        breaker.record(succeeded: false, isProbe: probe, nowNanoseconds: now, random: 1)
    }

    @Test func opensAfterFailuresInRowAndNotBefore() {
        var breaker = CircuitBreaker(Self.configuration())
        // Each round in a second of its own, so that their share stays out of it.
        for round in 0..<10 as Range<UInt64> {
            let now = round * 2 * Self.second
            _ = fail(&breaker, at: now)
            _ = fail(&breaker, at: now)
            _ = breaker.record(succeeded: true, isProbe: false, nowNanoseconds: now, random: 1)
        }
        #expect(breaker.state == .closed)
        var fresh = CircuitBreaker(Self.configuration())
        #expect(!fail(&fresh, at: 0))
        #expect(!fail(&fresh, at: 0))
        #expect(fail(&fresh, at: 0))
        #expect(fresh.admit(nowNanoseconds: Self.second - 1) == .refuse)
        #expect(fresh.admit(nowNanoseconds: Self.second) == .probe)
    }

    @Test func opensWhenHalfOfManyCallsFail() {
        var breaker = CircuitBreaker(Self.configuration())
        var opened = 0
        for call in 1...40 where breaker.state == .closed {
            if breaker.record(succeeded: call % 2 == 0, isProbe: false, nowNanoseconds: 5, random: 0) { opened = call }
        }
        #expect((20...21).contains(opened))
    }

    @Test func oneProbeDecidesAndEachFailureDoublesTheRest() {
        var breaker = CircuitBreaker(Self.configuration())
        for _ in 0..<3 { _ = fail(&breaker, at: 0) }
        var now = Self.second
        for rest in [2, 4, 4, 4] as [UInt64] {
            #expect(breaker.admit(nowNanoseconds: now) == .probe)
            #expect(breaker.admit(nowNanoseconds: now) == .refuse, "one probe at a time")
            // What began before says nothing.
            let early = breaker.record(succeeded: true, isProbe: false, nowNanoseconds: now, random: 1)
            #expect(!early)
            #expect(fail(&breaker, at: now, probe: true))
            #expect(breaker.admit(nowNanoseconds: now + rest * Self.second - 1) == .refuse)
            now += rest * Self.second
        }
        #expect(breaker.admit(nowNanoseconds: now) == .probe)
        let isBack = breaker.record(succeeded: true, isProbe: true, nowNanoseconds: now, random: 1)
        #expect(isBack)
        #expect(breaker.admit(nowNanoseconds: now) == .pass)
    }

    @Test func aProbeThatIsGivenUpMakesRoomForAnother() {
        var breaker = CircuitBreaker(Self.configuration())
        for _ in 0..<3 { _ = fail(&breaker, at: 0) }
        #expect(breaker.admit(nowNanoseconds: Self.second) == .probe)
        breaker.probeAbandoned()
        #expect(breaker.admit(nowNanoseconds: Self.second) == .probe)
    }

    /// Against a naive statement of what it promises: while open nothing passes; half open at most one probe is out.
    @Test(arguments: 1...50) func neverAsksAServerThatIsLeftAlone(seed: UInt64) {
        var random = TestRandom(seed)
        var breaker = CircuitBreaker(Self.configuration())
        var now: UInt64 = 0
        var probesOut = 0
        var inRow = 0
        for _ in 0..<2_000 {
            now += random.next() % (Self.second / 3)
            switch breaker.admit(nowNanoseconds: now) {
            case .pass:
                #expect(probesOut == 0)
                #expect(inRow < 3, "it should have opened")
            case .probe:
                #expect(probesOut == 0)
                probesOut += 1
            case .refuse: continue
            }
            let succeeded = random.next() % 3 != 0
            if probesOut > 0 {
                if random.next() % 5 == 0 {
                    breaker.probeAbandoned()
                } else {
                    let isDecided = breaker.record(
                        succeeded: succeeded, isProbe: true, nowNanoseconds: now, random: random.share())
                    #expect(isDecided)
                    inRow = 0
                }
                probesOut = 0
            } else {
                inRow = succeeded ? 0 : inRow + 1
                _ = breaker.record(succeeded: succeeded, isProbe: false, nowNanoseconds: now, random: random.share())
                if breaker.state != .closed { inRow = 0 }
            }
        }
    }
}
