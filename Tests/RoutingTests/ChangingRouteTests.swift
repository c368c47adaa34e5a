// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Routing

/// Handles that change requests, copy them, cut them up, or let them wait.
struct ChangingRouteTests {
    typealias Answer = RouteBench.Answer

    @Test(arguments: [
        ("/a/b/a", "/a/b/", "foo", "/a/b/fooa"), ("foo", "/a/b/", "foo", "/a/b/foo"),
        ("/b/c/o", "/a/b/", "foo", "/a/b/fooo"), ("/b/c/foox", nil, "foo", "/b/c/foox"), ("/b/c/x", "", "foo", "foox"),
        ("x", nil, "foo", "foox"),
    ])
    func keysGetAPrefix(_ key: String, _ routing: String?, _ prefix: String, _ expected: String) {
        var change = KeyChange()
        (change.routingPrefix, change.prefix) = (routing, prefix)
        #expect(change.applied(to: bytes(key)) ?? bytes(key) == bytes(expected))
    }

    @Test func keysAreChangedInOtherWays() {
        var replace = KeyChange()
        (replace.replacing, replace.prefix) = ("old:", "new:")
        #expect(replace.applied(to: bytes("old:x")) == bytes("new:x"))
        #expect(replace.applied(to: bytes("y")) == bytes("new:y"))
        #expect(replace.applied(to: bytes("new:y")) == nil)
        var inPlace = KeyChange()
        (inPlace.prefix, inPlace.isInPlace) = ("ab", true)
        #expect(inPlace.applied(to: bytes("xyz")) == bytes("abz"))
        #expect(inPlace.applied(to: bytes("x")) == bytes("abx"))
        var suffix = KeyChange()
        suffix.suffix = "!"
        #expect(suffix.applied(to: bytes("/a/b/k")) == bytes("/a/b/k!"))
    }

    @Test func aChangedKeyIsHashedAndMustBeShortEnough() {
        var bench = RouteBench()
        var change = KeyChange()
        change.prefix = "p:"
        let servers = ["a", "b", "c"].map { bench.server($0) }
        let hash = bench.handle(.hash(servers, names: [], weights: [], HashChoice(.ch3)))
        bench.root(bench.handle(.modifyKey(hash, change)))
        var plain = RouteBench.of("a", "b", "c") { .hash($0, names: [], weights: [], HashChoice(.ch3)) }
        for number in 0..<30 {
            #expect(bench.route(.get, "k\(number)").sent == plain.route(.get, "p:k\(number)").sent)
        }
        let long = String(repeating: "x", count: 249)
        #expect(bench.route(.get, long).reply?.source == .made("the modified key is longer than 250 bytes"))
    }

    @Test func expiriesAreChangedWhereThereAreSome() {
        var bench = RouteBench.of("a") { .modifyExptime($0[0], .set(9)) }
        for operation in RouteOperation.allCases {
            let changes = operation.hasExptime ? " ttl=9" : ""
            #expect(bench.route(operation, "k", ["a": "ok"]).sent == ["\(operation.name) k@a\(changes)"])
        }
    }

    @Test func expiriesAreComparedByTheTimeThatIsLeft() {
        let (now, month) = (Int64(1_700_000_000), Int64(30 * 86_400))
        for (limit, own, expected) in [
            (100, now + 5, ""), (100, now + 100, ""), (100, now + 101, " ttl=100"), (100, now - 5, ""),
            (100, 0, " ttl=100"), (100, month, " ttl=100"), (100, -1, ""), (2 * month, 0, " ttl=\(now + 2 * month)"),
            (2 * month, month, ""), (2 * month, now + 3 * month, " ttl=\(now + 2 * month)"),
        ] as [(Int64, Int64, String)] {
            var bench = RouteBench.of("a") { .modifyExptime($0[0], .atMost(limit)) }
            bench.clock = RouteClock(nowNanoseconds: 1_000_000_000, unixSeconds: UInt64(now))
            let request = RouteRequest(.set, exptime: own)
            #expect(bench.route(.set, "k", ["a": "stored"], request: request).sent == ["set k@a\(expected)"])
        }
    }

    @Test(arguments: [(60 * 86_400, 1_705_184_000), (1_900_000_000, 1_900_000_000), (9, 9), (0, 0), (-1, -1)])
    func anExpiryBeyondAMonthIsATime(_ given: Int64, _ expected: Int64) {
        var bench = RouteBench.of("a") { .modifyExptime($0[0], .set(given)) }
        bench.clock = RouteClock(nowNanoseconds: 1_000_000_000, unixSeconds: 1_700_000_000)
        let request = RouteRequest(.set, exptime: 77)
        #expect(bench.route(.set, "k", ["a": "stored"], request: request).sent == ["set k@a ttl=\(expected)"])
    }

    @Test(
        arguments: [
            (.get, 999, ["a"]), (.get, 1_000, ["a"]), (.get, 1_099, ["a"]), (.get, 1_200, ["b"]),
            (.delete, 999, ["a"]), (.delete, 1_000, ["a", "b"]), (.delete, 1_199, ["a", "b"]), (.delete, 1_200, ["b"]),
        ] as [(RouteOperation, UInt64, [String])])
    func migrationMovesKeysOneByOne(_ operation: RouteOperation, _ now: UInt64, _ expected: [String]) {
        var bench = RouteBench.of("a", "b") {
            .migrate(from: $0[0], to: $0[1], startSeconds: 1_000, intervalSeconds: 100)
        }
        bench.clock = RouteClock(nowNanoseconds: 0, unixSeconds: now)
        #expect(bench.route(operation, "k").sent == expected.map { "\(operation.name) k@\($0)" })
    }

    @Test func migrationHasATimeForEachKey() {
        var bench = RouteBench.of("a", "b") {
            .migrate(from: $0[0], to: $0[1], startSeconds: 1_000, intervalSeconds: 100)
        }
        var moved: [Int] = []
        for second in stride(from: 1_100, to: 1_201, by: 20) as StrideTo<UInt64> {
            bench.clock = RouteClock(nowNanoseconds: 0, unixSeconds: second)
            moved.append((0..<500).filter { bench.route(.get, "k\($0)").sent[0].hasSuffix("@b") }.count)
        }
        #expect(moved == moved.sorted())
        #expect(moved[0] < 20 && moved[5] == 500 && (150...350 ~= moved[2] || 150...350 ~= moved[3]), "\(moved)")
    }

    @Test func aMigratedDeleteGivesTheWorseReply() {
        var bench = RouteBench.of("a", "b") {
            .migrate(from: $0[0], to: $0[1], startSeconds: 1_000, intervalSeconds: 100)
        }
        #expect(bench.route(.delete, "k", ["a": "deleted", "b": "timeout"]).answer == "timeout@b")
        #expect(bench.route(.delete, "k", ["a": "notFound", "b": "deleted"]).answer == "notFound@a")
    }

    @Test func aLeaseOfTheOldPoolIsGivenBack() {
        var bench = RouteBench.of("a", "b") {
            .migrate(from: $0[0], to: $0[1], startSeconds: 900, intervalSeconds: 50)
        }
        bench.clock = RouteClock(nowNanoseconds: 0, unixSeconds: 999)
        // The key moved less than ten seconds ago, or did it? Look for one that did.
        let recent = (0..<500).map { "k\($0)" }.first { bench.route(.leaseSet, $0, ["b": "notStored"]).sent.count == 2 }
        #expect(recent != nil)
        guard let recent else { return }
        let sent = bench.route(.leaseSet, recent, ["b": "notStored"]).sent
        #expect(sent == ["lease-set \(recent)@b", "lease-set \(recent)@a ttl=-1 value='' *"])
        #expect(bench.route(.leaseSet, recent, ["b": "stored"]).sent.count == 1)
    }

    static func shadow(_ change: (inout ShadowTarget) -> Void) -> RouteBench {
        var bench = RouteBench()
        let (a, b) = (bench.server("a"), bench.server("b"))
        var target = ShadowTarget(b)
        change(&target)
        bench.root(bench.handle(.shadow(a, [target])))
        return bench
    }

    @Test func aPartOfTheKeysIsShadowed() {
        var bench = Self.shadow { $0.keys = 0...0.25 }
        let shadowed = (0..<1_000).filter { bench.route(.get, "k\($0)").sent.count == 2 }.count
        #expect(200...300 ~= shadowed, "\(shadowed)")
        var all = Self.shadow { $0.keys = 0...1 }
        let outcome = all.route(.set, "k", ["a": "stored", "b": "timeout"])
        #expect(outcome.sent == ["set k@b ~ *", "set k@a"])
        #expect(outcome.answer == "stored@a")
        var none = Self.shadow { _ in }
        #expect(none.route(.get, "k").sent == ["get k@a"])
    }

    @Test func aPartOfTheRequestsIsShadowed() {
        var bench = Self.shadow { ($0.keys, $0.requests) = (0...1, 0.3) }
        let shadowed = (0..<2_000).filter { _ in bench.route(.get, "k").sent.count == 2 }.count
        #expect(520...680 ~= shadowed, "\(shadowed)")
    }

    @Test func someKeysAreShadowed() {
        var bench = Self.shadow { $0.keyList = ["x", "y"] }
        #expect(bench.route(.get, "x").sent.count == 2)
        #expect(bench.route(.get, "y|#|more").sent.count == 2)
        #expect(bench.route(.get, "z").sent.count == 1)
    }

    @Test func aShadowHasALeaseOfItsOwn() {
        var bench = Self.shadow { $0.keys = 0...1 }
        let lease: [String: Answer] = [
            "a": Answer(.notFound, cas: 10, lease: true), "b": Answer(.notFound, cas: 20, lease: true),
        ]
        #expect(bench.route(.leaseGet, "k", lease).sent == ["lease-get k@a", "lease-get k@b ~ *"])
        let set = RouteRequest(.leaseSet, casToken: 10)
        #expect(bench.route(.leaseSet, "k", request: set).sent == ["lease-set k@b cas=20 ~ *", "lease-set k@a"])
    }

    static func keySplit(host: UInt64, allSync: Bool = false, firstHit: Bool = false) -> RouteBench {
        var bench = RouteBench()
        bench.defaults.hostID = host
        let a = bench.server("a")
        bench.root(bench.handle(.keySplit(a, replicas: 3, allSync: allSync, firstHit: firstHit)))
        return bench
    }

    @Test func aKeyIsSplitByTheRoutersNumber() {
        var bench = Self.keySplit(host: 4)
        #expect(bench.route(.get, "k").sent == ["get k::1@a"])
        #expect(bench.route(.get, "k|#|x").sent == ["get k::1|#|x@a"])
        #expect(bench.route(.set, "k").sent == ["set k::1@a"])
        #expect(bench.route(.increment, "k").sent == ["incr k::1@a"])
        let deletes = bench.route(.delete, "k", ["k@a": "timeout", "k::1@a": "deleted"])
        #expect(deletes.sent == ["delete k@a *", "delete k::2@a *", "delete k::1@a"])
        #expect(deletes.answer == "deleted@a")
        var first = Self.keySplit(host: 3)
        #expect(first.route(.get, "k").sent == ["get k@a"])
        let long = String(repeating: "k", count: 246)
        #expect(bench.route(.get, long).sent == ["get \(long)@a"])
    }

    @Test func allCopiesMayBeWrittenAndTheFirstHitRead() {
        var all = Self.keySplit(host: 0, allSync: true)
        #expect(all.route(.set, "k").sent == ["set k::1@a *", "set k::2@a *", "set k@a"])
        var first = Self.keySplit(host: 0, firstHit: true)
        let hit = first.route(.get, "k", ["k::1@a": "found"])
        #expect(hit.sent == ["get k@a", "get k::1@a", "get k::2@a"])
        #expect(hit.reply?.source == .token(1))
        #expect(first.route(.get, "k").reply?.source == .token(2))
    }

    // MARK: Shards

    static func shardSplit(host: UInt64, _ change: (inout ShardSplits.Size) -> Void = { _ in }) -> RouteBench {
        var bench = RouteBench()
        bench.defaults.hostID = host
        let a = bench.server("a")
        var splits = ShardSplits()
        splits.shards = ["1": ShardSplits.Size(3), "x9": ShardSplits.Size(677)]
        if var size = splits.shards["1"] {
            change(&size)
            splits.shards["1"] = size
        }
        bench.root(bench.handle(.shardSplit(a, splits)))
        return bench
    }

    /// The keys of mcrouter's own test of it.
    @Test func aShardIsSplitByTheRoutersNumber() {
        let parts: [(UInt64, String)] = [(0, "a:1:blah"), (1, "a:1aa:blah"), (2, "a:1ba:blah"), (3, "a:1:blah")]
        for (host, key) in parts {
            var bench = Self.shardSplit(host: host)
            #expect(bench.route(.get, "a:1:blah").sent == ["get \(key)@a"])
            #expect(bench.route(.set, "a:1:blah").sent == ["set \(key)@a"])
            #expect(bench.route(.increment, "a:1:blah").sent == ["incr \(key)@a"])
        }
        var bench = Self.shardSplit(host: 2)
        // Others are whole: no such shard, none that ends in a digit, none at all, one behind the hash stop.
        for key in ["a:5:bar", "a:125:c", "a:1", "a:1aa:blah", "a::b", "a", "x|#|a:1:b"] {
            #expect(bench.route(.get, key).sent == ["get \(key)@a"], "\(key)")
        }
        #expect(bench.route(.get, "a:1:b|#|c:1:d").sent == ["get a:1ba:b|#|c:1:d@a"])
        // 28 is b in its first letter, b in its second.
        var far = Self.shardSplit(host: 28)
        #expect(far.route(.get, "a:x9:b").sent == ["get a:x9bb:b@a"])
        var last = Self.shardSplit(host: 676)
        #expect(last.route(.get, "a:x9:b").sent == ["get a:x9zz:b@a"])
        let long = "a:1:" + String(repeating: "k", count: 245)
        #expect(bench.route(.get, long).sent == ["get \(long)@a"])
    }

    @Test func deletesGoToAllPartsOfAShard() {
        var bench = Self.shardSplit(host: 1)
        let deletes = bench.route(.delete, "a:1:foo", ["a:1:foo@a": "deleted"])
        #expect(deletes.sent == ["delete a:1aa:foo@a *", "delete a:1ba:foo@a *", "delete a:1:foo@a"])
        #expect(deletes.answer == "deleted@a")
        var own = Self.shardSplit(host: 1) { $0.deletesAll = false }
        #expect(own.route(.delete, "a:1:foo").sent == ["delete a:1aa:foo@a"])
    }

    @Test func aShardIsSplitAnewRouterByRouter() {
        func count(_ host: UInt64, at now: UInt64) -> Int {
            var size = ShardSplits.Size(5)
            (size.old, size.startSeconds, size.periodSeconds) = (2, 1000, 100)
            return size.count(hostID: host, unixSeconds: now)
        }
        #expect((count(0, at: 999), count(0, at: 1000), count(0, at: 1001)) == (2, 2, 5))
        #expect((count(8192, at: 1050), count(8191, at: 1050), count(8192 + 16384, at: 1051)) == (2, 5, 5))
        #expect((count(16383, at: 1099), count(16383, at: 1100), count(16383, at: 1101)) == (2, 5, 5))
    }

    @Test func ratesAreLimited() {
        var limits = RateLimits()
        limits.gets = RateLimits.Rate(perSecond: 10, burst: 5)
        var bench = RouteBench.of("a", "b") { .rateLimit($0[0], limits, fallback: $0[1]) }
        // The bucket is empty at first.
        #expect(bench.route(.get).sent == ["get k@b"])
        bench.clock = RouteClock(nowNanoseconds: bench.clock.nowNanoseconds + 10_000_000_000, unixSeconds: 1_010)
        let passed = (0..<20).filter { _ in bench.route(.get).sent == ["get k@a"] }.count
        #expect(passed == 5)
        bench.clock = RouteClock(nowNanoseconds: bench.clock.nowNanoseconds + 200_000_000, unixSeconds: 1_010)
        #expect((0..<20).filter { _ in bench.route(.get).sent == ["get k@a"] }.count == 2)
        #expect(bench.route(.set).sent == ["set k@a"])
    }

    @Test func withoutAFallbackALimitAnswersAtOnce() {
        var limits = RateLimits()
        limits.sets = RateLimits.Rate(perSecond: 1)
        var bench = RouteBench.of("a") { .rateLimit($0[0], limits, fallback: nil) }
        #expect(bench.route(.set).answer == "notStored")
    }

    @Test func latencyIsAdded() {
        var latency = Latency()
        (latency.beforeMilliseconds, latency.afterMilliseconds, latency.totalMilliseconds) = (10, 20, 100)
        var bench = RouteBench.of("a") { .latency($0[0], latency) }
        let start = bench.clock.nowNanoseconds
        let outcome = bench.route(.get, "k", ["a": "found"])
        #expect(outcome.waits == [start + 10_000_000, start + 100_000_000])
        #expect(outcome.answer == "found@a")
    }

    @Test func latencyIsAddedByChance() {
        var latency = Latency()
        latency.totalPercentiles = [(50, 0), (90, 10), (100, 50)]
        var bench = RouteBench.of("a") { .latency($0[0], latency) }
        var counts: [UInt64: Int] = [:]
        for _ in 0..<2_000 {
            let start = bench.clock.nowNanoseconds
            counts[bench.route(.get).waits.first.map { ($0 - start) / 1_000_000 } ?? 0, default: 0] += 1
        }
        #expect(
            900...1_100 ~= counts[0] ?? 0 && 700...900 ~= counts[10] ?? 0 && 130...270 ~= counts[50] ?? 0, "\(counts)")
    }
}
