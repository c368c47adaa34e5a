// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Routing

/// Reads that are asked of a second server when the first dawdles, in virtual time.
struct HedgeRouteTests {
    typealias Answer = RouteBench.Answer

    static let millisecond: UInt64 = 1_000_000

    /// Two servers behind a hedge, each with its own latency and answer.
    final class Fleet {
        let engine: RouteEngine
        var now: UInt64 = 1_000_000_000
        /// Of `a` and `b`: milliseconds and what is answered.
        var latency = ["a": 2.0, "b": 2.0]
        var answer: [String: Answer] = ["a": "found", "b": "found"]
        private(set) var requests = 0
        private(set) var second = 0

        struct Read {
            let answer: String
            let wasAskedTwice: Bool
            let milliseconds: Double
        }

        init(consistency: PoolConsistency = .lookAside, _ change: (inout HedgeRoute) -> Void = { _ in }) {
            var bench = RouteBench()
            let children = ["a", "b"].map { name in
                var pool = RoutePool(name, servers: [PoolServer(Server(host: name, port: 11211))])
                pool.consistency = consistency
                return bench.handle(.pool(bench.index(pool)))
            }
            var route = HedgeRoute(children[0], children[1])
            change(&route)
            bench.root(bench.handle(.hedge(route)))
            engine = RouteEngine(plan: bench.plan(), seed: 1, nowNanoseconds: now)
        }

        private var clock: RouteClock { RouteClock(nowNanoseconds: now, unixSeconds: 1_000) }

        /// One read at a time; the clock goes on to its answer.
        func read(_ operation: RouteOperation = .get) -> Read {
            requests += 1
            var machine = RouteMachine()
            var actions: [RouteAction] = []
            var events: [(time: UInt64, wake: Int?, sub: SubRequest?)] = []
            var hosts: [Int: String] = [:]
            var result: (text: String, time: UInt64)?
            var isTwice = false
            let (start, key) = (now, bytes("k"))
            let none: [UInt8] = []
            machine.start(
                RouteRequest(operation), key: key.span, value: none.span, engine: engine, clock: clock,
                actions: &actions)
            while true {
                for action in actions {
                    switch action {
                    case .wait(let token, let time): events.append((time, token, nil))
                    case .send(let sub):
                        let host = engine.plan.destinations[sub.destination].host
                        hosts[sub.token] = host
                        if sub.kind == .hedge {
                            isTwice = true
                            second += 1
                        }
                        let delay = (latency[host] ?? 0) * Double(HedgeRouteTests.millisecond)
                        events.append((now + UInt64(delay), nil, sub))
                    case .reply(let final):
                        #expect(result == nil, "two answers")
                        var text = "\(final.result)"
                        if case .token(let token) = final.source { text += "@" + (hosts[token] ?? "?") }
                        result = (text, now)
                    }
                }
                actions.removeAll()
                guard let next = events.indices.min(by: { events[$0].time < events[$1].time }), !machine.isFinished
                else { break }
                let event = events.remove(at: next)
                now = max(now, event.time)
                if let sub = event.sub {
                    let said = answer[hosts[sub.token] ?? ""] ?? "found"
                    machine.reply(
                        sub.token, said.reply, value: none.span, engine: engine, clock: clock,
                        actions: &actions)
                } else if let token = event.wake {
                    machine.wake(token, engine: engine, clock: clock, actions: &actions)
                }
            }
            let isOver = machine.isFinished
            #expect(isOver)
            let took = Double((result?.time ?? now) - start) / Double(HedgeRouteTests.millisecond)
            return Read(answer: result?.text ?? "", wasAskedTwice: isTwice, milliseconds: took)
        }

        /// Reads until the usual latency is known.
        func learn(_ count: Int = 200) { for _ in 0..<count { _ = read() } }

        func isSlow(_ milliseconds: Double = 100) { latency["a"] = milliseconds }
    }

    @Test func nothingIsAskedTwiceBeforeTheUsualTimeIsKnown() {
        let fleet = Fleet()
        fleet.learn(90)
        fleet.isSlow()
        #expect(!fleet.read().wasAskedTwice)
    }

    @Test func aSlowReadIsAskedOfTheOtherAfterTheUsualTime() {
        let fleet = Fleet()
        fleet.learn()
        fleet.isSlow()
        let read = fleet.read()
        #expect(read.answer == "found@b")
        // The usual 2 ms, rounded up by an eighth at most, and the other's 2 ms.
        #expect(4.0...4.3 ~= read.milliseconds, "\(read.milliseconds)")
    }

    @Test func whatIsAnsweredInTheUsualTimeIsNotAskedTwice() {
        let fleet = Fleet()
        fleet.learn()
        for _ in 0..<1000 { #expect(!fleet.read().wasAskedTwice) }
    }

    @Test func itIsNotAskedTwiceBeforeTheLeastTime() {
        let fleet = Fleet { $0.minimumMilliseconds = 50 }
        fleet.learn()
        fleet.isSlow(40)
        #expect(!fleet.read().wasAskedTwice)
        fleet.isSlow(200)
        #expect(52.0...52.1 ~= fleet.read().milliseconds)
    }

    @Test func theFirstsAnswerCountsWhenItComesBeforeTheOthers() {
        let fleet = Fleet()
        fleet.learn()
        (fleet.latency["a"], fleet.latency["b"]) = (5, 50)
        let read = fleet.read()
        #expect(read.wasAskedTwice && read.answer == "found@a" && read.milliseconds == 5)
    }

    @Test func aMissOfACopyIsNoAnswerUnlessAStoreIsBehindIt() {
        let cache = Fleet()
        let stored = Fleet(consistency: .bounded(stalenessMilliseconds: 1000))
        for fleet in [cache, stored] {
            fleet.learn()
            fleet.isSlow()
            fleet.answer["b"] = "notFound"
        }
        #expect(cache.read().answer == "found@a")
        #expect(stored.read().answer == "notFound@b")
    }

    @Test(arguments: [RouteResult.timeout, .remoteError, .busy])
    func anErrorOfTheFirstIsItsAnswerUnlessTheOtherIsAsked(_ result: RouteResult) {
        let fleet = Fleet()
        fleet.learn()
        fleet.answer["a"] = Answer(result)
        #expect(fleet.read().answer == "\(result)@a", "hedging is no failover")
        fleet.now += 2_000 * Self.millisecond
        fleet.isSlow(10)
        fleet.latency["b"] = 20
        #expect(fleet.read().answer == "found@b")
        fleet.now += 2_000 * Self.millisecond
        fleet.answer["b"] = "timeout"
        #expect(fleet.read().answer == "\(result)@a")
    }

    @Test func noMoreThanTheBudgetIsAskedTwice() {
        let fleet = Fleet { $0.limit = FailoverLimit(rate: 0.05, burst: 10) }
        for _ in 0..<20 {
            fleet.latency["a"] = 2
            fleet.learn(600)
            fleet.isSlow()
            fleet.learn(25)
        }
        #expect(fleet.second <= 10 + fleet.requests / 20)
        #expect(fleet.second >= fleet.requests / 100, "\(fleet.second) of \(fleet.requests)")
        #expect(fleet.engine.takeWithheldHedges() > 0)
        #expect(fleet.engine.takeWithheldHedges() == 0)
    }

    @Test func nothingIsAskedTwiceWhileServersAreBusy() {
        let fleet = Fleet()
        fleet.learn()
        fleet.engine.noteBusy(nowNanoseconds: fleet.now)
        fleet.isSlow()
        for _ in 0..<9 { #expect(!fleet.read().wasAskedTwice) }
        fleet.latency["a"] = 2
        fleet.learn(200)
        fleet.now += 1_000 * Self.millisecond
        fleet.isSlow()
        #expect(fleet.read().wasAskedTwice)
    }

    @Test(arguments: [RouteOperation.set, .delete, .increment, .touch, .gets, .gat, .leaseGet])
    func whatChangesOrNumbersSomethingGoesStraightToTheFirst(_ operation: RouteOperation) {
        let plan = Fleet().engine.plan
        let key = bytes("k")
        #expect(plan.target(of: key.span, for: operation).kind == .destination)
        #expect(plan.target(of: key.span, for: .get).kind == .composite)
    }

    @Test func aReadOfAClientThatLeftIsNotAskedTwice() {
        let fleet = Fleet()
        fleet.learn()
        var machine = RouteMachine()
        var actions: [RouteAction] = []
        let clock = RouteClock(nowNanoseconds: fleet.now, unixSeconds: 1_000)
        let (key, none) = (bytes("k"), [UInt8]())
        machine.start(
            RouteRequest(.get), key: key.span, value: none.span, engine: fleet.engine, clock: clock,
            actions: &actions)
        guard case .wait(let token, let time) = actions.last else {
            Issue.record("no time is waited for: \(actions)")
            return
        }
        actions.removeAll()
        machine.cancel()
        let later = RouteClock(nowNanoseconds: time, unixSeconds: 1_000)
        machine.wake(token, engine: fleet.engine, clock: later, actions: &actions)
        #expect(actions.isEmpty)
        let reply = RouteReply(.found)
        machine.reply(0, reply, value: none.span, engine: fleet.engine, clock: later, actions: &actions)
        let isOver = machine.isFinished
        #expect(isOver && actions.isEmpty)
    }

    @Test func hedgedReadsOverAStrictPoolAreRefused() throws {
        var tree = RouteTree()
        var pool = RoutePool("orders", servers: [PoolServer(Server(host: "a", port: 1))])
        pool.consistency = .strict
        let strict = try tree.add(.pool(try tree.add(pool)))
        let other = try tree.add(.pool(try tree.add(RoutePool("other", servers: []))))
        let error = #expect(throws: RouteError.self) { try tree.add(.hedge(HedgeRoute(other, strict))) }
        #expect(error?.description.contains("hedged reads over the pool orders, which has storage") == true)
    }
}

/// The quantile that a read may take until it is asked twice.
struct LatencyQuantileTests {
    @Test(arguments: [0.5, 0.9, 0.95, 0.99])
    func isWithinAnEighthOfTheTruth(_ fraction: Double) {
        var random = RouteRandom(seed: 7)
        var quantile = LatencyQuantile(fraction)
        for _ in 0..<20_000 { quantile.add(nanoseconds: 100_000 + random.next() % 10_000_000) }
        let truth = 100_000 + 10_000_000 * fraction
        let said = Double(quantile.nanoseconds ?? 0)
        #expect(0.95...1.18 ~= said / truth, "\(said) of \(truth)")
    }

    @Test func forgetsWhatWasLongAgo() {
        var quantile = LatencyQuantile(0.95)
        for _ in 0..<5_000 { quantile.add(nanoseconds: 100_000_000) }
        for _ in 0..<20_000 { quantile.add(nanoseconds: 1_000_000) }
        #expect(1_000_000...1_200_000 ~= quantile.nanoseconds ?? 0)
    }

    @Test(arguments: [0, 1, 9_000, 1 << 62] as [UInt64])
    func takesEveryNumber(_ number: UInt64) {
        var quantile = LatencyQuantile(0.95)
        for _ in 0..<128 { quantile.add(nanoseconds: number) }
        #expect((quantile.nanoseconds ?? 0) >= min(number, 60_000_000_000))
    }
}
