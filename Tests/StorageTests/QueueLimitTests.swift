// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc
import Platform
import Storage
import Testing

/// A store in virtual time: what waits for it is taken in batches, each of which takes its time.
private struct StoreSimulation {
    /// How many it takes at once at most, and what a batch takes, in nanoseconds: by itself, and for each in it.
    var batch = 8192
    var fixed: UInt64 = 5_000_000
    var each: UInt64 = 0
    /// After what time those who wait give up.
    var patience: UInt64 = 1_500_000_000
    var limit: QueueLimit
    private(set) var now: UInt64 = 10_000_000_000
    private(set) var offered = 0
    private(set) var refused = 0
    private(set) var overdue = 0
    private(set) var answered = 0
    /// How long each that was answered took from when it came, in nanoseconds.
    private(set) var latencies: [UInt64] = []
    private var queue: [UInt64] = []
    private var head = 0
    private var inWork: [UInt64] = []
    private var busyUntil: UInt64 = 0
    private var stalledUntil: UInt64 = 0
    private var nextOffer: UInt64 = 0
    private var random: UInt64 = 0x9E37_79B9_7F4A_7C15

    init(target: UInt64 = 750_000_000, waitingMilliseconds: Int = 1500) {
        limit = QueueLimit(QueueLimit.Configuration(target: target, waitingMilliseconds: waitingMilliseconds))
    }

    var waiting: Int { queue.count - head }

    private mutating func uniform() -> Double {
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        return (Double(random >> 11) + 0.5) / Double(1 << 53)
    }

    mutating func clearFigures() { (offered, refused, overdue, answered, latencies) = (0, 0, 0, 0, []) }

    /// Offers so many a second for so long; `again` of those answered come back at once, as closed loops do.
    mutating func run(seconds: Double, rate: Double, again: Bool = false) {
        let end = now + UInt64(seconds * 1e9)
        nextOffer = rate > 0 ? now : .max
        work()
        while now < end {
            let isBusy = !inWork.isEmpty
            let next = min(isBusy ? busyUntil : .max, nextOffer)
            guard next < end else {
                now = end
                break
            }
            now = max(now, next)
            if isBusy, now >= busyUntil {
                for since in inWork { latencies.append(now - since) }
                answered += inWork.count
                let count = inWork.count
                inWork = []
                if again { for _ in 0..<count { offer() } }
            }
            if now >= nextOffer {
                offer()
                nextOffer = now + UInt64(2 * uniform() * 1e9 / rate) + 1
            }
            work()
        }
    }

    mutating func offer() {
        offered += 1
        let oldest = waiting > 0 ? now - queue[head] : 0
        guard limit.admits(waiting: waiting, oldestWait: oldest, at: now) else {
            refused += 1
            return
        }
        queue.append(now)
    }

    private mutating func work() {
        while head < queue.count, now - queue[head] > patience {
            head += 1
            overdue += 1
        }
        guard inWork.isEmpty, waiting > 0, now >= stalledUntil else { return }
        let count = min(waiting, batch)
        inWork = Array(queue[head..<(head + count)])
        head += count
        limit.took(count, oldestWait: now - inWork[0], newestWait: now - inWork[count - 1], at: now)
        busyUntil = now + fixed + each * UInt64(count)
    }

    func latency(_ fraction: Double) -> Double {
        let sorted = latencies.sorted()
        return sorted.isEmpty ? 0 : Double(sorted[Int(fraction * Double(sorted.count - 1))]) / 1e9
    }

    /// The store stands still for so long from now on: what is in work ends after that.
    mutating func stall(seconds: Double) {
        let end = max(busyUntil, now) + UInt64(seconds * 1e9)
        if inWork.isEmpty { stalledUntil = end } else { busyUntil = end }
    }
}

struct QueueLimitTests {
    /// Threads read the clock before they come to the queue: one may come with an earlier time than the one before.
    @Test func aClockThatGoesBackIsNoWait() {
        var limit = QueueLimit(QueueLimit.Configuration(target: 750_000_000, waitingMilliseconds: 1500))
        var now: UInt64 = 10_000_000_000
        limit.took(8, oldestWait: 1_000, newestWait: 500, at: now)
        let isAdmitted = limit.admits(waiting: 1_000, oldestWait: 700_000_000, at: now - 1)
        #expect(isAdmitted)
        for step in 0..<1_000 {
            now += 10_000_000
            limit.took(8, oldestWait: 1_000, newestWait: 500, at: step % 2 == 0 ? now : now - 15_000_000)
        }
        #expect(!limit.isLimiting && limit.entries == 0)
    }

    /// A commit that takes all that waits is as quick as its sync, however many share it.
    @Test(arguments: [1_000_000, 20_000_000, 400_000_000, 900_000_000] as [UInt64])
    func aGroupCommitIsNeverLimited(_ sync: UInt64) {
        var store = StoreSimulation()
        store.fixed = sync
        for _ in 0..<64 { store.offer() }
        store.run(seconds: 30, rate: 0, again: true)
        #expect(store.refused == 0 && store.limit.entries == 0)
        #expect(store.overdue == 0)
        // All of them share each sync, or two halves take turns.
        #expect(Double(store.answered) > 0.9 * 32 * 30e9 / Double(sync))
    }

    @Test(arguments: [0.3, 0.8, 0.95])
    func nothingIsRefusedAtEase(_ load: Double) {
        var store = StoreSimulation()
        (store.batch, store.fixed, store.each) = (128, 1_000_000, 100_000)
        // 128 in 13.8 ms.
        store.run(seconds: 60, rate: load * 9275)
        #expect(store.refused == 0 && store.limit.entries == 0)
        #expect(store.latency(0.99) < 0.2)
    }

    @Test func aBurstThatDrainsIsNone() {
        var store = StoreSimulation()
        (store.batch, store.fixed, store.each) = (128, 1_000_000, 100_000)
        for _ in 0..<10_000 { store.offer() }
        store.run(seconds: 5, rate: 1000)
        #expect(store.refused == 0 && store.limit.entries == 0)
        #expect(store.latency(1) > 1 && store.overdue == 0, "as long as it may take")
    }

    /// What is more than the store can do is refused at once; the rest is answered in time.
    @Test(arguments: [1.3, 3.0, 10.0])
    func aQueueThatStandsIsHeldShort(_ load: Double) {
        var store = StoreSimulation()
        (store.batch, store.fixed, store.each) = (64, 2_000_000, 1_000_000)
        let capacity = 64 / 0.066
        store.run(seconds: 10, rate: load * capacity)
        store.clearFigures()
        store.run(seconds: 20, rate: load * capacity)
        #expect(store.limit.isLimiting)
        #expect(store.overdue == 0, "nobody waits in vain")
        #expect(store.latency(0.99) < 0.95, "\(store.latency(0.99))")
        #expect(Double(store.answered) > 0.97 * 20 * capacity, "\(store.answered)")

        var unlimited = StoreSimulation(target: 0)
        (unlimited.batch, unlimited.fixed, unlimited.each) = (64, 2_000_000, 1_000_000)
        unlimited.run(seconds: 30, rate: load * capacity)
        #expect(unlimited.refused == 0)
        #expect(unlimited.latency(0.99) > 1.3, "without it they wait as long as they may")
    }

    @Test func itIsOverWhenTheLoadIs() {
        var store = StoreSimulation()
        (store.batch, store.fixed, store.each) = (64, 2_000_000, 1_000_000)
        let capacity = 64 / 0.066
        store.run(seconds: 10, rate: 3 * capacity)
        #expect(store.refused > 0)
        // What waits is done first.
        store.run(seconds: 1, rate: 0.7 * capacity)
        store.clearFigures()
        store.run(seconds: 30, rate: 0.7 * capacity)
        #expect(store.refused == 0, "\(store.refused)")
        #expect(!store.limit.isLimiting)
    }

    @Test func aSlowerStoreGetsAShorterQueueAndAQuickerOneALonger() {
        var store = StoreSimulation()
        (store.batch, store.fixed, store.each) = (64, 2_000_000, 500_000)
        store.run(seconds: 10, rate: 20_000)
        let before = store.limit.value
        (store.fixed, store.each) = (2_000_000, 5_000_000)
        store.run(seconds: 20, rate: 20_000)
        #expect(store.limit.value < before / 2, "\(before) \(store.limit.value)")
        store.clearFigures()
        store.run(seconds: 10, rate: 20_000)
        // No fewer than are taken at once, of which the last waits for the first.
        #expect(store.latency(0.99) < 1.5)
        (store.fixed, store.each) = (2_000_000, 100_000)
        store.run(seconds: 20, rate: 20_000)
        #expect(store.limit.value > before)
    }

    /// A store that stands still lets nobody wait for it who would probably wait in vain.
    @Test func aStallFailsFastAndIsOverAtOnce() {
        var store = StoreSimulation()
        store.run(seconds: 5, rate: 2000)
        #expect(store.refused == 0)
        store.clearFigures()
        store.stall(seconds: 5)
        store.run(seconds: 5, rate: 2000)
        // Those of the first three quarters of a second wait until they give up, most of the others are told at once.
        #expect(store.refused > 4000, "\(store.refused)")
        #expect(store.waiting <= 64 + 1510)
        store.run(seconds: 0.5, rate: 2000)
        store.clearFigures()
        store.run(seconds: 10, rate: 2000)
        #expect(store.refused == 0 && store.overdue == 0)
        #expect(store.latency(0.99) < 0.1)
    }

    @Test func aHiccupIsNoStall() {
        var store = StoreSimulation()
        for _ in 0..<20 {
            store.run(seconds: 1, rate: 5000)
            store.stall(seconds: 0.4)
            store.run(seconds: 1, rate: 5000)
        }
        #expect(store.refused == 0 && store.limit.entries == 0)
    }

    @Test func aTargetOfNothingLimitsNothing() {
        var limit = QueueLimit(QueueLimit.Configuration(target: 0, waitingMilliseconds: 1500))
        for second in 1...100 as ClosedRange<UInt64> {
            limit.took(10, oldestWait: 90_000_000_000, newestWait: 80_000_000_000, at: second * 1_000_000_000)
        }
        #expect(limit.admits(waiting: 1 << 20, oldestWait: 90_000_000_000, at: 900_000_000_000) == true)
    }

    @Test func theTargetIsHalfOfTheTimeThatIsThereAtMost() {
        let short = QueueLimit.Configuration(target: 500_000_000, waitingMilliseconds: 300)
        #expect(short.targetNanoseconds == 150_000_000 && short.stallNanoseconds == 150_000_000)
        let long = QueueLimit.Configuration(target: 500_000_000, waitingMilliseconds: 60_000)
        #expect(long.targetNanoseconds == 500_000_000)
    }
}

/// The limit in a queue that threads use.
struct PacedQueueTests {
    private typealias Entry = Waiting<Int>

    private func queue(reserved: @escaping @Sendable (Int) -> Bool = { _ in false }) -> SubmissionQueue<Entry> {
        var configuration = QueueLimit.Configuration(target: 1_000_000, waitingMilliseconds: 1000)
        configuration.intervalNanoseconds = 1
        configuration.fewest = 4
        return SubmissionQueue(
            countLimit: 1000, byteLimit: .max, pace: QueuePace(configuration, reserved: reserved)
        ) { _ in 0 }
    }

    private func entries(_ numbers: ClosedRange<Int>, age: UInt64 = 0) -> [Entry] {
        let since = Clock.monotonicNanoseconds() - age
        return numbers.map { Waiting(element: $0, sinceNanoseconds: since) }
    }

    private func take(_ queue: SubmissionQueue<Entry>, _ count: Int) -> [Int] {
        var taken: [Entry] = []
        queue.take(into: &taken, limit: count)
        return taken.map(\.element)
    }

    @Test func aStandingQueueTakesFewerButWhatIsReserved() {
        let queue = queue { $0 >= 900 }
        #expect(queue.waitingLimit.count == 1000)
        // All of them waited for seconds, and takes come one right behind the other.
        #expect(queue.offer(entries(1...500, age: 3_000_000_000)).isEmpty)
        for _ in 0..<6 {
            usleep(3000)
            _ = take(queue, 2)
        }
        #expect(queue.waitingLimit.count < 400 && queue.waitingLimit.entries == 1)
        #expect(queue.offer(entries(501...510)).map(\.element) == Array(501...510))
        #expect(queue.offer(entries(900...905)).isEmpty, "what is reserved goes in beyond it")
        #expect(take(queue, .max).count == 494)
        #expect(queue.offer(entries(1...2)).isEmpty, "there is room again")
    }

    @Test func whatIsTakenAwayByTheDoorSaysNothing() {
        let queue = queue()
        #expect(queue.offer(entries(1...500, age: 3_000_000_000)).isEmpty)
        for _ in 0..<20 {
            var taken: [Entry] = []
            queue.take(into: &taken, limit: 1) { _ in true }
        }
        #expect(queue.waitingLimit.count == 1000 && queue.count == 480)
    }

    @Test func nobodyJoinsAStoreThatStandsStill() {
        let queue = queue()
        #expect(queue.offer(entries(1...3, age: 100_000_000)).isEmpty)
        #expect(queue.offer(entries(4...10)).isEmpty, "not for that long yet")
        let other = self.queue()
        #expect(other.offer(entries(1...10, age: 600_000_000)).isEmpty)
        #expect(other.offer(entries(11...12)).count == 2)
    }
}
