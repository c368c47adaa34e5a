// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Hosting

@Suite struct DrainTests {
    @Test func goesForwardOnly() {
        let drain = Drain(DrainConfiguration())
        #expect(drain.phase == .serving)
        #expect(drain.obstacle == nil)
        #expect(drain.advance(to: .draining))
        #expect(!drain.advance(to: .draining))
        #expect(drain.obstacle == "draining")
        #expect(drain.advance(to: .ending))
        #expect(!drain.advance(to: .draining))
        #expect(drain.phase == .ending)
        #expect(drain.obstacle == "stopping")
    }

    @Test func theDelayBeginsWithTheDrain() {
        var configuration = DrainConfiguration()
        configuration.delayMilliseconds = 60_000
        let drain = Drain(configuration)
        #expect(drain.remainingDelayMilliseconds == 60_000)
        drain.advance(to: .draining)
        #expect((59_000...60_000).contains(drain.remainingDelayMilliseconds))
        #expect(Drain(DrainConfiguration()).remainingDelayMilliseconds == 0)
    }
}
