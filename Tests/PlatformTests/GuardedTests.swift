// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Testing

@Suite struct GuardedTests {
    @Test func exchangingReturnsWhatWasThere() {
        let guarded = Guarded<[Int]>([1, 2])
        #expect(guarded.exchange([]) == [1, 2])
        #expect(guarded.exchange([3]) == [])
        #expect(guarded.withLock { $0 } == [3])
    }

    @Test func whatIsAddedMeanwhileIsInOneExchangeOnly() throws {
        let guarded = Guarded<[Int]>([])
        let each = 10_000
        let threads = try (0..<2).map { number in
            try Thread(name: "adder") {
                for value in 0..<each { guarded.withLock { $0.append(number * each + value) } }
            }
        }
        var taken: [Int] = []
        while taken.count < 2 * each { taken += guarded.exchange([]) }
        for thread in threads { thread.join() }
        #expect(taken.sorted() == Array(0..<2 * each))
        #expect(guarded.exchange([]).isEmpty)
    }
}
