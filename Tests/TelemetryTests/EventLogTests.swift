// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Telemetry

@Suite struct EventLogTests {
    @Test func keepsTheLastInOrder() {
        let log = EventLog()
        #expect(log.last() == [] && log.total == 0)
        for number in 0..<EventLog.limit + 10 { log.add("{\(number)}") }
        let last = log.last()
        #expect(last.count == EventLog.limit)
        #expect(last.first == "{10}" && last.last == "{\(EventLog.limit + 9)}")
        #expect(log.last(2) == ["{\(EventLog.limit + 8)}", "{\(EventLog.limit + 9)}"])
        #expect(log.total == UInt64(EventLog.limit + 10))
    }

    @Test func takesEventsWhateverTheLevelAndNothingElse() {
        var configuration = Log.Configuration()
        configuration.level = .error
        configuration.format = .logfmt
        configuration.burst = 1
        configuration.hasPriorityPrefix = true
        // Nobody has this descriptor: lines go nowhere.
        configuration.fd = -1
        let log = Log(configuration)
        for _ in 0..<5 { log.info("members changed", ["count": .count(3), "who": "a\"b"]) }
        log.error("something else")
        let events = log.events.last()
        #expect(events.count == 5)
        #expect(events.allSatisfy { $0.hasPrefix("{\"ts\":\"") && $0.hasSuffix("}") })
        #expect(
            events[0].contains(#""level":"info","msg":"members changed","event":"membership","count":3,"who":"a\"b""#))
    }
}
