// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Storage
import Testing

/// A follower of one source, and what it asked for.
private struct Bed {
    var follower = StreamFollower(InvalidationConfiguration())
    var now: UInt64 = 1_000_000_000
    var actions: [FollowerAction] = []

    static func position(_ sequence: Int64 = 0, epoch: Int64 = 1, source: String = "s") -> StreamPosition {
        StreamPosition(source: source, epoch: epoch, sequences: [Int64](repeating: sequence, count: 64))
    }

    static func record(_ sequence: Int64, slot: Int = 3, epoch: Int64 = 1, first: Int64? = nil) -> OutboxRecord {
        var record = OutboxRecord()
        record.source = "s"
        record.epoch = epoch
        record.slot = Int32(slot)
        record.firstSequence = first ?? sequence
        record.sequence = sequence
        record.version = UInt64(sequence)
        record.key = Array("k".utf8)
        return record
    }

    /// Runs a step and gives what it asked for.
    mutating func step(
        _ body: (inout StreamFollower, UInt64, inout [FollowerAction]) -> Void
    ) -> [FollowerAction] {
        var asked: [FollowerAction] = []
        body(&follower, now, &asked)
        return asked
    }

    mutating func welcome(_ position: StreamPosition) -> [FollowerAction] {
        step { $0.welcomed(position, at: $1, into: &$2) }
    }

    mutating func receive(_ record: OutboxRecord) -> [FollowerAction] {
        step { $0.received(record, at: $1, into: &$2) }
    }
}

struct FollowerTests {
    @Test func whatComesAgainOnRequestIsNoGap() {
        var bed = Bed()
        _ = bed.welcome(Bed.position(4))
        _ = bed.receive(Bed.record(5))
        let asked = bed.step { follower, _, actions in follower.replay(StreamSlots.mask(3), into: &actions) }
        #expect(asked == [.seek(slot: 3, after: 0)])
        // What was on its way is not out of order, and a proof is one.
        #expect(bed.receive(Bed.record(6)) == [.apply(Bed.record(6))])
        var last = Bed.position(4).sequences
        last[3] = 6
        let proved = bed.step { $0.completed(1, epoch: 1, sequences: last, at: $1, into: &$2) }
        #expect(proved == [.proved(bed.now)])
        // Records that are not kept any more were had.
        #expect(bed.step { follower, _, actions in follower.lost(3, through: 2, into: &actions) }.isEmpty)
        for sequence in Int64(3)...7 { #expect(bed.receive(Bed.record(sequence)) == [.apply(Bed.record(sequence))]) }
        #expect(bed.follower.position?.sequences[3] == 7)
        #expect(bed.follower.statistics.gaps == 0 && bed.follower.statistics.duplicates == 0)
        // Behind it, a gap is one again.
        #expect(bed.receive(Bed.record(9)).contains(.seek(slot: 3, after: 7)))
    }

    /// Other slots would be waited for, which do not come again.
    @Test func whatEmptiedCachesGivesUpItsSlotAloneWhenItComesAgain() {
        var bed = Bed()
        _ = bed.welcome(Bed.position(4))
        var flush = Bed.record(5)
        (flush.operation, flush.key) = (.flush, [])
        #expect(bed.receive(flush) == [.apply(flush)])
        _ = bed.step { follower, _, actions in follower.replay(StreamSlots.mask(3), into: &actions) }
        #expect(bed.receive(flush) == [.quarantine(StreamSlots.mask(3))])
        flush.sequence = 6
        flush.firstSequence = 6
        #expect(bed.receive(flush) == [.apply(flush)])
    }

    /// Whoever reads at home says what was told, not what is told again.
    @Test func whatWasReachedStaysSoWhileItComesAgain() {
        var bed = Bed()
        #expect(bed.follower.reached == nil)
        _ = bed.welcome(Bed.position(4))
        _ = bed.receive(Bed.record(5))
        #expect(bed.follower.reached == bed.follower.position)
        _ = bed.step { follower, _, actions in follower.replay(StreamSlots.mask(3), into: &actions) }
        #expect(bed.follower.position?.sequences[3] == 0 && bed.follower.reached?.sequences[3] == 5)
        _ = bed.receive(Bed.record(6))
        #expect(bed.follower.position?.sequences[3] == 0 && bed.follower.reached?.sequences[3] == 6)
        for sequence in Int64(1)...7 { _ = bed.receive(Bed.record(sequence)) }
        #expect(bed.follower.reached == bed.follower.position && bed.follower.position?.sequences[3] == 7)
    }

    /// Whoever reads at home names no place of a slot in which more has acted than that shows.
    @Test func aSlotIsAheadUntilItsPlaceShowsWhatActedBeyondAGap() {
        var bed = Bed()
        _ = bed.welcome(Bed.position(4))
        _ = bed.receive(Bed.record(5))
        #expect(bed.follower.ahead == 0)
        _ = bed.receive(Bed.record(8))
        #expect(bed.follower.ahead == StreamSlots.mask(3) && bed.follower.reached?.sequences[3] == 5)
        // A connection that is lost takes nothing back.
        bed.follower.disconnected()
        var kept = Bed.position(4)
        kept.sequences[3] = 5
        _ = bed.welcome(kept)
        for sequence in Int64(6)...7 { _ = bed.receive(Bed.record(sequence)) }
        #expect(bed.follower.missingSlots == 0 && bed.follower.ahead == StreamSlots.mask(3))
        _ = bed.receive(Bed.record(8))
        #expect(bed.follower.ahead == 0)
        // Nor does a record that is on its way while others come again.
        _ = bed.step { follower, _, actions in follower.replay(StreamSlots.mask(3), into: &actions) }
        _ = bed.receive(Bed.record(9))
        #expect(bed.follower.ahead == 0 && bed.follower.reached?.sequences[3] == 9)
    }

    @Test(arguments: ["late", "lost", "skipped", "epoch"])
    func aSlotThatIsGivenUpIsNotAhead(_ how: String) {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        _ = bed.receive(Bed.record(4))
        #expect(bed.follower.ahead == StreamSlots.mask(3))
        switch how {
        case "late":
            bed.now += 3_000_000_000
            _ = bed.step { $0.tick(at: $1, into: &$2) }
        case "lost": _ = bed.step { follower, _, actions in follower.lost(3, through: 4, into: &actions) }
        case "skipped": _ = bed.step { follower, _, actions in follower.skip(StreamSlots.mask(3), into: &actions) }
        default: _ = bed.welcome(Bed.position(0, epoch: 2))
        }
        #expect(bed.follower.ahead == 0)
    }

    @Test func aSlotThatIsSkippedIsGivenUpAndGoesOn() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        _ = bed.receive(Bed.record(4))
        #expect(bed.follower.missingSlots == 1)
        let asked = bed.step { follower, _, actions in follower.skip(StreamSlots.mask(3), into: &actions) }
        #expect(asked == [.quarantine(StreamSlots.mask(3))])
        #expect(bed.follower.missingSlots == 0 && bed.follower.position?.sequences[3] == 4)
        #expect(bed.receive(Bed.record(5)) == [.apply(Bed.record(5))])
    }

    @Test func repairAsksAgain() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        #expect(bed.receive(Bed.record(4)).contains(.seek(slot: 3, after: 0)))
        let asked = bed.step { $0.repair(at: $1, into: &$2) }
        #expect(asked == [.seek(slot: 3, after: 0), .probe(2, answered: 0)])
    }

    @Test func joiningQuarantinesWhatWasCachedBefore() {
        var bed = Bed()
        let asked = bed.welcome(Bed.position(7))
        #expect(asked.first == .quarantine(.max))
        #expect(asked.contains(.probe(1, answered: 0)))
        #expect(bed.follower.position == Bed.position(7))
        #expect(bed.follower.provenNanoseconds == nil)
    }

    @Test func recordsInOrderAreHandedOn() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        for sequence in Int64(1)...3 {
            let given = bed.receive(Bed.record(sequence))
            #expect(given == [.apply(Bed.record(sequence))])
        }
        let second = bed.receive(Bed.record(2))
        #expect(second.isEmpty)
        #expect(bed.follower.statistics.duplicates == 1)
        #expect(bed.follower.position?.sequences[3] == 3)
    }

    @Test func coalescedRangesCountAsAllTheirNumbers() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        _ = bed.receive(Bed.record(4, first: 1))
        #expect(bed.follower.position?.sequences[3] == 4)
        let given = bed.receive(Bed.record(6, first: 3))
        #expect(given.count == 1)
        #expect(bed.follower.position?.sequences[3] == 6)
        #expect(bed.follower.statistics.gaps == 0)
    }

    @Test func aGapIsAskedForAndRepaired() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        _ = bed.receive(Bed.record(1))
        let given = bed.receive(Bed.record(4))
        #expect(given == [.apply(Bed.record(4)), .seek(slot: 3, after: 1)])
        #expect(bed.follower.missingSlots == 1)
        #expect(bed.follower.backlog == 3)
        for sequence in Int64(2)...4 { _ = bed.receive(Bed.record(sequence)) }
        #expect(bed.follower.missingSlots == 0)
        #expect(bed.follower.statistics.repairs == 1)
        bed.now += 3_000_000_000
        let asked = bed.step { $0.tick(at: $1, into: &$2) }
        #expect(!asked.contains { if case .quarantine = $0 { true } else { false } })
    }

    @Test func aGapWhoseRepairDoesNotComeInOrderIsAskedForAgain() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        var sequences = Bed.position().sequences
        sequences[3] = 4
        #expect(bed.receive(Bed.record(4)).contains(.seek(slot: 3, after: 0)))
        // The answer to a question from before may come before what was asked for.
        bed.now += 100_000_000
        let early = bed.step { $0.completed(1, epoch: 1, sequences: sequences, at: $1, into: &$2) }
        #expect(early.isEmpty)
        bed.now += 900_000_000
        let asked = bed.step { $0.tick(at: $1, into: &$2) }
        #expect(asked == [.probe(2, answered: 0)])
        _ = bed.receive(Bed.record(3, first: 2))
        _ = bed.receive(Bed.record(1))
        let late = bed.step { $0.completed(2, epoch: 1, sequences: sequences, at: $1, into: &$2) }
        #expect(late == [.seek(slot: 3, after: 1)])
        for sequence in Int64(2)...4 { _ = bed.receive(Bed.record(sequence)) }
        #expect(bed.follower.missingSlots == 0)
        #expect((bed.follower.statistics.gaps, bed.follower.statistics.repairs) == (1, 1))
        bed.now += 2_000_000_000
        let given = bed.step { $0.tick(at: $1, into: &$2) }
        #expect(!given.contains(.quarantine(1 << 3)))
    }

    @Test func aGapThatIsNotRepairedInTwoSecondsQuarantinesItsSlot() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        _ = bed.receive(Bed.record(5))
        bed.now += 1_800_000_000
        let given = bed.step { $0.tick(at: $1, into: &$2) }
        #expect(!given.contains(.quarantine(1 << 3)))
        // The last tick within the two seconds.
        bed.now += 100_000_000
        let second = bed.step { $0.tick(at: $1, into: &$2) }
        #expect(second.contains(.quarantine(1 << 3)))
        #expect(bed.follower.position?.sequences[3] == 5)
        let third = bed.receive(Bed.record(6))
        #expect(third == [.apply(Bed.record(6))])
    }

    @Test func aProofCountsFromItsQuestion() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        let sent = bed.now
        bed.now += 40_000_000
        let asked = bed.step { $0.completed(1, epoch: 1, sequences: Bed.position().sequences, at: $1, into: &$2) }
        #expect(asked == [.proved(sent)])
        #expect(bed.follower.provenNanoseconds == sent)
    }

    @Test func aLostTailIsFoundByTheNextProof() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        var sequences = Bed.position().sequences
        sequences[9] = 2
        let asked = bed.step { $0.completed(1, epoch: 1, sequences: sequences, at: $1, into: &$2) }
        #expect(asked == [.seek(slot: 9, after: 0)])
        #expect(bed.follower.provenNanoseconds == nil)
    }

    @Test func answersOfAnEarlierConnectionProveNothing() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        bed.follower.disconnected()
        _ = bed.welcome(Bed.position())
        let asked = bed.step { $0.completed(1, epoch: 1, sequences: Bed.position().sequences, at: $1, into: &$2) }
        #expect(asked.isEmpty)
    }

    @Test func aProbeSaysWhichAnswerHasCome() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        bed.now += 1_000_000_000
        // The first answer is still on its way.
        let early = bed.step { $0.tick(at: $1, into: &$2) }
        #expect(early == [.probe(2, answered: 0)])
        _ = bed.step { $0.completed(1, epoch: 1, sequences: Bed.position().sequences, at: $1, into: &$2) }
        bed.now += 1_000_000_000
        let late = bed.step { $0.tick(at: $1, into: &$2) }
        #expect(late == [.probe(3, answered: 1)])
        // An answer that shows a gap is none that everything came before.
        var sequences = Bed.position().sequences
        sequences[9] = 2
        _ = bed.step { $0.completed(3, epoch: 1, sequences: sequences, at: $1, into: &$2) }
        bed.now += 1_000_000_000
        let gap = bed.step { $0.tick(at: $1, into: &$2) }
        #expect(gap == [.probe(4, answered: 1)])
    }

    @Test func numbersAtTheEndOfTheirRangeDoNoHarm() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        let most = OutboxRecord.sequenceMax
        for slot in 0..<4 { _ = bed.receive(Bed.record(most, slot: slot)) }
        #expect(bed.follower.backlog == .max)
        _ = bed.step { $0.completed(1, epoch: 1, sequences: [Int64](repeating: most, count: 64), at: $1, into: &$2) }
        bed.now += 3_000_000_000
        _ = bed.step { $0.tick(at: $1, into: &$2) }
        _ = bed.receive(Bed.record(most))
        #expect(bed.follower.position?.sequences[3] == most)
        let given = bed.receive(Bed.record(.max))
        #expect(given == [.disconnect("a record has no place in the stream")])
    }

    @Test func resumingKeepsWhatIsCached() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        _ = bed.receive(Bed.record(1))
        bed.follower.disconnected()
        guard let position = bed.follower.position else { return #expect(Bool(false)) }
        let asked = bed.welcome(position)
        #expect(!asked.contains { if case .quarantine = $0 { true } else { false } })
    }

    @Test func aTrimmedOutboxQuarantinesItsSlotsOnly() {
        var bed = Bed()
        _ = bed.welcome(Bed.position())
        bed.follower.disconnected()
        var base = Bed.position()
        base.sequences[5] = 100
        let given = bed.welcome(base)
        #expect(given.first == .quarantine(1 << 5))
        let second = bed.step { follower, _, asked in follower.lost(6, through: 9, into: &asked) }
        #expect(second == [.quarantine(1 << 6)])
    }

    @Test func aNewEpochQuarantinesEverythingAndAnOldOneIsFenced() {
        var bed = Bed()
        _ = bed.welcome(Bed.position(5, epoch: 2))
        let given = bed.receive(Bed.record(6, epoch: 1))
        #expect(given.isEmpty)
        #expect(bed.follower.statistics.fenced == 1)
        bed.follower.disconnected()
        let second = bed.welcome(Bed.position(0, epoch: 3))
        #expect(second.first == .quarantine(.max))
        bed.follower.disconnected()
        guard case .disconnect = bed.welcome(Bed.position(9, epoch: 2)).first else { return #expect(Bool(false)) }
        let third = bed.receive(Bed.record(10, epoch: 2))
        #expect(third.isEmpty)
    }
}

struct TrustTests {
    @Test func nothingIsTrustedBeforeTheStreamIsJoinedAndSwept() throws {
        var trust = StreamTrust(InvalidationConfiguration())
        #expect(!trust.trusts(0, at: 1))
        // A sweep before the stream is joined would be too early; behind it, it need not wait for a proof.
        #expect(trust.sweep == nil)
        trust.quarantine(.max)
        #expect(trust.sweep != nil)
        trust.proved(1_000)
        #expect(!trust.trusts(0, at: 1_001))
        trust.swept(try #require(trust.sweep))
        #expect(trust.trusts(0, at: 1_001))
        #expect(trust.trusts(0, at: 4_999_999_999))
        #expect(!trust.trusts(0, at: 5_000_001_000))
    }

    @Test func aSweepThatBeganBeforeAQuarantineDoesNotEndIt() throws {
        var trust = StreamTrust(InvalidationConfiguration())
        trust.proved(1_000)
        trust.quarantine(.max)
        trust.swept(try #require(trust.sweep))
        trust.quarantine(1 << 7)
        let early = try #require(trust.sweep)
        trust.quarantine(1 << 7 | 1 << 8)
        trust.swept(early)
        #expect(!trust.trusts(7, at: 2_000) && !trust.trusts(8, at: 2_000) && trust.trusts(9, at: 2_000))
        trust.swept(try #require(trust.sweep))
        #expect(trust.trusts(7, at: 2_000) && trust.trusts(8, at: 2_000))
    }

    @Test func recordsActOnWhatIsOlder() {
        #expect(CopyChange.of(recordVersion: 5, hasValue: false, copyVersion: 5) == .keep)
        #expect(CopyChange.of(recordVersion: 5, hasValue: true, copyVersion: 6) == .keep)
        #expect(CopyChange.of(recordVersion: 5, hasValue: false, copyVersion: 4) == .drop)
        #expect(CopyChange.of(recordVersion: 5, hasValue: true, copyVersion: nil) == .install)
        #expect(CopyChange.of(recordVersion: 5, hasValue: true, copyVersion: nil, hasFills: true) == .drop)
        #expect(CopyChange.of(recordVersion: 5, hasValue: true, copyVersion: 4, hasFills: true) == .install)
        #expect(CopyChange.of(recordVersion: 0, hasValue: false, isUnconditional: true, copyVersion: 9) == .drop)
    }
}
