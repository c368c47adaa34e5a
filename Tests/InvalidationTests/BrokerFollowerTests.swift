// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Storage
import Testing

/// A follower of a stream through a broker, at a time that both clocks agree on.
private final class Bed {
    var follower = BrokerFollower(InvalidationConfiguration(), skewNanoseconds: 250_000_000)
    var now: UInt64 = 100_000_000_000
    /// By how much the follower's clock is ahead of the source's, in milliseconds.
    var skewMilliseconds: Int64 = 0

    static func record(
        _ sequence: Int64, slot: Int = 3, epoch: Int64 = 1, source: String = "s", first: Int64? = nil,
        _ operation: OutboxRecord.Operation = .set
    ) -> OutboxRecord {
        var record = OutboxRecord()
        record.operation = operation
        (record.source, record.epoch, record.slot) = (source, epoch, Int32(slot))
        (record.firstSequence, record.sequence) = (first ?? sequence, sequence)
        record.version = UInt64(sequence)
        if operation != .heartbeat { record.key = Array("k".utf8) }
        return record
    }

    func step(_ body: (inout BrokerFollower, inout [FollowerAction]) -> Void) -> [FollowerAction] {
        var asked: [FollowerAction] = []
        body(&follower, &asked)
        return asked
    }

    var time: BrokerTime {
        BrokerTime(
            monotonicNanoseconds: now, unixMilliseconds: 1_700_000_000_000 + Int64(now / 1_000_000) + skewMilliseconds)
    }

    func receive(_ record: OutboxRecord) -> [FollowerAction] {
        let time = time
        return step { $0.received(record, at: time, into: &$1) }
    }

    func join() -> [FollowerAction] {
        step { $0.joined(.max, into: &$1) }
    }

    /// A heartbeat that was taken so long ago.
    func beat(_ sequence: Int64, slot: Int = 3, agoMilliseconds: Int64 = 0) -> [FollowerAction] {
        var record = Self.record(sequence, slot: slot, .heartbeat)
        record.timeMilliseconds = 1_700_000_000_000 + Int64(now / 1_000_000) - agoMilliseconds
        return receive(record)
    }

    func beatAll(_ sequence: Int64 = 0, agoMilliseconds: Int64 = 0) -> [FollowerAction] {
        (0..<StreamSlots.count).flatMap { beat(sequence, slot: $0, agoMilliseconds: agoMilliseconds) }
    }
}

struct BrokerFollowerTests {
    @Test func joiningQuarantinesAndNothingIsProvenBeforeAllSlotsAre() {
        let bed = Bed()
        #expect(bed.join() == [.quarantine(.max)])
        for slot in 0..<63 {
            let asked = bed.beat(0, slot: slot)
            #expect(asked == [.quarantine(StreamSlots.mask(slot))])
        }
        let asked = bed.beat(0, slot: 63, agoMilliseconds: 100)
        // 100 ms old, and clocks may differ by 250 ms.
        #expect(asked == [.quarantine(StreamSlots.mask(63)), .proved(bed.now - 350_000_000)])
        #expect(bed.follower.provenNanoseconds == bed.now - 350_000_000)
    }

    @Test func theOldestSlotCounts() {
        let bed = Bed()
        _ = bed.join()
        _ = bed.beatAll()
        let first = bed.now
        bed.now += 1_000_000_000
        for slot in 0..<63 { #expect(bed.beat(0, slot: slot).isEmpty) }
        #expect(bed.follower.provenNanoseconds == first - 250_000_000)
        let asked = bed.beat(0, slot: 63)
        #expect(asked == [.proved(bed.now - 250_000_000)])
    }

    @Test func theFirstRecordSaysWhereASlotIs() {
        let bed = Bed()
        _ = bed.join()
        // What came before it since the slot was joined may be lost, and copies of then older.
        #expect(bed.receive(Bed.record(17)) == [.quarantine(StreamSlots.mask(3)), .apply(Bed.record(17))])
        #expect(bed.receive(Bed.record(18)) == [.apply(Bed.record(18))])
        #expect(bed.follower.statistics.gaps == 0)
        let again = bed.receive(Bed.record(17))
        #expect(again.isEmpty && bed.follower.statistics.duplicates == 1)
    }

    @Test func aSlotIsInThePlaceOfWhatCameWithoutAGap() {
        let bed = Bed()
        _ = bed.join()
        #expect(bed.follower.place(3) == nil)
        _ = bed.beat(16)
        #expect(bed.follower.place(3) == StreamPlace(source: "s", epoch: 1, sequence: 16))
        for sequence in [17, 18] as [Int64] { _ = bed.receive(Bed.record(sequence)) }
        #expect(bed.follower.place(3) == StreamPlace(source: "s", epoch: 1, sequence: 18))
        // Beyond a gap it acts, and no place shows that.
        _ = bed.receive(Bed.record(20))
        #expect(bed.follower.place(3) == nil)
        _ = bed.receive(Bed.record(19))
        #expect(bed.follower.place(3) == nil)
        _ = bed.receive(Bed.record(20))
        #expect(bed.follower.place(3) == StreamPlace(source: "s", epoch: 1, sequence: 20))
        _ = bed.receive(Bed.record(22))
        bed.now += 3_000_000_000
        let givenUp = bed.step { [now = bed.now] in $0.tick(at: now, into: &$1) }
        #expect(givenUp == [.quarantine(StreamSlots.mask(3))])
        #expect(bed.follower.place(3) == StreamPlace(source: "s", epoch: 1, sequence: 22))
        _ = bed.receive(Bed.record(1, epoch: 2))
        #expect(bed.follower.place(3) == StreamPlace(source: "s", epoch: 2, sequence: 1))
        #expect(bed.follower.place(4) == nil)
        _ = bed.join()
        #expect(bed.follower.place(3) == nil, "nobody knows what was passed over")
    }

    @Test func aGapIsAskedForAndRepaired() {
        let bed = Bed()
        _ = bed.join()
        _ = bed.receive(Bed.record(1))
        let asked = bed.receive(Bed.record(4))
        #expect(asked == [.apply(Bed.record(4)), .seek(slot: 3, after: 1)])
        #expect(bed.follower.missing == StreamSlots.mask(3) && bed.follower.backlog == 3)
        let wanted = bed.follower.wanted
        #expect(wanted?.sequences[3] == 1 && wanted?.sequences[4] == OutboxRecord.sequenceMax)
        let time = bed.time
        for sequence in Int64(2)...4 {
            _ = bed.step { $0.repaired(Bed.record(sequence), at: time, into: &$1) }
        }
        #expect(bed.follower.missing == 0 && bed.follower.wanted == nil)
        #expect(bed.follower.statistics.repairs == 1 && bed.follower.statistics.quarantines == 65)
        // What the broker brings of it afterwards is no news.
        #expect(bed.receive(Bed.record(3)).isEmpty)
    }

    @Test func aGapThatStaysQuarantinesItsSlotOnly() {
        let bed = Bed()
        _ = bed.join()
        _ = bed.receive(Bed.record(1))
        _ = bed.receive(Bed.record(4))
        bed.now += InvalidationConfiguration().repairNanoseconds - 1_000_000
        let now = bed.now
        let early = bed.step { $0.tick(at: now, into: &$1) }
        #expect(early.isEmpty)
        let late = bed.step { $0.tick(at: now + 1_000_000, into: &$1) }
        #expect(late == [.quarantine(StreamSlots.mask(3))])
        #expect(bed.follower.missing == 0 && bed.follower.backlog == 0)
    }

    @Test func aHeartbeatShowsALostTailAndProvesNothingUntilItIsThere() {
        let bed = Bed()
        _ = bed.join()
        _ = bed.beatAll()
        bed.now += 1_000_000_000
        for slot in 0..<StreamSlots.count where slot != 3 { _ = bed.beat(0, slot: slot) }
        let asked = bed.beat(2)
        #expect(asked == [.seek(slot: 3, after: 0)])
        let beaten = bed.now
        bed.now += 500_000_000
        #expect(bed.receive(Bed.record(1)) == [.apply(Bed.record(1))])
        let last = bed.receive(Bed.record(2))
        // It holds from the heartbeat on, not from when the records came.
        #expect(last == [.apply(Bed.record(2)), .proved(beaten - 250_000_000)])
    }

    @Test func aClockThatIsAheadProvesNothingForAWhile() {
        let bed = Bed()
        _ = bed.join()
        bed.skewMilliseconds = -200
        #expect(!bed.beatAll().isEmpty, "within the bound")
        #expect(bed.follower.aheadMilliseconds == 200 && bed.follower.skewed == 0)
        bed.skewMilliseconds = -400
        bed.now += 1_000_000_000
        #expect(bed.beatAll().isEmpty)
        #expect(bed.follower.doubtsClock(at: bed.now) && bed.follower.skewed == 64)
        // One that came so late that it does not look as if it were from the future.
        bed.now += 1_000_000_000
        #expect(bed.beatAll(agoMilliseconds: 900).isEmpty)
        bed.skewMilliseconds = 0
        bed.now += 5_000_000_000
        #expect(!bed.beatAll().isEmpty)
    }

    @Test func aLaterEpochBeginsAnewAndAnEarlierOneIsFenced() {
        let bed = Bed()
        _ = bed.join()
        _ = bed.receive(Bed.record(9))
        let asked = bed.receive(Bed.record(1, epoch: 2))
        #expect(asked == [.quarantine(StreamSlots.mask(3)), .apply(Bed.record(1, epoch: 2))])
        #expect(bed.follower.statistics.epochs == 1)
        #expect(bed.receive(Bed.record(10)).isEmpty)
        #expect(bed.follower.statistics.fenced == 1)
        // Another slot of the same epoch is no other epoch.
        _ = bed.receive(Bed.record(9, slot: 4))
        _ = bed.receive(Bed.record(1, slot: 4, epoch: 2))
        #expect(bed.follower.statistics.epochs == 1)
    }

    @Test func anotherSourceBeginsBySayingSo() {
        let bed = Bed()
        _ = bed.join()
        _ = bed.receive(Bed.record(9))
        #expect(bed.receive(Bed.record(10, source: "t")).isEmpty)
        #expect(bed.follower.statistics.fenced == 1)
        #expect(bed.receive(Bed.record(5, source: "t", .epoch)) == [.quarantine(StreamSlots.mask(3))])
        #expect(bed.receive(Bed.record(6, source: "t")) == [.apply(Bed.record(6, source: "t"))])
        #expect(bed.receive(Bed.record(10)).isEmpty)
    }

    @Test func whatTheSourceLostQuarantinesTheSlot() {
        let bed = Bed()
        _ = bed.join()
        _ = bed.receive(Bed.record(1))
        _ = bed.receive(Bed.record(9))
        let asked = bed.step { $0.lost(3, through: 6, into: &$1) }
        #expect(asked == [.quarantine(StreamSlots.mask(3))] && bed.follower.missing != 0)
        let time = bed.time
        for sequence in Int64(7)...9 { _ = bed.step { $0.repaired(Bed.record(sequence), at: time, into: &$1) } }
        #expect(bed.follower.missing == 0)
        #expect(bed.step { $0.lost(4, through: 6, into: &$1) }.isEmpty, "nothing is missing there")
    }

    @Test func aSourceOfAnotherNumberingCannotRepair() {
        let bed = Bed()
        _ = bed.join()
        _ = bed.receive(Bed.record(1))
        _ = bed.receive(Bed.record(4))
        guard let asked = bed.follower.wanted else {
            Issue.record("nothing is wanted")
            return
        }
        var base = asked
        base.epoch = 2
        #expect(bed.step { $0.repairBegan(base, asked: asked, into: &$1) } == [.quarantine(StreamSlots.mask(3))])
        #expect(bed.follower.missing == 0)
    }

    @Test func hostileNumbersDoNotOverflow() {
        let bed = Bed()
        _ = bed.join()
        _ = bed.receive(Bed.record(1))
        var far = Bed.record(OutboxRecord.sequenceMax, first: 1)
        _ = bed.receive(far)
        far.slot = 5
        _ = bed.receive(far)
        var beat = Bed.record(0, slot: 6, .heartbeat)
        for time in [Int64.min, -1, 0, .max] {
            beat.timeMilliseconds = time
            _ = bed.receive(beat)
        }
        far.slot = 64
        #expect(bed.receive(far).isEmpty)
        #expect(bed.follower.backlog >= 0)
    }

    @Test func askingAgainGivesWhatIsMissingItsTimeAnew() {
        let bed = Bed()
        _ = bed.join()
        _ = bed.receive(Bed.record(1))
        _ = bed.receive(Bed.record(4))
        bed.now += 1_800_000_000
        bed.follower.repair(at: bed.now)
        bed.now += 1_800_000_000
        let early = bed.step { $0.tick(at: bed.now, into: &$1) }
        #expect(early.isEmpty && bed.follower.missing == StreamSlots.mask(3))
        bed.now += 50_000_000
        let late = bed.step { $0.tick(at: bed.now, into: &$1) }
        #expect(late == [.quarantine(StreamSlots.mask(3))])
    }

    @Test func whatIsSkippedIsGivenUpAndGoesOnBehindWhatIsKnown() {
        let bed = Bed()
        _ = bed.join()
        _ = bed.beatAll()
        _ = bed.receive(Bed.record(1))
        _ = bed.receive(Bed.record(4))
        let asked = bed.step { $0.skip(StreamSlots.mask(3), into: &$1) }
        #expect(asked == [.quarantine(StreamSlots.mask(3))])
        #expect(bed.follower.missing == 0 && bed.follower.place(3)?.sequence == 4 && bed.follower.wanted == nil)
        let next = bed.receive(Bed.record(5))
        #expect(next == [.apply(Bed.record(5))] && bed.follower.statistics.gaps == 1)
        // Also before anything came.
        let fresh = Bed()
        let all = fresh.step { $0.skip(StreamSlots.all, into: &$1) }
        #expect(all == [.quarantine(StreamSlots.all)])
    }

    @Test func whatIsReadAgainDropsWhatIsOlderAndMovesNothing() {
        let bed = Bed()
        _ = bed.join()
        for sequence in [16, 17, 18] as [Int64] { _ = bed.receive(Bed.record(sequence)) }
        let before = bed.follower.statistics
        var valued = Bed.record(17)
        (valued.value, valued.clientFlags) = ([1], 7)
        let again = bed.step { $0.replayed(valued, into: &$1) }
        // Its row may have been changed by 18, which came: the value is not to be cached again.
        #expect(again == [.apply(Bed.record(17))])
        #expect(bed.follower.statistics == before && bed.follower.place(3)?.sequence == 18)
        let flush = bed.step { $0.replayed(Bed.record(17, .flush), into: &$1) }
        #expect(flush == [.quarantine(StreamSlots.mask(3))] && bed.follower.place(3)?.sequence == 18)
        for other in [
            Bed.record(19), Bed.record(17, epoch: 2), Bed.record(17, source: "t"), Bed.record(17, slot: 4),
            Bed.record(18, .heartbeat), Bed.record(1, epoch: 2, .epoch), Bed.record(1, source: "t", .epoch),
        ] {
            let asked = bed.step { $0.replayed(other, into: &$1) }
            #expect(asked.isEmpty, "\(other)")
        }
        #expect(bed.follower.place(3) == StreamPlace(source: "s", epoch: 1, sequence: 18))
    }

    @Test func whoAsksHearsHowFarEachSlotIs() {
        let bed = Bed()
        _ = bed.join()
        #expect(bed.follower.reached(3) == nil)
        for sequence in [16, 17, 19] as [Int64] { _ = bed.receive(Bed.record(sequence)) }
        let reached = bed.follower.reached(3)
        #expect(reached?.epoch == 1 && reached?.sequence == 17)
    }
}

/// One that may publish.
private final class Candidate {
    private var election: PublisherElection

    init(_ name: String, isAlone: Bool = false) {
        election = PublisherElection(name: name, isAlone: isAlone, intervalNanoseconds: 1_000_000_000, now: 0)
    }

    func heard(_ other: String, at now: UInt64) { election.heard(other, at: now) }
    func decide(at now: UInt64) -> Bool { election.decide(at: now) }
}

struct PublisherElectionTests {
    private let second: UInt64 = 1_000_000_000

    @Test func aloneItPublishesAtOnce() {
        let alone = Candidate("a", isAlone: true)
        #expect(alone.decide(at: 0))
        alone.heard("0", at: 1)
        #expect(alone.decide(at: 2))
    }

    @Test func whoHearsNobodyBeginsAndOfTwoTheLesserGoesOn() {
        let one = Candidate("one")
        let two = Candidate("two")
        #expect(!one.decide(at: 2 * second) && !two.decide(at: 2 * second))
        #expect(one.decide(at: 4 * second) && two.decide(at: 4 * second))
        one.heard("two", at: 5 * second)
        two.heard("one", at: 5 * second)
        #expect(one.decide(at: 5 * second) && !two.decide(at: 5 * second))
        // Its own name comes back to it.
        one.heard("one", at: 6 * second)
        #expect(one.decide(at: 6 * second))
    }

    @Test func aSilentOneIsFollowedWithinFourHeartbeats() {
        let two = Candidate("two")
        for time in 1...20 {
            two.heard("one", at: UInt64(time) * second)
            #expect(!two.decide(at: UInt64(time) * second + second / 2))
        }
        #expect(!two.decide(at: 22 * second))
        #expect(two.decide(at: 24 * second))
    }
}
