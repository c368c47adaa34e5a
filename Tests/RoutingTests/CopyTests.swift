// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Routing

/// Which servers have copies of a key, and reads from them.
struct CopyTests {
    typealias Answer = RouteBench.Answer

    static func bench(_ servers: Int, hash: HashChoice = HashChoice()) -> RouteBench {
        var bench = RouteBench()
        var pool = RoutePool("p", servers: (0..<servers).map { PoolServer(Server(host: "s\($0)", port: 1)) })
        pool.hash = hash
        bench.root(bench.handle(.pool(bench.index(pool))))
        return bench
    }

    static let hashes: [HashChoice] = [
        HashChoice(), HashChoice(.ketama(.libmemcached, .oneAtATime)), HashChoice(.jump), HashChoice(.ch3),
        HashChoice(.rendezvous), HashChoice(.modulo(.crc32Positive)), HashChoice(.constShard),
    ]

    @Test(arguments: hashes)
    func copiesAreOnDifferentServersTheOwnersFirst(_ hash: HashChoice) {
        let plan = Self.bench(10, hash: hash).plan()
        for number in 0..<500 {
            let key = bytes("key-\(number)")
            let found = plan.copies(3, ofKey: key, pool: 0)
            #expect(Set(found).count == 3)
            #expect(plan.target(of: key.span, for: .get).destination == Int32(found[0]))
            #expect(plan.copies(2, ofKey: key, pool: 0) == Array(found.prefix(2)))
            #expect(plan.copy(2, ofKey: key, pool: 0) == found[2])
        }
    }

    @Test func aSmallPoolHasFewerCopies() {
        #expect(Self.bench(2).plan().copies(5, ofKey: bytes("k"), pool: 0).sorted() == [0, 1])
        #expect(Self.bench(1).plan().copies(5, ofKey: bytes("k"), pool: 0) == [0])
        #expect(Self.bench(0).plan().copies(5, ofKey: bytes("k"), pool: 0).isEmpty)
        #expect(Self.bench(2).plan().copy(2, ofKey: bytes("k"), pool: 0) == nil)
    }

    @Test func copiesAreSpreadEvenly() {
        let plan = Self.bench(10).plan()
        var counts = [Int](repeating: 0, count: 10)
        for number in 0..<10_000 {
            for place in plan.copies(3, ofKey: bytes("key-\(number)"), pool: 0).dropFirst() { counts[place] += 1 }
        }
        #expect(counts.allSatisfy { 1_600...2_400 ~= $0 }, "\(counts)")
    }

    @Test func aServerThatComesMovesFewCopies() {
        let (before, after) = (Self.bench(10).plan(), Self.bench(11).plan())
        var moved = 0
        for number in 0..<2_000 {
            let key = bytes("key-\(number)")
            if before.copies(2, ofKey: key, pool: 0) != after.copies(2, ofKey: key, pool: 0) { moved += 1 }
        }
        // Either place moves with one of eleven.
        #expect(moved < 2_000 * 3 / 11, "\(moved)")
    }

    @Test func keysOfOneTagHaveTheirCopiesTogether() {
        let tag = HashedPart.tag(open: UInt8(ascii: "{"), close: UInt8(ascii: "}"))
        let plan = Self.bench(10, hash: HashChoice(part: tag)).plan()
        let found = plan.copies(3, ofKey: bytes("{user}:1"), pool: 0)
        #expect(plan.copies(3, ofKey: bytes("x{user}:2"), pool: 0) == found)
        #expect(Set(found).count == 3)
    }

    private static func read(_ answers: [String: Answer], copy: Int = 1) -> RouteBench.Outcome {
        var bench = Self.bench(10)
        let found = bench.plan().copies(3, ofKey: bytes("k"), pool: 0)
        let named = Dictionary(
            uniqueKeysWithValues: answers.map { name, answer in
                (name == "owner" ? "s\(found[0])" : "s\(found[copy])", answer)
            })
        var request = RouteRequest(.get)
        (request.copy, request.copyTTL) = (copy, 7)
        var outcome = bench.route(.get, "k", named, request: request)
        for (name, host) in [("owner", "s\(found[0])"), ("copy", "s\(found[copy])")] {
            outcome.sent = outcome.sent.map { $0.replacing("@\(host)", with: "@\(name)") }
            outcome.answer = outcome.answer.replacing("@\(host)", with: "@\(name)")
        }
        return outcome
    }

    @Test(arguments: [1, 2]) func whatACopyHasIsTheAnswer(_ copy: Int) {
        let outcome = Self.read(["copy": "found", "owner": "found"], copy: copy)
        #expect(outcome.answer == "found@copy")
        #expect(outcome.sent == ["get k@copy"])
    }

    @Test func aMissingCopyIsMadeOfWhatTheOwnerHas() {
        let outcome = Self.read(["copy": "notFound", "owner": Answer(.found, flags: 9, "v")])
        #expect(outcome.answer == "found@owner")
        #expect(outcome.sent == ["get k@copy", "get k@owner", "add k@copy ttl=7 value=#1 flags=9 ~ *"])
    }

    @Test func whatTheOwnerHasNotIsNotCopied() {
        let outcome = Self.read(["copy": "notFound", "owner": "notFound"])
        #expect(outcome.answer == "notFound@owner" && outcome.sent == ["get k@copy", "get k@owner"])
    }

    @Test(arguments: [RouteResult.tko, .timeout, .busy, .remoteError])
    func aServerThatFailsAtACopyGetsNone(_ result: RouteResult) {
        let outcome = Self.read(["copy": Answer(result), "owner": "found"])
        #expect(outcome.answer == "found@owner" && outcome.sent == ["get k@copy", "get k@owner"])
    }
}

/// Pools in which a server fetches its share of the keys.
struct WarmingServerTests {
    static func plan(warming: Set<Int>, of count: Int = 4) -> RoutePlan {
        var bench = RouteBench()
        let pool = RoutePool(
            "p",
            servers: (0..<count).map {
                PoolServer(Server(host: "s\($0)", port: 1), isWarming: warming.contains($0))
            })
        bench.root(bench.handle(.pool(bench.index(pool))))
        return bench.plan()
    }

    private static func asked(_ plan: RoutePlan, _ operation: RouteOperation, _ key: String) -> [String] {
        let clock = RouteClock(nowNanoseconds: 0, unixSeconds: 0)
        return plan.explain(operation, key: bytes(key), clock: clock).destinations
    }

    @Test func readsGoWhereTheyWentBefore() {
        let (before, during) = (Self.plan(warming: [], of: 3), Self.plan(warming: [3]))
        for number in 0..<500 {
            let key = "key-\(number)"
            #expect(Self.asked(during, .get, key) == Self.asked(before, .get, key))
            #expect(during.target(of: bytes(key).span, for: .get).kind == .destination)
            #expect(Self.asked(during, .gat, key).count == 1)
        }
    }

    @Test(arguments: [RouteOperation.set, .add, .cas, .append, .delete, .increment, .touch])
    func whatIsWrittenIsDeletedWhereItIsGoingToBe(_ operation: RouteOperation) {
        let (before, during, after) =
            (Self.plan(warming: [], of: 3), Self.plan(warming: [3]), Self.plan(warming: []))
        var moving = 0
        for number in 0..<500 {
            let key = "key-\(number)"
            let (old, new) = (Self.asked(before, operation, key), Self.asked(after, operation, key))
            #expect(Set(Self.asked(during, operation, key)) == Set(old + new))
            #expect(Self.asked(during, operation, key).last == old[0], "whose answer counts")
            if old != new { moving += 1 }
        }
        #expect(80...170 ~= moving, "\(moving)")
    }

    @Test func theDeleteIsOneWhateverTheWriteIs() {
        var bench = RouteBench()
        let servers = [false, true].enumerated().map { index, isWarming in
            PoolServer(Server(host: "s\(index)", port: 1), isWarming: isWarming)
        }
        bench.root(bench.handle(.pool(bench.index(RoutePool("p", servers: servers)))))
        var sent: Set<String> = []
        for number in 0..<50 { sent.formUnion(bench.route(.set, "k\(number)", ["s0": "stored"]).sent.map { $0 }) }
        #expect(sent.contains { $0.hasPrefix("delete k") && $0.hasSuffix("@s1 *") })
        #expect(sent.allSatisfy { $0.hasPrefix("set k") && $0.hasSuffix("@s0") || $0.hasSuffix("@s1 *") })
    }

    @Test func whereAllAreWarmingUpAllServe() {
        let (plan, ordinary) = (Self.plan(warming: [0, 1, 2, 3]), Self.plan(warming: []))
        for number in 0..<50 {
            #expect(Self.asked(plan, .get, "\(number)") == Self.asked(ordinary, .get, "\(number)"))
            #expect(Self.asked(plan, .set, "\(number)").count == 1)
        }
    }
}
