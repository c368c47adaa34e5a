// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import NodeServer

struct NegativeLifetimeTests {
    private func lifetimes(_ seconds: UInt32, now: UInt32 = 77) -> [UInt32] {
        (0..<10_000).map { CopiesInEngine.jittered(seconds, UInt64($0) &* 0xDEAD_BEEF_1234_5677, now: now) }
    }

    /// "Not there" is never remembered for longer than it may be, nor for less than three quarters of that.
    @Test(arguments: [1, 2, 3, 4, 5, 60, 86_400] as [UInt32])
    func staysWithinTheLastQuarter(_ seconds: UInt32) {
        let all = lifetimes(seconds)
        #expect(all.max().map { $0 <= seconds && $0 >= seconds - seconds / 1000 } == true)
        #expect(all.allSatisfy { $0 >= seconds - seconds / 4 && $0 > 0 })
    }

    @Test func spreadsWhatWasMissedTogether() {
        let all = lifetimes(60)
        for lifetime in 45...60 as ClosedRange<UInt32> {
            let share = Double(all.count { $0 == lifetime }) / Double(all.count)
            #expect(share > 0.03 && share < 0.1, "\(lifetime): \(share)")
        }
        #expect(lifetimes(60, now: 1) != lifetimes(60, now: 2), "not the same for a key each time")
    }
}
