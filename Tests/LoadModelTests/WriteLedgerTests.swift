// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import LoadModel

struct WriteLedgerTests {
    private var ledger = WriteLedger(limit: 10)

    private mutating func acknowledge(_ key: UInt64, _ entry: (version: UInt32, supersedes: SupersededVersions)) {
        ledger.acknowledge(key, version: entry.version, supersedes: entry.supersedes)
    }

    private func seen(_ key: UInt64, upTo last: UInt32) -> [UInt32] {
        (1...last).filter { ledger.superseded(key).contains($0) }
    }

    @Test mutating func writesUnderWayAtOnceDoNotMakeEachOtherStale() {
        let first = ledger.send(1)
        let second = ledger.send(1)
        #expect((first.version, second.version) == (1, 2))
        acknowledge(1, first)
        acknowledge(1, second)
        #expect(seen(1, upTo: 2) == [])
        let third = ledger.send(1)
        #expect(seen(1, upTo: 3) == [])
        acknowledge(1, third)
        #expect(seen(1, upTo: 3) == [1, 2])
        #expect(!ledger.superseded(5).contains(1))
    }

    /// An older write that is still under way when a later one is sent may land after it.
    @Test mutating func whatIsStillUnderWayMayLandLater() {
        let slow = ledger.send(1)
        let second = ledger.send(1)
        acknowledge(1, second)
        let third = ledger.send(1)
        acknowledge(1, third)
        #expect(seen(1, upTo: 3) == [2])
        acknowledge(1, slow)
        #expect(seen(1, upTo: 3) == [2])
        acknowledge(1, ledger.send(1))
        #expect(seen(1, upTo: 4) == [1, 2, 3])
    }

    @Test mutating func whatDidNotTakeEffectSupersedesNothing() {
        acknowledge(1, ledger.send(1))
        let refused = ledger.send(1)
        ledger.settle(1, version: refused.version)
        #expect(seen(1, upTo: 2) == [])
        acknowledge(1, ledger.send(1))
        #expect(seen(1, upTo: 3) == [1, 2])
    }

    @Test mutating func anUnknownOutcomeStaysPossible() {
        _ = ledger.send(1)
        for _ in 0..<63 { acknowledge(1, ledger.send(1)) }
        #expect(seen(1, upTo: 64) == Array(2...63))
        // One more, and the first is too old to be remembered: nothing is told of the key any more.
        #expect(ledger.send(1).version == 0)
        #expect(seen(1, upTo: 64) == [])
        #expect(ledger.send(2).version == 1)
    }

    @Test mutating func nothingIsToldBehindTheLastVersion() {
        ledger = WriteLedger(limit: 10, versionLimit: 3)
        for version in 1...3 as ClosedRange<UInt32> {
            let entry = ledger.send(1)
            #expect(entry.version == version)
            acknowledge(1, entry)
        }
        #expect(ledger.send(1).version == 0)
        #expect(seen(1, upTo: 3) == [])
    }

    @Test mutating func keysOverTheLimitAreNotRemembered() {
        for key in 0..<10 as Range<UInt64> { #expect(ledger.send(key).version == 1) }
        #expect(ledger.send(10).version == 0)
        acknowledge(10, (0, SupersededVersions(upTo: 3)))
        #expect(seen(10, upTo: 3) == [])
    }

    /// Unions against sets, with versions up to three windows apart.
    @Test func unionsAreThoseOfSets() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            let pair = (0..<2).map { _ in
                SupersededVersions(
                    upTo: UInt32.random(in: 0...200, using: &random),
                    open: UInt64.random(in: 0...UInt64.max, using: &random)
                        & UInt64.random(in: 0...UInt64.max, using: &random))
            }
            var union = pair[0]
            union.formUnion(pair[1])
            for version in 0...201 as ClosedRange<UInt32> {
                #expect(union.contains(version) == pair.contains { $0.contains(version) }, "\(version) in \(pair)")
            }
        }
    }
}
