// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Routing

/// Handles of two pools, and those that change or limit requests.
struct CacheRouteTests {
    typealias Answer = RouteBench.Answer

    static func warmUp(exptime: UInt32?) -> RouteBench {
        RouteBench.of("cold", "warm") { .warmUp(cold: $0[0], warm: $0[1], exptime: exptime) }
    }

    @Test func warmUpCopiesWhatTheColdPoolMisses() {
        var bench = Self.warmUp(exptime: 600)
        let outcome = bench.route(.get, "k", ["warm": Answer(.found, flags: 3, "v")])
        #expect(outcome.sent == ["get k@cold", "get k@warm", "add k@cold ttl=600 value=#1 flags=3 *"])
        #expect(outcome.answer == "found@warm")
        #expect(bench.route(.get, "k", ["cold": "found"]).sent == ["get k@cold"])
        #expect(bench.route(.get, "k").answer == "notFound@warm")
    }

    @Test func warmUpAsksHowLongTheValueLives() {
        var bench = Self.warmUp(exptime: nil)
        let ways: [(Int64?, String?)] = [(90, "add k@cold ttl=90"), (-1, "add k@cold ttl=0"), (0, nil), (nil, nil)]
        for (left, added) in ways {
            let sent = bench.route(.get, "k", ["get@warm": "found", "metaget@warm": Answer(.found, ttl: left)]).sent
            #expect(sent.prefix(3) == ["get k@cold", "get k@warm", "metaget k@warm *"])
            #expect(sent.dropFirst(3).first.map { $0.split(separator: " ").prefix(3).joined(separator: " ") } == added)
        }
    }

    /// A thing of more than 30 days is said as the time that it ends, or servers would take it for one of 1970.
    @Test func longTimesAreSaidAsTheyEnd() {
        let (now, month) = (Int64(1_700_000_000), Int64(30 * 86_400))
        let clock = RouteClock(nowNanoseconds: 1_000_000_000, unixSeconds: UInt64(now))
        let long = 60 * 86_400 as Int64
        for (seconds, expected) in [(month, month), (month + 1, now + month + 1), (long, now + long)] {
            var warm = Self.warmUp(exptime: nil)
            warm.clock = clock
            let answers = ["get@warm": Answer(.found), "metaget@warm": Answer(.found, ttl: seconds)]
            #expect(warm.route(.get, "k", answers).sent.last?.hasPrefix("add k@cold ttl=\(expected) ") == true)
            var given = Self.warmUp(exptime: UInt32(seconds))
            given.clock = clock
            for operation in [RouteOperation.get, .gets] {
                #expect(given.route(operation, "k", ["warm": "found"]).sent[2].hasPrefix("add k@cold ttl=\(expected) "))
            }
            var levels = TwoLevels(upgradingExptime: UInt32(seconds))
            (levels.missExptime, levels.missPeriod) = (UInt32(seconds), 3)
            var two = RouteBench.of("l1", "l2") { .l1l2(l1: $0[0], l2: $0[1], levels) }
            two.clock = clock
            #expect(two.route(.get, "k", ["l2": "found"]).sent[2].hasPrefix("add k@l1 ttl=\(expected) "))
            #expect(two.route(.get, "k").sent[2].hasPrefix("add k@l1 ttl=\(expected) "))
        }
    }

    @Test func whoeverMissesOnlyTheFirstOfSeveralPoolsGetsWhatTheOthersHave() {
        let (won, other) = (Answer(.notFound, cas: 8, lease: true), Answer(.notFound, cas: 9, lease: true))
        var bench = RouteBench.of("a", "b") { .missFailover($0, returnsBestOnError: false) }
        #expect(bench.route(.leaseGet, "k", ["a": won, "b": "found"]).answer == "found@b")
        // What nobody has is stored to the first, with its lease.
        #expect(bench.route(.leaseGet, "k", ["a": won, "b": other]).answer == "notFound@a")
        var levels = Self.twoLevels(period: 3)
        let found = levels.route(.leaseGet, "k", ["l1": won, "l2": "found"])
        #expect(found.sent == ["lease-get k@l1", "lease-get k@l2", "lease-set k@l1 ttl=60 value=#1 flags=0 cas=8 *"])
        #expect(found.answer == "found@l2")
        let miss = levels.route(.leaseGet, "k", ["l1": won, "l2": other])
        #expect(miss.sent == ["lease-get k@l1", "lease-get k@l2"] && miss.answer == "notFound@l1")
    }

    @Test func warmUpOfGetsStoresBeforeItAsksAgain() {
        for operation in [RouteOperation.gets, .gat, .gats] {
            var bench = Self.warmUp(exptime: 600)
            let request = RouteRequest(operation, exptime: 33)
            let outcome = bench.route(operation, "k", ["warm": "found", "add@cold": "stored"], request: request)
            let ttl = operation == .gets ? 600 : 33
            #expect(
                outcome.sent == [
                    "\(operation.name) k@cold", "get k@warm", "add k@cold ttl=\(ttl) value=#1 flags=0",
                    "\(operation.name) k@cold",
                ])
            #expect(outcome.answer == "notFound@cold")
        }
    }

    @Test func warmUpOfALeaseFillsIt() {
        var bench = Self.warmUp(exptime: 600)
        let lease: [String: Answer] = ["lease-get@cold": Answer(.notFound, cas: 8, lease: true), "warm": "found"]
        let outcome = bench.route(.leaseGet, "k", lease)
        #expect(
            outcome.sent == [
                "lease-get k@cold", "get k@warm", "lease-set k@cold ttl=600 value=#1 flags=0 cas=8 *",
            ])
        #expect(outcome.answer == "found@warm")
        // Somebody else is about to fill it.
        #expect(bench.route(.leaseGet, "k", ["cold": "notFoundHot"]).sent == ["lease-get k@cold"])
        // The warm pool has nothing either: the client gets the lease.
        #expect(bench.route(.leaseGet, "k", ["cold": Answer(.notFound, cas: 8, lease: true)]).answer == "notFound@cold")
    }

    @Test func warmUpWritesToTheColdPoolOnly() {
        var bench = Self.warmUp(exptime: 600)
        for operation in RouteOperation.allCases where operation.group != .get {
            #expect(bench.route(operation, "k", ["cold": "timeout"]).sent == ["\(operation.name) k@cold"])
        }
        #expect(bench.route(.metaGet, "k", ["warm": "found"]).sent == ["metaget k@cold", "metaget k@warm"])
    }

    @Test func slowWarmUpSendsFewReadsToAColdServer() {
        var settings = SlowWarmUp()
        settings.minimumRequests = 10
        var bench = RouteBench.of("a", "b") { .slowWarmUp(target: $0[0], failover: $0[1], settings) }
        for _ in 0..<10 { #expect(bench.route(.get, "k").sent == ["get k@a"]) }
        var there = 0
        for _ in 0..<1_000 where bench.route(.get, "k").sent == ["get k@a"] { there += 1 }
        #expect(70...130 ~= there, "\(there)")
        #expect(bench.route(.set, "k").sent == ["set k@a"])
        // It warms up: from nine of ten hits on it gets all reads.
        for _ in 0..<20_000 { _ = bench.route(.get, "k", ["a": "found", "b": "found"]) }
        for _ in 0..<50 { #expect(bench.route(.get, "k", ["a": "found"]).sent == ["get k@a"]) }
    }

    static func twoLevels(period: Int = 0) -> RouteBench {
        var levels = TwoLevels(upgradingExptime: 60)
        (levels.missExptime, levels.missPeriod) = (5, period)
        return RouteBench.of("l1", "l2") { .l1l2(l1: $0[0], l2: $0[1], levels) }
    }

    @Test func theFirstLevelIsFilledFromTheSecond() {
        var bench = Self.twoLevels()
        let outcome = bench.route(.get, "k", ["l2": Answer(.found, flags: 2)])
        #expect(outcome.sent == ["get k@l1", "get k@l2", "add k@l1 ttl=60 value=#1 flags=2 *"])
        #expect(outcome.answer == "found@l2")
        #expect(bench.route(.get, "k").sent == ["get k@l1", "get k@l2"])
        #expect(bench.route(.get, "k", ["l1": "found"]).sent == ["get k@l1"])
        #expect(bench.route(.set, "k").sent == ["set k@l1"])
        #expect(bench.route(.delete, "k").sent == ["delete k@l1"])
    }

    @Test func missesAreMarkedAndTheMarksLookedAtAgain() {
        var bench = Self.twoLevels(period: 3)
        #expect(
            bench.route(.get, "k").sent == [
                "get k@l1", "get k@l2", "add k@l1 ttl=5 value='ncache' flags=65536 *",
            ])
        let mark: [String: Answer] = [
            "get@l1": Answer(.found, flags: 0x10000, "ncache"), "l2": Answer(.found, flags: 1),
        ]
        for _ in 0..<2 {
            let outcome = bench.route(.get, "k", mark)
            #expect(outcome.sent == ["get k@l1"])
            #expect(outcome.answer == "notFound")
        }
        #expect(
            bench.route(.get, "k", mark).sent == [
                "get k@l1", "get k@l2 *", "set k@l1 ttl=60 value=#1 flags=1 *",
            ])
        for _ in 0..<2 { #expect(bench.route(.get, "k", mark).sent.count == 1) }
        let still: [String: Answer] = ["get@l1": Answer(.found, flags: 0x10000, "ncache")]
        #expect(bench.route(.get, "k", still).sent.last == "set k@l1 ttl=5 value='ncache' flags=65536 *")
    }

    static func sizeSplit(_ change: (inout SizeSplit) -> Void = { _ in }) -> RouteBench {
        var split = SizeSplit(thresholdBytes: 10)
        change(&split)
        return RouteBench.of("l1", "l2") { .l1l2SizeSplit(l1: $0[0], l2: $0[1], split) }
    }

    static let long = "0123456789"

    @Test func longValuesAreInTheSecondLevelOnly() {
        var bench = Self.sizeSplit()
        #expect(bench.route(.set, "k", value: "short").sent == ["set k@l1"])
        #expect(
            bench.route(.set, "k", ["l1": "stored", "l2": "stored"], value: Self.long).sent == [
                "set k@l2", "set k@l1 value='' flags=32",
            ])
        #expect(bench.route(.set, "k", ["l2": "timeout"], value: Self.long).answer == "timeout@l2")
        let read = bench.route(.get, "k", ["l1": Answer(.found, flags: 32), "l2": "found"])
        #expect(read.sent == ["get k@l1", "get k@l2"])
        #expect(read.answer == "found@l2")
        #expect(bench.route(.get, "k", ["l1": "found"]).sent == ["get k@l1"])
        // Everything else knows the first level only.
        #expect(bench.route(.cas, "k", value: Self.long).sent == ["cas k@l1"])
    }

    @Test func whatExpiresSoonStaysInTheFirstLevel() {
        var bench = Self.sizeSplit { $0.ttlThreshold = 100 }
        #expect(bench.route(.set, "k", request: RouteRequest(.set, exptime: 99), value: Self.long).sent == ["set k@l1"])
        #expect(
            bench.route(.set, "k", request: RouteRequest(.set, exptime: 100), value: Self.long).sent == ["set k@l2"])
    }

    @Test func longValuesMayBeInBoth() {
        var bench = Self.sizeSplit { $0.storesBoth = true }
        #expect(bench.route(.set, "k", ["l1": "stored"], value: Self.long).sent == ["set k@l1", "set k@l2 *"])
    }

    @Test func aLeasesLongValueHasANumber() throws {
        var bench = Self.sizeSplit()
        let sent = bench.route(.leaseSet, "k", ["l1": "stored", "l2": "stored"], value: Self.long).sent
        let number = try #require(sent[0].split(separator: "@").first?.split(separator: "|").last)
        #expect(sent == ["set k|==|\(number)@l2", "lease-set k@l1 value='\(number)' flags=32"])
        let broken = bench.route(.leaseSet, "k", ["l1": "stored", "l2": "timeout"], value: Self.long)
        #expect(broken.sent[1] == "lease-set k@l1 ttl=60")
        let mark = Answer(.found, flags: 32, String(number))
        let read = bench.route(.gets, "k", ["l1": Answer(.found, flags: 32, cas: 5, String(number)), "l2": "found"])
        #expect(read.sent == ["gets k@l1", "get k|==|\(number)@l2"])
        #expect(read.answer == "found@l2 cas=5")
        #expect(bench.route(.get, "k", ["l1": mark, "l2": "found"]).sent.last == "get k|==|\(number)@l2")
    }

    @Test func aMarkWhoseValueIsGoneIsTakenAway() {
        var bench = Self.sizeSplit()
        let mark: [String: Answer] = ["l1": Answer(.found, flags: 32, cas: 4, "77"), "cas@l1": "stored"]
        let outcome = bench.route(.gets, "k", mark)
        #expect(
            outcome.sent == [
                "gets k@l1", "get k|==|77@l2", "gets k@l1", "cas k@l1 ttl=-1 value='' flags=0 cas=4", "gets k@l1",
                "get k|==|77@l2",
            ])
        #expect(outcome.reply?.result == .localError)
        // One that was replaced meanwhile stays.
        let plain = bench.route(
            .get, "k", ["get@l1": Answer(.found, flags: 32, "77"), "gets@l1": Answer(.found, "77")])
        #expect(plain.sent == ["get k@l1", "get k|==|77@l2", "gets k@l1 *"])
        #expect(plain.reply?.result == .localError)
    }
}
