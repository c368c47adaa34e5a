// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Telemetry
import Testing

private enum Event: Int, CounterIndex {
    case came, went
}

@Suite struct SharedCounterTests {
    @Test func countsByNameInTheirOrder() {
        let counters = SharedCounterSet<Event>()
        counters.add(.went)
        counters.add(.went, 2)
        #expect(counters[.came] == 0)
        #expect(counters[.went] == 3)
        #expect(counters.listed.map(\.name) == ["came", "went"])
        #expect(counters.listed.map(\.count) == [0, 3])
    }

    @Test func nothingIsLostBetweenThreads() throws {
        let counters = SharedCounterSet<Event>()
        let threads = try (0..<4).map { _ in
            try Thread(name: "counter") {
                for _ in 0..<10_000 {
                    counters.add(.came)
                    counters.add(.went, 2)
                }
            }
        }
        for thread in threads { thread.join() }
        #expect(counters[.came] == 40_000)
        #expect(counters[.went] == 80_000)
    }
}
