// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc
import Platform
import Synchronization
import Testing

@Suite struct ThreadTests {
    @Test func runsUnderItsNameWithSignalsBlocked() throws {
        var before = sigset_t()
        unsafe pthread_sigmask(SIG_BLOCK, nil, &before)
        let found = Guarded<(name: String, blocksTerm: Bool, blocksFault: Bool)>(("", false, true))
        let thread = try Platform.Thread(name: "a-rather-long-name") {
            let name = (try? readFile("/proc/thread-self/comm", limitBytes: 64)) ?? []
            var set = sigset_t()
            unsafe pthread_sigmask(SIG_BLOCK, nil, &set)
            let text = String(decoding: name.dropLast(), as: UTF8.self)
            let (term, fault) = unsafe (sigismember(&set, SIGTERM) == 1, sigismember(&set, SIGSEGV) == 1)
            found.withLock { $0 = (text, term, fault) }
        }
        thread.join()
        #expect(found.withLock { $0.name } == "a-rather-long-n")
        #expect(found.withLock { $0.blocksTerm && !$0.blocksFault })
        var mine = sigset_t()
        unsafe pthread_sigmask(SIG_BLOCK, nil, &mine)
        for signal in 1...31 as ClosedRange<Int32> {
            #expect(
                unsafe sigismember(&mine, signal) == sigismember(&before, signal),
                "the starting thread's mask is as before")
        }
    }

    @Test func guardsAValueAgainstManyThreads() throws {
        let count = Guarded(0)
        var threads: [Platform.Thread] = []
        for _ in 0..<4 {
            threads.append(
                try Platform.Thread(name: "adder") {
                    for _ in 0..<50_000 { count.withLock { $0 += 1 } }
                })
        }
        for thread in threads { thread.join() }
        #expect(count.withLock { $0 } == 200_000)
    }

    @Test func parkingMissesNoAnnouncement() throws {
        let parking = Parking()
        let turn = Guarded(0)
        let rounds = 20_000
        let other = try Platform.Thread(name: "other") {
            for round in 0..<rounds { waitFor(round * 2 + 1, turn, parking) }
        }
        for round in 0..<rounds { waitFor(round * 2, turn, parking) }
        other.join()
        #expect(turn.withLock { $0 } == rounds * 2)
    }

    @Test func parkingWakesEverybodyWhoSleeps() throws {
        let parking = Parking()
        let turn = Guarded(0)
        let (sleepers, rounds) = (4, 5_000)
        var threads: [Platform.Thread] = []
        for number in 0..<sleepers {
            threads.append(
                try Platform.Thread(name: "sleeper") {
                    for round in 0..<rounds { waitFor(round * sleepers + number, turn, parking) }
                })
        }
        for thread in threads { thread.join() }
        #expect(turn.withLock { $0 } == rounds * sleepers)
    }

    @Test func parkingIsSeenWithoutSleep() throws {
        let parking = Parking()
        #expect(!parking.spin(parking.ticket, nanoseconds: 1_000_000), "nothing was announced")
        let ticket = parking.ticket
        parking.announce()
        #expect(parking.spin(ticket, nanoseconds: 0), "it was before")
        let next = parking.ticket
        let other = try Platform.Thread(name: "announcer") { parking.announce() }
        #expect(parking.spin(next, nanoseconds: 20_000_000_000))
        other.join()
    }

    @Test func parkingGivesUpInTime() {
        let parking = Parking()
        let before = Clock.monotonicNanoseconds()
        parking.wait(parking.ticket, timeoutNanoseconds: 50_000_000)
        let waited = Clock.monotonicNanoseconds() - before
        #expect(waited >= 45_000_000 && waited < 5_000_000_000)
    }

    @Test func pollerTellsReadinessAndWakes() throws {
        let poller = try Poller(capacity: 8)
        let wake = try WakeEvent()
        try poller.add(wake.fd, [.input, .edge], user: 77)
        #expect(poller.wait(timeoutMilliseconds: 0) == 0)
        wake.signal()
        wake.signal()
        #expect(poller.wait(timeoutMilliseconds: 1_000) == 1)
        #expect(poller.user(0) == 77)
        #expect(poller.readiness(0).contains(.input))
        #expect(poller.wait(timeoutMilliseconds: 0) == 0, "an edge is told once")
        wake.signal()
        #expect(poller.wait(timeoutMilliseconds: 1_000) == 1)
        #expect(throws: SystemError.self) { try poller.add(-1, .input, user: 0) }
    }
}

/// Waits until it is `number`'s turn and gives the turn on.
private func waitFor(_ number: Int, _ turn: Guarded<Int>, _ parking: Parking) {
    while true {
        let ticket = parking.ticket
        let isMine = turn.withLock { value in
            guard value == number else { return false }
            value += 1
            return true
        }
        if isMine { return parking.announce() }
        let began = Clock.monotonicNanoseconds()
        parking.wait(ticket, timeoutNanoseconds: 10_000_000_000)
        #expect(Clock.monotonicNanoseconds() - began < 10_000_000_000, "an announcement was missed")
    }
}
