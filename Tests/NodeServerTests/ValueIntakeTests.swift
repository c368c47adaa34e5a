// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing

@testable import NodeServer

/// Values on their way into the store: a bound in bytes, and who gives way at it.
struct ValueIntakeTests {
    @Test func thereIsABoundAndRoomComesBack() throws {
        let intake = ValueIntake(limitBytes: 1000)
        var held = [try #require(intake.take(600, at: 5)), try #require(intake.take(400, at: 5))]
        #expect(held[0].block.count == 600 && intake.bytes == 1000)
        #expect(!intake.isFull(at: 5))
        #expect(intake.take(1, at: 2_000_000_000) == nil)
        #expect(intake.bytes == 1000 && intake.refused == 1)
        #expect(intake.isFull(at: 2_999_999_999) && !intake.isFull(at: 3_000_000_000))
        held.removeFirst()
        #expect(intake.bytes == 400)
        #expect(intake.take(601, at: 9) == nil)
        #expect(intake.take(600, at: 9) != nil)
        held.removeAll()
        #expect(intake.bytes == 0)
    }

    @Test func whoStandsStillIsNamedAndWhoGoesOnIsNot() {
        var uploads = Uploads<Int>(limitNanoseconds: 2_000)
        let pace = Uploads<Int>.paceBytes
        for id in 1...3 { uploads.begin(id, at: 0) }
        var filled = [1: 10, 2: pace - 1, 3: pace]
        var keptWaiting: Set<Int> = []
        func look(_ id: Int) -> (bytes: Int, isKeptWaiting: Bool)? {
            filled[id].map { (bytes: $0, isKeptWaiting: keptWaiting.contains(id)) }
        }
        #expect(uploads.standing(at: 1_999) { look($0) }.isEmpty)
        #expect(Set(uploads.standing(at: 2_000) { look($0) }) == [1, 2])
        // The third had its pace at 1,999.
        #expect(Set(uploads.standing(at: 3_998) { look($0) }) == [1, 2])
        #expect(Set(uploads.standing(at: 3_999) { look($0) }) == [1, 2, 3])
        filled[3] = 2 * pace
        filled[1] = nil
        #expect(uploads.standing(at: 4_000) { look($0) } == [2])
        // The next one of a connection has its own time.
        uploads.begin(2, at: 4_000)
        filled[2] = 0
        #expect(uploads.standing(at: 5_999) { look($0) }.isEmpty)
        #expect(Set(uploads.standing(at: 6_000) { look($0) }) == [2, 3])
        // Whose input is not taken by us begins anew when it is.
        keptWaiting = [3]
        #expect(uploads.standing(at: 8_000) { look($0) } == [2])
        keptWaiting = []
        #expect(uploads.standing(at: 8_500) { look($0) } == [2])
        filled = [:]
        #expect(uploads.standing(at: 9_000) { look($0) }.isEmpty && uploads.isEmpty)
    }
}
