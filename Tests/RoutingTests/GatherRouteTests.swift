// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Routing

/// Handles that ask several at once, and those that choose one.
struct GatherRouteTests {
    typealias Answer = RouteBench.Answer

    @Test(arguments: [
        (["found", "found", "found"], "found@a"), (["found", "notFound", "found"], "notFound@b"),
        (["timeout", "notFound", "found"], "timeout@a"), (["timeout", "remoteError", "busy"], "remoteError@b"),
        (["notFound", "found", "notFound"], "notFound@a"),
        (["localError", "clientError", "remoteError"], "clientError@b"),
    ])
    func allSyncGivesTheWorstAndOfEqualsTheFirst(_ answers: [String], _ expected: String) {
        var bench = RouteBench.of("a", "b", "c") { .allSync($0) }
        let outcome = bench.route(.get, "k", replies(answers))
        #expect(outcome.answer == expected)
        #expect(outcome.sent == ["get k@a", "get k@b", "get k@c"])
    }

    @Test func allSyncOfEqualsGivesTheOneThatCameFirst() {
        var bench = RouteBench.of("a", "b", "c") { .allSync($0) }
        #expect(
            bench.route(.get, "k", replies(["notFound", "found", "notFound"]), order: ["c"]).answer == "notFound@c")
    }

    /// mcrouter takes it for worse than any error.
    @Test func allSyncTakesTouchedForGood() {
        var bench = RouteBench.of("a", "b") { .allSync($0) }
        #expect(bench.route(.touch, "k", replies(["touched", "timeout"])).answer == "timeout@b")
    }

    func replies(_ names: [String]) -> [String: Answer] {
        Dictionary(uniqueKeysWithValues: zip(["a", "b", "c", "d", "e"], names.map { Answer(stringLiteral: $0) }))
    }

    @Test(arguments: [
        (["found", "found"], [], "found@a"), (["timeout", "found"], [], "found@b"),
        (["timeout", "tko"], [], "tko@b"), (["notFound", "found"], [], "notFound@a"),
        (["found", "found"], ["b"], "found@b"), (["badKey", "found"], [], "badKey@a"),
    ])
    func allFastestGivesTheFirstWithoutError(_ answers: [String], _ order: [String], _ expected: String) {
        var bench = RouteBench.of("a", "b") { .allFastest($0) }
        #expect(bench.route(.get, "k", replies(answers), order: order).answer == expected)
    }

    @Test(arguments: [
        (["found", "found", "notFound"], "found@b"), (["notFound", "found", "found"], "found@c"),
        (["found", "notFound", "timeout"], "timeout@c"), (["notFound", "found", "timeout"], "timeout@c"),
        (["timeout", "found", "notFound"], "timeout@a"), (["found", "timeout", "timeout"], "timeout@c"),
    ])
    func allMajorityGivesWhatMostSayAndOfEqualsTheWorst(_ answers: [String], _ expected: String) {
        var bench = RouteBench.of("a", "b", "c") { .allMajority($0) }
        #expect(bench.route(.get, "k", replies(answers)).answer == expected)
    }

    @Test func allMajorityDoesNotWaitForTheRest() {
        var bench = RouteBench.of("a", "b", "c", "d", "e") { .allMajority($0) }
        let outcome = bench.route(
            .delete, "k", replies(["timeout", "deleted", "deleted", "deleted", "timeout"]), order: ["d", "c", "b"])
        #expect(outcome.answer == "deleted@b")
    }

    @Test func allInitialGivesTheFirstChildsReply() {
        var bench = RouteBench.of("a", "b", "c") { .allInitial($0) }
        let outcome = bench.route(.set, "k", replies(["stored", "timeout", "stored"]), order: ["c", "b"])
        #expect(outcome.answer == "stored@a")
        #expect(outcome.sent == ["set k@b *", "set k@c *", "set k@a"])
    }

    @Test func allAsyncAnswersAtOnce() {
        var bench = RouteBench.of("a", "b") { .allAsync($0) }
        let outcome = bench.route(.set, "k", replies(["stored", "stored"]))
        #expect(outcome.answer == "notStored")
        #expect(outcome.sent == ["set k@a *", "set k@b *"])
        #expect(bench.route(.get).answer == "notFound")
    }

    @Test func randomAsksEachAsOften() {
        var bench = RouteBench.of("a", "b", "c") { .random($0) }
        var counts: [String: Int] = [:]
        for _ in 0..<3_000 { counts[bench.route(.get).answer, default: 0] += 1 }
        #expect(counts.count == 3)
        #expect(counts.values.allSatisfy { 900...1_100 ~= $0 }, "\(counts)")
    }

    @Test func operationsChooseTheirChild() {
        var bench = RouteBench()
        let (a, b, c) = (bench.server("a"), bench.server("b"), bench.server("c"))
        bench.root(bench.handle(.operations([.get: a, .delete: b], otherwise: c)))
        #expect(bench.route(.get).sent == ["get k@a"])
        #expect(bench.route(.delete).sent == ["delete k@b"])
        #expect(bench.route(.set).sent == ["set k@c"])
        #expect(bench.plan().target(of: bytes("k").span, for: .delete).destination == 1)
    }

    @Test func anOperationWithoutRouteIsAnError() {
        var bench = RouteBench()
        let a = bench.server("a")
        bench.root(bench.handle(.operations([.get: a], otherwise: nil)))
        #expect(bench.route(.set).reply?.source == .made("no route for set"))
    }

    @Test func aHashAsksOneAndAlwaysTheSame() {
        var bench = RouteBench.of("a", "b", "c") { .hash($0, names: [], weights: [], HashChoice(.ch3)) }
        let plan = bench.plan()
        var hosts: Set<String> = []
        for number in 0..<100 {
            let key = "key\(number)"
            let target = plan.target(of: bytes(key).span, for: .get)
            let host = plan.destinations[Int(target.destination)].host
            hosts.insert(host)
            #expect(bench.route(.get, key).sent == ["get \(key)@\(host)"])
        }
        #expect(hosts == ["a", "b", "c"])
    }

    @Test func constShardTakesTheNumberInTheKey() {
        var bench = RouteBench.of("a", "b", "c") { .hash($0, names: [], weights: [], HashChoice(.constShard)) }
        #expect(bench.route(.get, "x:1:y").sent == ["get x:1:y@b"])
        #expect(bench.route(.get, "x:2:y").sent == ["get x:2:y@c"])
        let plan = bench.plan()
        // Out of range, or no number: as Ch3.
        let ch3 = RouteBench.of("a", "b", "c") { .hash($0, names: [], weights: [], HashChoice(.ch3)) }.plan()
        for key in ["x:3:y", "x:1z:y", "x:y", "x::y"] {
            #expect(plan.target(of: bytes(key).span, for: .get) == ch3.target(of: bytes(key).span, for: .get))
        }
    }

    @Test func nowhereAnswersAtOnce() {
        var bench = RouteBench()
        bench.root(bench.handle(.null))
        #expect(bench.plan().target(of: bytes("k").span, for: .get).kind == .null)
        #expect(bench.route(.get).answer == "notFound")
        #expect(bench.route(.add).answer == "notStored")
        #expect(bench.route(.increment).answer == "notFound")
    }

    @Test func anErrorSaysItsText() {
        var bench = RouteBench()
        bench.root(bench.handle(.error("closed", .busy)))
        let reply = bench.route(.get).reply
        #expect(reply?.result == .busy)
        #expect(reply?.source == .made("closed"))
    }

    @Test func missFailoverAsksUntilSomebodyHasIt() {
        var bench = RouteBench.of("a", "b", "c") { .missFailover($0, returnsBestOnError: false) }
        let hit = bench.route(.get, "k", replies(["notFound", "found", "found"]))
        #expect(hit.sent == ["get k@a", "get k@b +"])
        #expect(hit.answer == "found@b")
        #expect(bench.route(.get, "k", replies(["timeout", "notFound", "tko"])).answer == "tko@c")
        #expect(bench.route(.delete, "k", replies(["notFound", "deleted"])).answer == "deleted@b")
        #expect(bench.route(.set, "k", replies(["timeout"])).sent == ["set k@a"])
    }

    @Test func missFailoverMayGiveTheBestReply() {
        var bench = RouteBench.of("a", "b", "c") { .missFailover($0, returnsBestOnError: true) }
        #expect(bench.route(.get, "k", replies(["timeout", "notFound", "tko"])).answer == "notFound@b")
        #expect(bench.route(.get, "k", replies(["timeout", "tko", "busy"])).answer == "busy@c")
    }
}
