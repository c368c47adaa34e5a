// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Storage
import Testing

struct StreamOrdersTests {
    @Test func ordersOfAKindArePutTogetherAndWhatIsGivenUpComesFirst() {
        var orders = StreamOrders()
        #expect(orders.isEmpty)
        let asked: [StreamOrder] = [.repair, .replay(1), .skip(2), .replay(4), .skip(8), .repair]
        for order in asked { orders.add(order) }
        let taken = orders.take(all: true)
        #expect(taken == [.skip(10), .replay(5), .repair] && orders.isEmpty)
        #expect(orders.take(all: true).isEmpty)
    }

    @Test func whatNeedsAnAnswerWaits() {
        var orders = StreamOrders()
        for order in [.repair, .replay(1), .skip(2)] as [StreamOrder] { orders.add(order) }
        #expect(orders.take(all: false) == [.skip(2)])
        #expect(orders.take(all: false).isEmpty && !orders.isEmpty)
        #expect(orders.take(all: true) == [.replay(1), .repair])
    }

    @Test func copiesAreGivenUpBeforeTheFirstConnectionToo() {
        var follower = StreamFollower(InvalidationConfiguration())
        var actions: [FollowerAction] = []
        follower.skip(StreamSlots.mask(3), into: &actions)
        #expect(actions == [.quarantine(StreamSlots.mask(3))] && follower.position == nil)
    }

    @Test func oneLineTellsOfManyDamagedRecords() {
        var notice = DamageNotice()
        var fault = RecordFault(object: [])
        #expect(notice.reason(at: 0).isEmpty)
        #expect(notice.note(fault, at: 5) == 1)
        fault.slot = 9
        let second = notice.note(fault, at: 6)
        let third = notice.note(fault, at: 4 + DamageNotice.lineNanoseconds)
        #expect(second == nil && third == nil)
        #expect(notice.note(fault, at: 5 + DamageNotice.lineNanoseconds) == 3)
        let end = 5 + DamageNotice.lineNanoseconds + DamageNotice.reasonNanoseconds
        #expect(notice.reason(at: end - 1) == "a record of slot 9 cannot be read: it is no Avro single object")
        #expect(notice.reason(at: end).isEmpty)
    }
}
