// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MartletClient

/// The life of a connection, in virtual time.
struct ConnectionTests {
    static let millisecond: UInt64 = 1_000_000

    static func machine() -> ConnectionStateMachine {
        ConnectionStateMachine(
            ConnectionStateMachine.Configuration(
                connectNanoseconds: 100 * millisecond, silenceNanoseconds: 500 * millisecond,
                backoff: Backoff(firstNanoseconds: 10 * millisecond, longestNanoseconds: 1_000 * millisecond)))
    }

    @Test func isMadeOnceWhenWanted() {
        var machine = Self.machine()
        #expect(machine.wanted(nowNanoseconds: 0) == .connect)
        #expect(machine.wanted(nowNanoseconds: 1) == .nothing)
        machine.opened(nowNanoseconds: 2)
        #expect(machine.wanted(nowNanoseconds: 3) == .nothing)
        #expect(machine.dueNanoseconds == nil)
    }

    @Test func givesUpConnectingInTime() {
        var machine = Self.machine()
        _ = machine.wanted(nowNanoseconds: 5)
        #expect(!machine.isOverdue(nowNanoseconds: 4 + 100 * Self.millisecond))
        #expect(machine.isOverdue(nowNanoseconds: 5 + 100 * Self.millisecond))
    }

    @Test func restsLongerAfterEachFailureAndNotAfterAReply() {
        var machine = Self.machine()
        var now: UInt64 = 0
        for rest in [10, 20, 40, 80] as [UInt64] {
            #expect(machine.wanted(nowNanoseconds: now) == .connect)
            machine.lost(nowNanoseconds: now, random: 1)
            #expect(machine.wanted(nowNanoseconds: now + rest * Self.millisecond - 1) == .refuse)
            #expect(!machine.accepts(nowNanoseconds: now + rest * Self.millisecond - 1))
            now += rest * Self.millisecond
            #expect(machine.accepts(nowNanoseconds: now))
        }
        _ = machine.wanted(nowNanoseconds: now)
        machine.opened(nowNanoseconds: now)
        machine.asked(nowNanoseconds: now)
        machine.answered()
        machine.lost(nowNanoseconds: now, random: 1)
        #expect(machine.wanted(nowNanoseconds: now) == .connect, "a server that answered is tried again at once")
    }

    @Test func aServerThatAcceptsAndClosesIsNotHammered() {
        var machine = Self.machine()
        _ = machine.wanted(nowNanoseconds: 0)
        machine.opened(nowNanoseconds: 0)
        machine.asked(nowNanoseconds: 0)
        machine.lost(nowNanoseconds: 0, random: 1)
        #expect(machine.wanted(nowNanoseconds: 1) == .refuse)
    }

    @Test func silenceCountsOnlyWhileRepliesAreOwed() {
        var machine = Self.machine()
        _ = machine.wanted(nowNanoseconds: 0)
        machine.opened(nowNanoseconds: 0)
        #expect(!machine.isOverdue(nowNanoseconds: 3_600_000 * Self.millisecond))
        let begun = 10_000 * Self.millisecond
        machine.asked(nowNanoseconds: begun)
        machine.asked(nowNanoseconds: begun + 499 * Self.millisecond)
        #expect(machine.isOverdue(nowNanoseconds: begun + 500 * Self.millisecond), "the first has waited so long")
        machine.heard(nowNanoseconds: begun + 499 * Self.millisecond)
        machine.answered()
        #expect(!machine.isOverdue(nowNanoseconds: begun + 998 * Self.millisecond))
        #expect(machine.isOverdue(nowNanoseconds: begun + 999 * Self.millisecond))
        machine.answered()
        #expect(machine.dueNanoseconds == nil)
    }

    @Test(arguments: 1...30) func owesWhatWasAskedAndNotAnswered(seed: UInt64) {
        var random = TestRandom(seed)
        var machine = Self.machine()
        var now: UInt64 = 0
        var owed = 0
        for _ in 0..<3_000 {
            now += random.next() % (20 * Self.millisecond)
            switch random.next() % 6 {
            case 0, 1:
                if machine.wanted(nowNanoseconds: now) == .connect { machine.opened(nowNanoseconds: now) }
                if machine.state == .open {
                    machine.asked(nowNanoseconds: now)
                    owed += 1
                }
            case 2 where owed > 0, 3 where owed > 0:
                machine.heard(nowNanoseconds: now)
                machine.answered()
                owed -= 1
            case 4 where machine.state == .open:
                machine.lost(nowNanoseconds: now, random: random.share())
                owed = 0
            default: break
            }
            #expect(machine.owed == owed)
            #expect((machine.dueNanoseconds != nil) == (owed > 0))
        }
    }
}
