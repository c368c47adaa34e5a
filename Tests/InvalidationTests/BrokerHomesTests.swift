// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Storage
import Testing

/// A stream through a broker whose home becomes another region.
struct BrokerHomesTests {
    private static let old = HomeTerm(epoch: 0, region: "us-east")
    private static let new = HomeTerm(epoch: HomeTerm.next(after: 0, identity: 7), region: "eu-west")
    private static let time = BrokerTime(monotonicNanoseconds: 100_000_000_000, unixMilliseconds: 1_700_000_000_000)

    private var follower: BrokerFollower = {
        var follower = BrokerFollower(
            InvalidationConfiguration(), skewNanoseconds: 250_000_000, home: .term(BrokerHomesTests.old))
        var actions: [FollowerAction] = []
        follower.joined(.max, into: &actions)
        return follower
    }()

    private func record(_ sequence: Int64, epoch: Int64 = 1, slot: Int = 3) -> OutboxRecord {
        var record = OutboxRecord()
        (record.source, record.epoch, record.slot) = ("s", epoch, Int32(slot))
        (record.firstSequence, record.sequence, record.version) = (sequence, sequence, UInt64(sequence))
        record.key = Array("k".utf8)
        return record
    }

    private func beat(
        _ sequence: Int64, of term: HomeTerm = BrokerHomesTests.old, epoch: Int64 = 1, slot: Int = 3,
        behind succession: StreamSuccession? = nil
    ) -> OutboxRecord {
        var record = record(sequence, epoch: epoch, slot: slot)
        (record.operation, record.key, record.region) = (.heartbeat, [], term.region)
        record.timeMilliseconds = Self.time.unixMilliseconds
        record.position = HeartbeatHome(term, succession, slot: slot).position
        return record
    }

    private func succession(_ included: Int64, isWhole: Bool = true) -> StreamSuccession {
        StreamSuccession(
            previous: 1, included: [Int64](repeating: included, count: StreamSlots.count), isWhole: isWhole)
    }

    private mutating func receive(_ record: OutboxRecord) -> [FollowerAction] {
        var actions: [FollowerAction] = []
        follower.received(record, at: Self.time, into: &actions)
        return actions
    }

    @Test func whatAHeartbeatSaysOfItsHomeIsRead() throws {
        for succession in [nil, succession(9), succession(0, isWhole: false)] {
            let said = HeartbeatHome(Self.new, succession, slot: 3)
            #expect(HeartbeatHome(beat(9, of: Self.new, behind: succession)) == said)
        }
        for text in ["", "x", "-1", "1.2", "1.2.3", "1.2.3.4", "1.-2.3.1", "1.2.-3.1", "1.2.3.1.5", "1..3.1"] {
            var record = beat(9)
            record.position = text
            #expect(HeartbeatHome(record) == nil, "\(text)")
        }
    }

    @Test mutating func whatComesBeforeTheFirstHeartbeatIsPassedOver() {
        #expect(receive(record(4)).isEmpty)
        // What came was not acted upon: copies that were cached since may be older.
        #expect(receive(beat(4)) == [.quarantine(StreamSlots.mask(3))])
        #expect(receive(record(5)) == [.apply(record(5))])
        #expect(follower.statistics.fenced == 1)
    }

    @Test mutating func theNumberingGoesOnBehindAPromotionThatLostNothing() {
        _ = receive(beat(4))
        _ = receive(record(5))
        follower.turn(to: .term(Self.new))
        // Neither the home before nor records without a heartbeat of the new one count.
        #expect(receive(record(6)).isEmpty)
        #expect(receive(beat(6)).isEmpty)
        #expect(receive(record(6, epoch: 2)).isEmpty)
        // That one shows what was passed over: it is asked of the new home.
        #expect(receive(beat(6, of: Self.new, epoch: 2, behind: succession(5))) == [.seek(slot: 3, after: 5)])
        #expect(follower.wanted?.epoch == 2 && follower.wanted?.sequences[3] == 5)
        #expect(follower.place(3) == StreamPlace(source: "s", epoch: 2, sequence: 5))
        var actions: [FollowerAction] = []
        follower.repaired(record(6, epoch: 2), at: Self.time, into: &actions)
        #expect(actions == [.apply(record(6, epoch: 2))] && follower.missing == 0)
        #expect(receive(record(7, epoch: 2)) == [.apply(record(7, epoch: 2))])
        #expect(follower.statistics.epochs == 1)
    }

    @Test mutating func aHomeToWhichTheNodeHasNotTurnedIsNotHeard() {
        _ = receive(beat(4))
        #expect(receive(beat(4, of: Self.new, epoch: 2, behind: succession(4))).isEmpty)
        #expect(receive(record(5, epoch: 2)).isEmpty)
        #expect(receive(record(5)) == [.apply(record(5))])
        follower.turn(to: .none)
        #expect(receive(record(6)).isEmpty && receive(beat(6)).isEmpty)
        // It comes to nothing: what was passed over shows.
        follower.turn(to: .term(Self.old))
        #expect(receive(beat(6)) == [.seek(slot: 3, after: 5)])
    }

    @Test mutating func aSlotThatHadWhatIsLostIsGivenUp() {
        for slot in [3, 4] { _ = receive(beat(4, slot: slot)) }
        _ = receive(record(5))
        follower.turn(to: .term(Self.new))
        let succession = succession(4, isWhole: false)
        // And, once, whatever was cached since the last proof.
        let asked = receive(beat(4, of: Self.new, epoch: 2, behind: succession))
        #expect(asked == [.quarantine(StreamSlots.mask(3)), .doubt(since: nil)])
        #expect(receive(beat(4, of: Self.new, epoch: 2, slot: 4, behind: succession)).isEmpty)
        #expect(receive(record(5, epoch: 2)) == [.apply(record(5, epoch: 2))])
    }

    /// What acted beyond a gap before the promotion shows in the slot's place, or is given up.
    @Test mutating func theSlotsPlaceIsOneOfTheNewNumbering() {
        for slot in [3, 4] {
            _ = receive(beat(4, slot: slot))
            _ = receive(record(slot == 3 ? 9 : 6, slot: slot))
            #expect(follower.place(slot) == nil, "one acted beyond a gap")
        }
        follower.turn(to: .term(Self.new))
        for slot in [3, 4] { _ = receive(beat(7, of: Self.new, epoch: 2, slot: slot, behind: succession(7))) }
        for slot in [3, 4] {
            for sequence in Int64(5)...7 {
                #expect(follower.place(slot) == nil || slot == 4 && sequence == 7, "\(slot) before \(sequence)")
                _ = receive(record(sequence, epoch: 2, slot: slot))
            }
            #expect(follower.place(slot) == StreamPlace(source: "s", epoch: 2, sequence: 7))
        }
    }

    @Test mutating func aPromotionThatWasMissedGivesTheSlotUp() {
        _ = receive(beat(4))
        follower.turn(to: .term(Self.new))
        let later = StreamSuccession(
            previous: 2, included: [Int64](repeating: 9, count: StreamSlots.count), isWhole: true)
        #expect(receive(beat(9, of: Self.new, epoch: 3, behind: later)) == [.quarantine(StreamSlots.mask(3))])
        #expect(receive(beat(9, of: Self.new, epoch: 2, behind: succession(4))).isEmpty, "its epoch is over")
    }
}
