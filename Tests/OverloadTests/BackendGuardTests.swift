// Martlet
// SPDX-License-Identifier: Apache-2.0

import Overload
import Testing

/// A sender and a server in virtual time: what is sent waits in the server's queue and is served one after another.
struct ServerSimulation {
    /// Seconds that a request takes, and that the way there and back takes.
    var serviceTime = 100e-6
    var wayTime = 50e-6
    /// Requests a second that the server takes; it refuses what is more, at once. 0 for all.
    var accepts = 0.0
    var gate: BackendGuard
    private(set) var sent = 0
    private(set) var refused = 0
    private(set) var throttled = 0
    private(set) var inTime = 0
    private(set) var longest = 0.0
    private(set) var criticalRefused = 0
    private var random: UInt64 = 0x9E37_79B9_7F4A_7C15
    private var flights: [(end: Double, sent: Double, requestClass: RequestClass, isRefused: Bool)] = []
    private var landed = 0
    private var freeAt = 0.0
    private var tokens = 0.0
    private var lastToken = 0.0
    private var waiting = WaitingRoom(capacity: 4096, limitNanoseconds: 50_000_000)
    var now = 0.0

    init(_ given: BackendGuard.Configuration = BackendGuard.Configuration()) {
        var configuration = given
        // Within what this simulation counts as in time.
        configuration.limit.targetNanoseconds = min(given.limit.targetNanoseconds, 2_000_000)
        gate = BackendGuard(configuration, seed: 7)
    }

    private func nanoseconds(_ time: Double) -> UInt64 { UInt64(time * 1e9) + 1_000_000_000 }

    private mutating func uniform() -> Double {
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        return (Double(random >> 11) + 0.5) / Double(1 << 53)
    }

    /// Offers so many requests a second for so long, of which a part is critical.
    mutating func run(seconds: Double, rate: Double, critical: Double = 0) {
        let end = now + seconds
        var next = now
        while now < end {
            let arrival = landed < flights.count ? flights[landed].end : .infinity
            if arrival <= next {
                now = arrival
                answer()
            } else {
                now = next
                // Two to nothing at once: as good as chance here.
                next += 2 * uniform() / rate
                offer(uniform() < critical ? .critical : .background)
            }
        }
    }

    private var inFlight: Int { flights.count - landed }

    private mutating func offer(_ requestClass: RequestClass) {
        guard gate.admits(requestClass, now: nanoseconds(now)) else {
            throttled += 1
            if requestClass == .critical { criticalRefused += 1 }
            return
        }
        guard inFlight < gate.inFlightLimit else {
            _ = waiting.add(0, sender: random, now: nanoseconds(now))
            return
        }
        send(requestClass)
    }

    private mutating func send(_ requestClass: RequestClass) {
        sent += 1
        tokens = min(tokens + (now - lastToken) * accepts, 10)
        lastToken = now
        // Critical requests are taken before others.
        let isRefused = accepts > 0 && requestClass != .critical && tokens < 1
        if accepts > 0, !isRefused { tokens -= 1 }
        freeAt = max(freeAt, now) + (isRefused ? 1e-6 : serviceTime)
        flights.append((freeAt + wayTime, now, requestClass, isRefused))
    }

    private mutating func answer() {
        let flight = flights[landed]
        landed += 1
        if landed > 4096 {
            flights.removeFirst(landed)
            landed = 0
        }
        let time = nanoseconds(now)
        if flight.isRefused {
            refused += 1
            gate.refused(flight.requestClass, now: time)
        } else {
            let latency = UInt64((now - flight.sent) * 1e9)
            gate.answered(flight.requestClass, latency: latency, inFlight: inFlight + 1, now: time)
            longest = max(longest, now - flight.sent)
            if now - flight.sent <= 5e-3 { inTime += 1 }
        }
        while waiting.takeOverdue(now: time) != nil {}
        if inFlight < gate.inFlightLimit, waiting.take(now: time) != nil { send(.background) }
    }

    mutating func forget() { (sent, refused, throttled, inTime, longest, criticalRefused) = (0, 0, 0, 0, 0, 0) }
}

struct BackendGuardTests {
    @Test func nothingIsLimitedWhileTheServerKeepsUp() {
        var one = ServerSimulation()
        one.run(seconds: 4, rate: 8_000)
        #expect(!one.gate.isLimiting && one.throttled == 0)
    }

    @Test func aBurstThatDrainsIsNoReason() {
        var one = ServerSimulation()
        for _ in 0..<20 {
            one.run(seconds: 0.01, rate: 30_000)
            one.run(seconds: 0.4, rate: 5_000)
        }
        #expect(!one.gate.isLimiting)
    }

    @Test(arguments: [1.4, 3.0, 10.0])
    func theQueueIsHeldWhereItWouldGrow(_ factor: Double) {
        var one = ServerSimulation()
        one.run(seconds: 1, rate: 8_000)
        one.run(seconds: 1, rate: 10_000 * factor)
        one.forget()
        one.run(seconds: 2, rate: 10_000 * factor)
        #expect(one.gate.isLimiting)
        #expect(one.longest < 8e-3, "\(one.longest)")
        #expect(Double(one.inTime) > 0.95 * 20_000, "\(one.inTime)")
        // And nothing is left of it when the server keeps up again.
        one.run(seconds: 2, rate: 5_000)
        one.forget()
        one.run(seconds: 1, rate: 8_000)
        #expect(Double(one.inTime) > 0.99 * 8_000, "\(one.inTime)")
    }

    @Test func aServerThatBecameSlowerIsMeasuredAnew() {
        var one = ServerSimulation()
        one.run(seconds: 1, rate: 5_000)
        // The way became 20 ms long: that is no queue.
        one.wayTime = 20e-3
        one.run(seconds: 1, rate: 5_000)
        let before = one.sent
        one.run(seconds: 1, rate: 5_000)
        #expect(Double(one.sent - before) > 0.95 * 5_000)
    }

    @Test func aSwitchedOffLimitLimitsNothing() {
        var configuration = BackendGuard.Configuration()
        configuration.limit.targetNanoseconds = 0
        configuration.throttles = false
        var one = ServerSimulation(configuration)
        one.run(seconds: 2, rate: 30_000)
        #expect(!one.gate.isLimiting && one.throttled == 0)
    }

    @Test func aServerThatRefusesMostIsAskedTwiceWhatItTakes() {
        var one = ServerSimulation()
        one.serviceTime = 10e-6
        one.accepts = 5_000
        one.run(seconds: 1, rate: 50_000)
        one.forget()
        one.run(seconds: 2, rate: 50_000)
        #expect((9_000...13_000).contains(one.sent / 2), "\(one.sent)")
        // It takes everything again: so does the sender, within a second.
        one.accepts = 0
        one.run(seconds: 1, rate: 5_000)
        one.forget()
        one.run(seconds: 1, rate: 5_000)
        #expect(one.throttled == 0)
    }

    @Test func whatTheServerTakesOfAClassIsSent() {
        var one = ServerSimulation()
        one.serviceTime = 10e-6
        one.accepts = 3_000
        one.run(seconds: 3, rate: 50_000, critical: 0.05)
        #expect(one.throttled > 50_000)
        #expect(one.criticalRefused == 0)
    }

    @Test func invalidationsAreAlwaysSent() {
        var gate = BackendGuard(seed: 3)
        for step in 0..<1000 { gate.refused(.invalidation, now: 1_000_000_000 + UInt64(step)) }
        var admitted = 0
        for step in 0..<100 where gate.admits(.invalidation, now: 1_000_002_000 + UInt64(step)) { admitted += 1 }
        #expect(admitted == 100)
    }

    @Test func halfThatIsRefusedIsNoReason() {
        var gate = BackendGuard(seed: 3)
        for step in 0..<1000 {
            let now = 1_000_000_000 + UInt64(step) * 1000
            if step % 2 == 0 {
                gate.refused(.standard, now: now)
            } else {
                gate.answered(.standard, latency: 1000, inFlight: 1, now: now)
            }
        }
        #expect(gate.refusedPart(.standard) < 0.01)
    }
}

/// A room that expectations can change.
final class Room {
    private var room: WaitingRoom

    init(capacity: Int, limitNanoseconds: UInt64) {
        room = WaitingRoom(capacity: capacity, limitNanoseconds: limitNanoseconds)
    }

    var count: Int { room.count }
    var deadline: UInt64 { room.deadline }

    func add(_ item: Int, sender: UInt64, now: UInt64) -> Bool { room.add(item, sender: sender, now: now) }
    func take(now: UInt64) -> Int? { room.take(now: now) }
    func takeOverdue(now: UInt64) -> Int? { room.takeOverdue(now: now) }
    func forEach(_ body: (Int) -> Void) { room.forEach(body) }
}

struct WaitingRoomTests {
    static let start: UInt64 = 1_000_000_000

    @Test func theOldestGoesFirstWhileNoneWaitsLong() {
        let room = Room(capacity: 8, limitNanoseconds: 50_000_000)
        for item in 0..<4 { #expect(room.add(item, sender: UInt64(item), now: Self.start + UInt64(item) * 1000)) }
        #expect((0..<5).map { _ in room.take(now: Self.start + 10_000) ?? -1 } == [0, 1, 2, 3, -1])
    }

    @Test func theNewestGoesFirstWhereAQueueStands() {
        let room = Room(capacity: 8, limitNanoseconds: 50_000_000)
        for item in 0..<4 { #expect(room.add(item, sender: UInt64(item), now: Self.start + UInt64(item) * 1_000_000)) }
        #expect(room.take(now: Self.start + 4_000_000) == 3)
        #expect(room.take(now: Self.start + 4_000_000) == 2)
    }

    @Test func requestsOfOneSenderKeepTheirOrder() {
        let room = Room(capacity: 8, limitNanoseconds: 50_000_000)
        for item in 0..<3 { #expect(room.add(item, sender: 5, now: Self.start + UInt64(item))) }
        #expect(room.add(7, sender: 6, now: Self.start + 10_000_000))
        let order = (0..<4).map { _ in room.take(now: Self.start + 20_000_000) ?? -1 }
        #expect(order == [7, 0, 1, 2])
    }

    @Test func whatIsOverdueIsGivenUp() {
        let room = Room(capacity: 8, limitNanoseconds: 50_000_000)
        #expect(room.deadline == .max)
        #expect(room.add(1, sender: 1, now: Self.start))
        #expect(room.add(2, sender: 2, now: Self.start + 5))
        #expect(room.deadline == Self.start + 50_000_000)
        #expect(room.takeOverdue(now: Self.start + 49_999_999) == nil)
        #expect(room.takeOverdue(now: Self.start + 50_000_000) == 1)
        #expect(room.takeOverdue(now: Self.start + 50_000_000) == nil)
        #expect(room.count == 1)
    }

    @Test func thereIsRoomForNoMore() {
        let room = Room(capacity: 2, limitNanoseconds: 1)
        #expect(room.add(1, sender: 1, now: 1) && room.add(2, sender: 2, now: 1) && !room.add(3, sender: 3, now: 1))
        #expect(room.take(now: 1) == 1)
        #expect(room.add(3, sender: 3, now: 1))
        var left: [Int] = []
        room.forEach { left.append($0) }
        #expect(left.sorted() == [2, 3])
    }
}
