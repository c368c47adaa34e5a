// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MartletClient

/// Who computes a value, in virtual time.
struct LeaseTests {
    static let millisecond: UInt64 = 1_000_000

    static func machine(takesStale: Bool = true, now: UInt64 = 0) -> LeaseStateMachine {
        LeaseStateMachine(
            LeaseStateMachine.Configuration(
                patienceNanoseconds: 1_000 * millisecond,
                poll: Backoff(firstNanoseconds: 4 * millisecond, longestNanoseconds: 50 * millisecond),
                takesStale: takesStale),
            nowNanoseconds: now)
    }

    @Test func theWinnerComputesUnderTheVersionItSaw() {
        var machine = Self.machine()
        #expect(machine.begin() == .read)
        let action = machine.read(
            LeaseStateMachine.Reading(hasValue: false, hasWon: true, cas: 77), nowNanoseconds: 0, random: 0)
        #expect(action == .compute(cas: 77))
    }

    @Test func aFreshValueIsTakenThoughSomebodyRenewsIt() {
        var machine = Self.machine(takesStale: false)
        #expect(
            machine.read(LeaseStateMachine.Reading(hasValue: true, isTaken: true), nowNanoseconds: 0, random: 0)
                == .give)
    }

    @Test func aStaleValueIsTakenOrWaitedForAsAsked() {
        let reading = LeaseStateMachine.Reading(hasValue: true, isTaken: true, isStale: true, cas: 5)
        var taker = Self.machine(takesStale: true)
        #expect(taker.read(reading, nowNanoseconds: 0, random: 0) == .give)
        var waiter = Self.machine(takesStale: false)
        guard case .rest = waiter.read(reading, nowNanoseconds: 0, random: 0) else {
            Issue.record("a stale value was taken")
            return
        }
    }

    @Test func withoutTheCacheItComputesAndStoresNothing() {
        #expect(Self.machine().readFailed() == .compute(cas: nil))
    }

    @Test func patienceEnds() {
        var machine = Self.machine()
        var now: UInt64 = 0
        for _ in 0..<10_000 {
            switch machine.read(
                LeaseStateMachine.Reading(hasValue: false, isTaken: true, cas: 9), nowNanoseconds: now, random: 1)
            {
            case .rest(let rest):
                #expect(rest > 0 && rest <= 50 * Self.millisecond)
                now += rest
                #expect(machine.rested(nowNanoseconds: now) == .read)
            case .compute(let cas):
                #expect(cas == 9)
                #expect(now == 1_000 * Self.millisecond)
                return
            case .read, .give:
                Issue.record("nothing was there")
                return
            }
        }
        Issue.record("it waits for ever")
    }

    /// Many clients and a model of the cache: each lease is computed once, unless who has it is gone for too long.
    @Test(arguments: 1...30) func ofManyClientsOneComputes(seed: UInt64) {
        var random = TestRandom(seed)
        let clients = 20
        var machines = (0..<clients).map { _ in Self.machine() }
        var actions = machines.map { $0.begin() }
        var due = (0..<clients).map { _ in random.next() % Self.millisecond }
        var (hasValue, isTaken) = (false, false)
        var computed = 0
        var done = 0
        while done < clients {
            guard let next = due.indices.min(by: { due[$0] < due[$1] }), due[next] != .max else { break }
            let now = due[next]
            switch actions[next] {
            case .read:
                let wins = !hasValue && !isTaken
                if wins { isTaken = true }
                let reading = LeaseStateMachine.Reading(
                    hasValue: hasValue, hasWon: wins, isTaken: !hasValue && !wins, cas: 1)
                actions[next] = machines[next].read(reading, nowNanoseconds: now, random: random.share())
                // Computing takes 200 ms.
                if case .compute = actions[next] { due[next] = now + 200 * Self.millisecond }
                if case .rest(let rest) = actions[next] { due[next] = now + rest }
            case .compute:
                computed += 1
                hasValue = true
                done += 1
                due[next] = .max
            case .rest: actions[next] = machines[next].rested(nowNanoseconds: now)
            case .give:
                done += 1
                due[next] = .max
            }
        }
        #expect(computed == 1)
        #expect(done == clients)
    }

    @Test(arguments: 1...30) func ofAFlightOneLeadsAndAllHear(seed: UInt64) {
        var random = TestRandom(seed)
        var table = FlightTable(followerLimit: 8)
        var leaders: [String: UInt64] = [:]
        var followers: [String: [UInt64]] = [:]
        for id in 1...5_000 as ClosedRange<UInt64> {
            let key = "k\(random.next() % 5)"
            switch random.next() % 8 {
            case 0...4:
                switch table.join(key, id) {
                case .lead:
                    #expect(leaders[key] == nil)
                    leaders[key] = id
                    followers[key] = []
                case .follow:
                    #expect(leaders[key] != nil)
                    followers[key, default: []].append(id)
                case .refuse: #expect(followers[key]?.count == 8)
                }
            case 5:
                guard let leader = leaders[key] else { continue }
                #expect(table.finish(key, leader + 1_000_000).isEmpty, "only its leader ends a flight")
                #expect(table.finish(key, leader) == followers[key])
                (leaders[key], followers[key]) = (nil, nil)
            case 6:
                guard let leader = leaders[key] else { continue }
                let next = table.resign(key, leader)
                #expect(next == followers[key]?.first)
                leaders[key] = next
                if next == nil { followers[key] = nil } else { followers[key]?.removeFirst() }
            default:
                guard let follower = followers[key]?.last else { continue }
                let isGone = table.leave(key, follower)
                #expect(isGone)
                let isGoneAgain = table.leave(key, follower)
                #expect(!isGoneAgain)
                followers[key]?.removeLast()
            }
            #expect(table.count == leaders.count)
        }
    }
}
