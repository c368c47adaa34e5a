// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Routing

/// Failover: after which errors, to whom, and how often.
struct FailoverRouteTests {
    typealias Answer = RouteBench.Answer

    static func bench(
        _ names: [String] = ["a", "b", "c"], _ change: (inout FailoverRoute) -> Void = { _ in }
    ) -> RouteBench {
        var bench = RouteBench()
        var route = FailoverRoute(names.map { bench.server($0) })
        change(&route)
        bench.root(bench.handle(.failover(route)))
        return bench
    }

    @Test(arguments: RouteResult.allCases)
    func onlySomeErrorsFailOver(_ result: RouteResult) {
        var bench = Self.bench()
        let outcome = bench.route(.get, "k", ["a": Answer(result), "b": "found"])
        #expect(outcome.answer == (result.isFailoverError ? "found@b" : "\(result)@a"))
    }

    @Test func theLastReplyCountsWhenAllFail() {
        var bench = Self.bench()
        let outcome = bench.route(.get, "k", ["a": "timeout", "b": "busy", "c": "connectError"])
        #expect(outcome.sent == ["get k@a", "get k@b +", "get k@c +"])
        #expect(outcome.answer == "connectError@c")
    }

    @Test func errorsMayBeNamedByOperation() {
        var bench = Self.bench {
            $0.errors = FailoverErrors(gets: [.busy], updates: [], deletes: [.timeout])
        }
        #expect(bench.route(.get, "k", ["a": "busy", "b": "found"]).answer == "found@b")
        #expect(bench.route(.gats, "k", ["a": "timeout", "b": "found"]).answer == "timeout@a")
        #expect(bench.route(.set, "k", ["a": "timeout", "b": "stored"]).answer == "timeout@a")
        #expect(bench.route(.cas, "k", ["a": "tko", "b": "stored"]).answer == "tko@a")
        #expect(bench.route(.delete, "k", ["a": "timeout", "b": "deleted"]).answer == "deleted@b")
        // What is in no list fails over as always.
        #expect(bench.route(.increment, "k", ["a": "timeout", "b": "stored"]).answer == "stored@b")
        #expect(bench.route(.touch, "k", ["a": "tko", "b": "touched"]).answer == "touched@b")
    }

    @Test func triesAreLimitedAndAnUnreachableDestinationIsNone() {
        var bench = Self.bench { $0.policy = .inOrder(maximumTries: 2, excluding: []) }
        #expect(bench.route(.get, "k", ["a": "timeout", "b": "timeout", "c": "found"]).answer == "timeout@b")
        #expect(bench.route(.get, "k", ["a": "tko", "b": "timeout", "c": "found"]).answer == "found@c")
        #expect(bench.route(.get, "k", ["a": "connectError", "b": "connectTimeout", "c": "found"]).answer == "found@c")
        var single = Self.bench { $0.policy = .inOrder(maximumTries: 1, excluding: []) }
        #expect(single.route(.get, "k", ["a": "timeout", "b": "found"]).sent == ["get k@a"])
    }

    @Test func excludedErrorsAreNoTries() {
        var bench = Self.bench { $0.policy = .inOrder(maximumTries: 2, excluding: [.busy]) }
        #expect(bench.route(.get, "k", ["a": "busy", "b": "timeout", "c": "found"]).answer == "found@c")
        #expect(bench.route(.get, "k", ["a": "timeout", "b": "timeout", "c": "found"]).answer == "timeout@b")
    }

    /// A burst of three, and half of the requests, of which the first half a request finds the bucket full.
    @Test func theRateIsAPartOfTheRequests() {
        var bench = Self.bench(["a", "b"]) { $0.limit = FailoverLimit(rate: 0.5, burst: 3) }
        var passed: [Bool] = []
        for _ in 0..<11 { passed.append(bench.route(.get, "k", ["a": "timeout", "b": "found"]).answer == "found@b") }
        #expect(passed.filter { $0 }.count == 8, "\(passed)")
        #expect(passed.prefix(3).allSatisfy { $0 })
        // Where nothing was done, nothing is limited.
        for _ in 0..<10 { #expect(bench.route(.get, "k", ["a": "tko", "b": "found"]).answer == "found@b") }
    }

    @Test func thoseThatFailedLastComeLast() {
        var bench = Self.bench(["a", "b", "c", "d"]) { $0.policy = .leastFailures(maximumTries: 3) }
        let first = bench.route(.get, "k", ["a": "timeout", "b": "timeout", "c": "found"])
        #expect(first.sent == ["get k@a", "get k@b +", "get k@c +"])
        let second = bench.route(.get, "k", ["a": "timeout", "c": "timeout", "d": "timeout"])
        #expect(second.sent == ["get k@a", "get k@c +", "get k@d +"])
        // b, c and d failed once each.
        let third = bench.route(.get, "k", ["a": "timeout", "b": "found"])
        #expect(third.sent == ["get k@a", "get k@b +"])
        // a good reply forgets.
        let fourth = bench.route(.get, "k", ["a": "timeout", "b": "timeout", "c": "timeout"])
        #expect(fourth.sent == ["get k@a", "get k@b +", "get k@c +"])
    }

    /// A pool of five, and the same five behind it.
    static func deterministic(
        domains: [UInt32] = [], _ change: (inout DeterministicFailover) -> Void = { _ in }
    ) -> RouteBench {
        var bench = RouteBench()
        let names = ["p", "q", "r", "s", "t"]
        var pool = RoutePool(
            "five",
            servers: names.enumerated().map { index, name in
                PoolServer(Server(host: name, port: 1), failureDomain: index < domains.count ? domains[index] : 0)
            })
        pool.hash = HashChoice(.ch3)
        let index = bench.index(pool)
        let normal = bench.handle(.pool(index))
        let others = names.indices.map { bench.handle(.server(pool: index, index: $0)) }
        var policy = DeterministicFailover(maximumTries: 4, maximumErrors: 4)
        change(&policy)
        var route = FailoverRoute([normal] + others)
        route.policy = .deterministic(policy)
        bench.root(bench.handle(.failover(route)))
        return bench
    }

    static let allTimeOut: [String: Answer] = Dictionary(
        uniqueKeysWithValues: ["p", "q", "r", "s", "t"].map { ($0, Answer(.timeout)) })

    @Test func deterministicFailoverAsksEachOnceAndAlwaysTheSame() {
        var bench = Self.deterministic()
        var seconds: Set<String> = []
        for number in 0..<50 {
            let sent = bench.route(.get, "k\(number)", Self.allTimeOut).sent
            #expect(sent.count == 4)
            #expect(Set(sent.map { $0.replacing(" +", with: "") }).count == 4, "\(sent)")
            #expect(bench.route(.get, "k\(number)", Self.allTimeOut).sent == sent)
            seconds.insert(String(sent[1].suffix(3)))
        }
        #expect(seconds.count == 5)
    }

    @Test func deterministicFailoverCountsErrors() {
        var bench = Self.deterministic { $0.maximumErrors = 2 }
        #expect(bench.route(.get, "k", Self.allTimeOut).sent.count == 2)
        let unreachable = Self.allTimeOut.mapValues { _ in Answer(.tko) }
        #expect(bench.route(.get, "k", unreachable).sent.count == 4)
    }

    @Test func deterministicFailoverHashesWithAGrowingSalt() {
        var bench = Self.deterministic { $0.ignoresNormalIndex = true }
        // What mcrouter's loop would choose: Ch3 over six children of the key with 2, 3, 4, … behind it.
        let sent = bench.route(.get, "key", Self.allTimeOut).sent.map {
            String($0.dropFirst("get key@".count).prefix(1))
        }
        var expected: [String] = []
        var salt = 1
        var used: Set<Int> = [0]
        while expected.count < 3 {
            salt += 1
            let index = Ch3(count: 6).owner(of: bytes("key\(salt)").span)
            if used.insert(index).inserted { expected.append(["p", "q", "r", "s", "t"][index - 1]) }
        }
        #expect(Array(sent.dropFirst()) == expected)
    }

    @Test func deterministicFailoverPassesOverFailedDomains() {
        var bench = Self.deterministic(domains: [1, 1, 1, 1, 2]) { $0.avoidsFailedDomains = true }
        for number in 0..<20 {
            let unreachable = Self.allTimeOut.mapValues { _ in Answer(.tko) }
            let sent = bench.route(.get, "k\(number)", unreachable).sent
            let isFirstOfTwo = sent[0].hasSuffix("@t")
            #expect(isFirstOfTwo || sent[1].contains("@t"), "\(sent)")
        }
    }

    @Test func rendezvousFailoverAsksByScoreAndNotTheOrdinaryOneTwice() {
        var bench = RouteBench()
        let names = ["p", "q", "r", "s"]
        var pool = RoutePool("four", servers: names.map { PoolServer(Server(host: $0, port: 1)) })
        pool.hash = HashChoice(.rendezvous)
        let index = bench.index(pool)
        var route = FailoverRoute(
            [bench.handle(.pool(index))] + names.indices.map { bench.handle(.server(pool: index, index: $0)) })
        route.policy = .rendezvous(tags: names.map { "\($0):1" }, weights: [])
        bench.root(bench.handle(.failover(route)))
        for number in 0..<20 {
            let sent = bench.route(.get, "k\(number)", Self.allTimeOut).sent
            let ranking = Rendezvous(names: names.map { "\($0):1" }, weights: []).ranking(of: bytes("k\(number)").span)
            #expect(
                sent.map { $0.split(separator: "@")[1].prefix(1) } == ranking.map { Substring(names[$0]) }, "\(sent)")
        }
    }

    @Test func pairedLeasesGoBackToWhereTheyCameFrom() throws {
        var bench = Self.bench(["a", "b"]) { $0.pairsLeases = true }
        let miss = bench.route(
            .leaseGet, "k", ["a": "timeout", "b": Answer(.notFound, cas: 77, lease: true)])
        let token = try #require(miss.reply?.casToken)
        #expect(token != 77)
        var set = RouteRequest(.leaseSet, casToken: token)
        #expect(bench.route(.leaseSet, "k", ["b": "stored"], request: set).sent == ["lease-set k@b cas=77"])
        // Each is good once; what is not known goes to the first, and only there.
        #expect(bench.route(.leaseSet, "k", ["a": "timeout", "b": "stored"], request: set).sent == ["lease-set k@a"])
        set.casToken = 5
        #expect(bench.route(.leaseSet, "k", ["a": "timeout"], request: set).sent == ["lease-set k@a"])
        // A lease of the first needs no token of ours.
        #expect(bench.route(.leaseGet, "k", ["a": Answer(.notFound, cas: 9, lease: true)]).reply?.casToken == nil)
    }

    @Test func pairedLeasesExpire() throws {
        var bench = Self.bench(["a", "b"]) { $0.pairsLeases = true }
        let miss = bench.route(.leaseGet, "k", ["a": "timeout", "b": Answer(.notFound, cas: 77, lease: true)])
        let token = try #require(miss.reply?.casToken)
        bench.clock = RouteClock(nowNanoseconds: bench.clock.nowNanoseconds + 11_000_000_000, unixSeconds: 1_011)
        let set = RouteRequest(.leaseSet, casToken: token)
        #expect(bench.route(.leaseSet, "k", ["b": "stored"], request: set).sent == ["lease-set k@a"])
    }

    @Test func aChildThatAnswersAtOnceFailsOverToo() {
        var bench = RouteBench()
        let broken = bench.handle(.error("closed", .localError))
        let server = bench.server("b")
        bench.root(bench.handle(.failover(FailoverRoute([broken, server]))))
        #expect(bench.route(.get, "k", ["b": "found"]).answer == "found@b")
    }

    /// A gutter: what is stored there lives a minute at most; deletes have no expiry.
    @Test func aGutterHasAShortExpiry() {
        var bench = RouteBench()
        let (a, gutter) = (bench.server("a"), bench.server("g"))
        let short = bench.handle(.modifyExptime(gutter, .atMost(60)))
        bench.root(bench.handle(.failover(FailoverRoute([a, short]))))
        for (exptime, expected) in [(0, " ttl=60"), (3_600, " ttl=60"), (30, ""), (-1, "")] as [(Int64, String)] {
            let request = RouteRequest(.set, exptime: exptime)
            #expect(
                bench.route(.set, "k", ["a": "tko", "g": "stored"], request: request).sent[1] == "set k@g\(expected) +")
        }
        #expect(bench.route(.delete, "k", ["a": "tko", "g": "deleted"]).sent[1] == "delete k@g +")
        #expect(bench.route(.get, "k", ["a": "tko", "g": "found"]).sent[1] == "get k@g +")
    }
}
