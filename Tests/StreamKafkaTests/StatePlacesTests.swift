// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

@testable import StreamKafka

/// Whose messages are in the topic of states.
struct StatePlacesTests {
    private func begun(_ end: Int64 = 10) -> StatePlaces {
        var places = StatePlaces()
        places.begin(ends: [Int64](repeating: end, count: StreamSlots.count))
        return places
    }

    @Test func ourOwnMessagesAreNobodyElses() {
        var places = begun()
        for offset in Int64(10)..<20 {
            places.handed(3)
            places.reported(3, offset: offset)
        }
        places.ended(3, at: 20)
        for slot in 4..<StreamSlots.count { places.ended(slot, at: 10) }
        #expect(places.takeOthers().isEmpty)
    }

    @Test func whatIsBetweenOursAndBehindThemIsAnothers() {
        var places = begun()
        for offset in [10, 13, 14] as [Int64] {
            places.handed(3)
            places.reported(3, offset: offset)
        }
        places.ended(4, at: 12)
        #expect(places.takeOthers() == [3: 11..<13, 4: 10..<12])
        #expect(places.takeOthers().isEmpty, "each is told of once")
        places.ended(3, at: 16)
        places.ended(3, at: 19)
        #expect(places.takeOthers() == [3: 15..<19])
    }

    @Test func anEndSaysNothingWhileMessagesOfOursAreUnderWay() {
        var places = begun()
        places.handed(3)
        places.ended(3, at: 11)
        #expect(places.takeOthers().isEmpty)
        places.reported(3, offset: 10)
        places.ended(3, at: 11)
        #expect(places.takeOthers().isEmpty)
        places.handed(3)
        places.forgetWaiting()
        places.ended(3, at: 12)
        #expect(places.takeOthers() == [3: 11..<12], "nobody knows whose that is")
    }

    @Test func whatIsNotReportedOrIsNowhereMovesNothing() {
        var places = begun()
        places.handed(3)
        places.reported(3, offset: nil)
        places.handed(3)
        places.reported(3, offset: -1001)
        places.handed(3)
        places.reported(3, offset: 4)
        places.ended(3, at: 10)
        #expect(places.takeOthers().isEmpty)
        // Brokers lost the end of it.
        places.ended(3, at: 8)
        places.ended(3, at: 9)
        #expect(places.takeOthers() == [3: 8..<9])
        var unknown = StatePlaces()
        unknown.ended(3, at: 5)
        unknown.reported(3, offset: 9)
        #expect(unknown.takeOthers().isEmpty)
    }
}
