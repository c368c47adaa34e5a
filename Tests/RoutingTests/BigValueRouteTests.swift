// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing

@testable import Routing

/// Long values in pieces.
struct BigValueRouteTests {
    typealias Answer = RouteBench.Answer

    static func bench(batch: Int = 0, hides: Bool = false) -> RouteBench {
        var bench = RouteBench()
        let a = bench.server("a")
        guard let values = BigValues(thresholdBytes: 4, batchSize: batch, hidesFlag: hides) else { return bench }
        bench.root(bench.handle(.bigValue(a, values)))
        return bench
    }

    static let value = "0123456789"
    static var suffix: UInt32 { UInt32(truncatingIfNeeded: stableHash(bytes(value).span)) }

    @Test func aShortValueStaysWhole() {
        var bench = Self.bench()
        #expect(bench.route(.set, "k", value: "0123").sent == ["set k@a"])
        #expect(bench.route(.delete, "k").sent == ["delete k@a"])
        #expect(bench.route(.metaGet, "k").sent == ["metaget k@a"])
        #expect(bench.route(.get, "k", ["a": Answer(.found, "x")]).answer == "found@a")
    }

    @Test func aLongValueIsStoredInPiecesAndThenItsList() {
        var bench = Self.bench()
        let request = RouteRequest(.set, exptime: 30, flags: 1)
        let outcome = bench.route(.set, "k", ["a": "stored"], request: request, value: Self.value)
        #expect(
            outcome.sent == [
                "set k:0:\(Self.suffix)@a value=0..4", "set k:1:\(Self.suffix)@a value=4..8",
                "set k:2:\(Self.suffix)@a value=8..10", "set k@a value='1-3-\(Self.suffix)' flags=32769",
            ])
        #expect(outcome.reply?.source == .token(3))
    }

    @Test func withoutAPieceThereIsNoList() {
        var bench = Self.bench()
        let outcome = bench.route(.set, "k", ["a": "stored", "k:1:\(Self.suffix)@a": "timeout"], value: Self.value)
        #expect(outcome.sent.count == 3)
        #expect(outcome.answer == "timeout")
    }

    static func pieces(flags: UInt32 = 0x8001) -> [String: Answer] {
        [
            "k@a": Answer(.found, flags: flags, cas: 9, "1-3-77"), "k:0:77@a": "found", "k:1:77@a": "found",
            "k:2:77@a": "found",
        ]
    }

    @Test func aLongValueIsReadPieceByPiece() {
        var bench = Self.bench()
        let outcome = bench.route(.get, "k", Self.pieces())
        #expect(outcome.sent == ["get k@a", "get k:0:77@a", "get k:1:77@a", "get k:2:77@a"])
        #expect(outcome.answer == "found@#1,#2,#3 flags=32769 cas=9")
        var hiding = Self.bench(hides: true)
        #expect(hiding.route(.gets, "k", Self.pieces()).answer == "found@#1,#2,#3 flags=1 cas=9")
    }

    @Test func piecesAreAskedForInBatches() {
        var bench = Self.bench(batch: 2)
        let outcome = bench.route(.get, "k", Self.pieces(), order: [])
        #expect(outcome.sent.count == 4)
        #expect(outcome.answer.hasPrefix("found@#1,#2,#3"))
    }

    @Test func aMissingPieceIsAMiss() {
        var bench = Self.bench()
        var answers = Self.pieces()
        answers["k:1:77@a"] = "notFound"
        #expect(bench.route(.get, "k", answers).answer == "notFound")
        answers["k:1:77@a"] = "timeout"
        #expect(bench.route(.get, "k", answers).answer == "timeout")
    }

    @Test(arguments: ["", "1-0-5", "2-3-77", "1-3", "1-3-x", "1-99999-7", "1--1-7", "x-3-77"])
    func aDamagedListIsAMiss(_ list: String) {
        var bench = Self.bench()
        let outcome = bench.route(.get, "k", ["k@a": Answer(.found, flags: 0x8000, list)])
        #expect(outcome.sent == ["get k@a"])
        #expect(outcome.answer == "notFound")
    }

    /// Somebody takes the list away, so that somebody gets the lease.
    @Test func aLeaseOfAValueWithAMissingPieceIsFreed() {
        var bench = Self.bench()
        var answers = Self.pieces()
        answers["k:1:77@a"] = "notFound"
        answers["cas@a"] = "stored"
        let outcome = bench.route(.leaseGet, "k", answers)
        let round = ["lease-get k@a", "gets k@a", "get k:0:77@a", "get k:1:77@a", "get k:2:77@a"]
        let removal = ["cas k@a ttl=-1 value='' flags=0 cas=9"]
        #expect(outcome.sent == round + removal + round + removal)
        #expect(outcome.reply?.result == .remoteError)
    }

    @Test func aLeaseOfAWholeValueIsAHit() {
        var bench = Self.bench()
        #expect(bench.route(.leaseGet, "k", Self.pieces()).answer == "found@#2,#3,#4 flags=32769 cas=9")
        let miss = Answer(.notFound, cas: 5, lease: true)
        #expect(bench.route(.leaseGet, "k", ["a": miss]).reply?.hasLease == true)
    }

    @Test func allRoutesMayCutValues() {
        var bench = RouteBench.of("a") { .allSync($0) }
        bench.defaults.bigValues = BigValues(thresholdBytes: 4, batchSize: 0)
        #expect(bench.route(.set, "k", ["a": "stored"], value: Self.value).sent.count == 4)
        #expect(bench.plan().target(of: bytes("k").span, for: .get).kind == .composite)
        #expect(bench.plan().target(of: bytes("k").span, for: .delete).kind == .destination)
    }

    @Test func aKeyWithoutRoomForNumbersIsAnError() {
        var bench = Self.bench()
        let key = String(repeating: "k", count: 245)
        #expect(bench.route(.set, key, value: Self.value).reply?.result == .localError)
    }

    /// Pieces that are answered at once do not nest.
    @Test func manyPiecesOfNothingAreCut() throws {
        var bench = RouteBench()
        let nothing = bench.handle(.null)
        let values = try #require(BigValues(thresholdBytes: 1, batchSize: 1))
        bench.root(bench.handle(.bigValue(nothing, values)))
        #expect(bench.route(.set, "k", value: String(repeating: "x", count: 4_096)).answer == "notStored")
        let tooMany = bench.route(.set, "k", value: String(repeating: "x", count: 4_097))
        #expect(tooMany.reply?.source == .made("a value of more than 4096 pieces"))
    }
}
