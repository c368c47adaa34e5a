// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Platform
import Reactor
import Testing

extension ReactorSuite {
    /// What ends a loop's sleep when nothing comes.
    @Suite struct Timers {
        /// Sleeps as long as messages say, in nanoseconds, and notes how late it was awake each time. What is of kind 1
        /// may be late.
        private final class Sleeper: ReactorHandler {
            private let lateness: Guarded<[UInt64]>
            private var due: [(time: UInt64, mayBeLate: Bool)] = []

            init(_ lateness: Guarded<[UInt64]>) { self.lateness = lateness }

            func received(_ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer) -> Int {
                input.count
            }

            func message(_ message: ReactorMessage, _ loop: inout ReactorLoop) {
                guard message.value > 0 else { return }
                due.append((loop.reactor.nowNanoseconds + message.value, message.kind == 1))
            }

            func turnEnded(_ loop: inout ReactorLoop) {
                let now = loop.reactor.nowNanoseconds
                let over = due.filter { $0.time <= now }
                due.removeAll { $0.time <= now }
                loop.wakeNanoseconds = due.filter { !$0.mayBeLate }.map(\.time).min() ?? 0
                loop.lateWakeNanoseconds = due.filter(\.mayBeLate).map(\.time).min() ?? 0
                if !over.isEmpty { lateness.withLock { $0 += over.map { now - $0.time } } }
            }
        }

        private func withSleeper(_ body: (Reactor, ReactorGroup, Guarded<[UInt64]>) throws -> Void) throws {
            let lateness = Guarded<[UInt64]>([])
            var configuration = ReactorConfiguration()
            configuration.threads = 1
            let group = try ReactorGroup(configuration) { _ in Sleeper(lateness) }
            try group.start()
            defer {
                group.stop(.immediate)
                group.join()
            }
            try body(group.reactors[0], group, lateness)
        }

        @Test func whatIsDueWakesALoopThatSleeps() throws {
            try withSleeper { reactor, _, lateness in
                for count in 1...15 {
                    reactor.post(ReactorMessage(kind: 0, value: 5_000_000))
                    #expect(eventually { lateness.withLock { $0.count } == count })
                }
                // By the tick alone it would be 50 ms on average.
                let median = lateness.withLock { $0.sorted()[7] }
                #expect(median < 20_000_000, "woken \(median) ns late")
            }
        }

        @Test func whatMayBeLateIsNotVeryLateBehindMuchWork() throws {
            try withSleeper { reactor, _, lateness in
                for count in 1...15 {
                    for _ in 0..<20 {
                        reactor.post(ReactorMessage(kind: 0))
                        usleepBriefly()
                    }
                    reactor.post(ReactorMessage(kind: 1, value: 2_000_000))
                    #expect(eventually { lateness.withLock { $0.count } == count })
                }
                let median = lateness.withLock { $0.sorted()[7] }
                #expect(median < 20_000_000, "woken \(median) ns late")
            }
        }

        @Test func whatIsDueEarlierThanWhatItSleepsForWakesItToo() throws {
            try withSleeper { reactor, _, lateness in
                var early: [UInt64] = []
                for count in 1...9 {
                    lateness.withLock { $0 = [] }
                    reactor.post(ReactorMessage(kind: 0, value: 60_000_000))
                    usleepMilliseconds(5)
                    reactor.post(ReactorMessage(kind: 0, value: 1_000_000))
                    #expect(eventually { !lateness.withLock { $0.isEmpty } })
                    early.append(lateness.withLock { $0[0] })
                    #expect(eventually { lateness.withLock { $0.count } == 2 }, "turn \(count)")
                }
                // By what it slept for, or the tick, it would be some 50 ms.
                #expect(early.sorted()[4] < 20_000_000, "woken \(early) ns late")
            }
        }

        @Test func aBusyLoopSetsItsTimerForWhatIsDueAndNotForEachTurn() throws {
            try withSleeper { reactor, group, lateness in
                reactor.post(ReactorMessage(kind: 0, value: 60_000_000_000))
                let (sets, turns) = (group.total(of: .timerSets), group.total(of: .turns))
                var seen = turns
                for _ in 0..<3_000 {
                    reactor.post(ReactorMessage(kind: 0))
                    while group.total(of: .turns) == seen { usleepBriefly() }
                    seen = group.total(of: .turns)
                }
                // Of its ticks, ten a second, each is due once.
                #expect(seen - turns >= 3_000)
                #expect(group.total(of: .timerSets) - sets < (seen - turns) / 3)
                #expect(lateness.withLock { $0.isEmpty })
            }
        }
    }
}
