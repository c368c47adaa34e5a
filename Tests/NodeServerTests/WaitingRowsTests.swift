// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import NodeServer

/// Who gives way when rows wait for clients that do not read.
struct WaitingRowsTests {
    private func rows(_ limit: Int) -> WaitingRows { WaitingRows(nodeLimitBytes: limit * 2, reactors: 2) }

    private func kept(_ held: [Int], _ limit: Int) -> [Int] {
        let share = rows(limit).share(among: held)
        return held.map { min($0, share) }
    }

    @Test func countsAgainstTheReactorsPart() {
        var rows = rows(800)
        #expect(rows.limitBytes == 800)
        rows.add(800)
        #expect(!rows.isOver)
        rows.add(1)
        #expect(rows.isOver && rows.bytes == 801)
        rows.add(-801)
        #expect(rows.bytes == 0)
    }

    @Test func thoseWhoHoldTheMostGiveWay() {
        // Seven eighths of 800 are kept: the small ones' whole, and the rest in equal parts.
        #expect(kept([50, 2_000, 100, 900], 800) == [50, 275, 100, 275])
        #expect(kept([1_000], 800) == [700])
        #expect(kept([300, 300, 300], 800) == [233, 233, 233])
        #expect(kept([], 800) == [])
    }

    @Test func aHogTakesNothingFromOthers() {
        for count in 1...50 {
            let held = [Int](repeating: 10, count: count) + [100_000]
            let kept = kept(held, 800)
            #expect(kept.dropLast().allSatisfy { $0 == 10 }, "\(count) others")
            #expect(kept.reduce(0, +) <= 700)
        }
    }
}
