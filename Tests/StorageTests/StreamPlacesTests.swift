// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Storage
import Testing

@Suite struct StreamPlacesTests {
    /// A key of slot `slot`.
    private func key(_ slot: Int) -> [UInt8] {
        for number in 0... {
            let key = Array("key-\(number)".utf8)
            if StreamSlots.slot(keyHash: stableHash(key.span)) == slot { return key }
        }
        return []
    }

    private func position(_ sequence: Int64, source: String = "s", epoch: Int64 = 1) -> StreamPosition {
        StreamPosition(
            source: source, epoch: epoch,
            sequences: (0..<StreamSlots.count).map { sequence + Int64($0) })
    }

    private func hasDone(
        _ places: StreamPlaces, _ sequence: Int64, _ source: String = "s", _ epoch: Int64 = 1
    ) -> Bool {
        places.hasDone(StreamPlace(source: source, epoch: epoch, sequence: sequence), of: key(3).span)
    }

    @Test func aPlaceCoversWhatIsBeforeItInItsNumbering() {
        let places = StreamPlaces()
        #expect(!hasDone(places, 0), "nothing is known")
        places.did(position(10))
        #expect(hasDone(places, 0) && hasDone(places, 13) && !hasDone(places, 14))
        #expect(!hasDone(places, 5, "t") && !hasDone(places, 5, "s", 2))
        places.did(position(20, epoch: 2))
        #expect(!hasDone(places, 5) && hasDone(places, 23, "s", 2))
    }

    @Test func whatIsToldIsNotDone() throws {
        let places = StreamPlaces()
        #expect(places.told(of: key(3).span) == nil)
        places.tell(position(10))
        #expect(places.told(of: key(3).span) == StreamPlace(source: "s", epoch: 1, sequence: 13))
        #expect(!hasDone(places, 13))
        places.tell(StreamPlace(source: "t", epoch: 4, sequence: 1), slot: 3)
        #expect(places.told(of: key(3).span) == StreamPlace(source: "t", epoch: 4, sequence: 1))
        #expect(places.told(of: key(4).span) == StreamPlace(source: "s", epoch: 1, sequence: 14))
        places.tell(position(20), ahead: StreamSlots.mask(4) | StreamSlots.mask(63))
        #expect(places.told(of: key(3).span)?.sequence == 23 && places.told(of: key(4).span) == nil)
        #expect(places.told(of: key(63).span) == nil)
        places.tell(nil, slot: 3)
        #expect(places.told(of: key(3).span) == nil)
    }

    @Test func aSlotThatWaitsForWhatEmptiedOthersSaysNothing() {
        let places = StreamPlaces()
        places.tell(position(10))
        places.hold(StreamSlots.all & ~StreamSlots.mask(5))
        #expect(places.told(of: key(3).span) == nil && places.told(of: key(5).span)?.sequence == 15)
        places.hold(0)
        #expect(places.told(of: key(3).span)?.sequence == 13)
    }
}
