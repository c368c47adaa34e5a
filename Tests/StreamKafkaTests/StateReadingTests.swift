// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

@testable import StreamKafka

/// What is put behind others' messages in the topic of states.
struct StateReadingTests {
    private let own = StreamPosition(
        source: "ours", epoch: 5, sequences: [Int64](repeating: 0, count: StreamSlots.count))

    private func place(_ sequence: Int64, epoch: Int64 = 5, source: String = "ours") -> KafkaPlace {
        KafkaPlace(source: source, epoch: epoch, sequence: sequence)
    }

    @Test func numbersAreComparedWithinTheirEpochs() {
        var reading = StateReading(ranges: [3: 0..<10], wantsLateOnly: true)
        #expect(reading.met(3, offset: 0, place: place(90, epoch: 4), own: own) == .passed)
        #expect(reading.met(3, offset: 1, place: place(1), own: own) == .passed, "a later epoch begins anew")
        #expect(reading.met(3, offset: 2, place: place(91, epoch: 4), own: own) == .wanted)
        #expect(reading.met(3, offset: 3, place: place(2), own: own) == .passed)
        #expect(reading.met(3, offset: 4, place: place(99, source: "theirs"), own: own) == .strange)
        #expect(reading.met(3, offset: 5, place: nil, own: own) == .wanted)
        #expect(reading.met(3, offset: 6, place: place(3), own: own) == .passed)
        #expect(reading.ranges == [3: 7..<10])
    }

    @Test func anotherStoresBeforeOursAreNotLate() {
        var reading = StateReading(ranges: [3: 0..<10], wantsLateOnly: true)
        #expect(reading.met(3, offset: 0, place: place(90, source: "theirs"), own: own) == .passed)
        #expect(reading.met(3, offset: 1, place: place(1), own: own) == .passed)
    }

    @Test func aLaterEpochOfOursIsToldOfAndAnotherStoresIsStrange() {
        var reading = StateReading(ranges: [3: 0..<10, 4: 0..<1], wantsLateOnly: false)
        #expect(reading.met(3, offset: 0, place: place(1, epoch: 6), own: own) == .superseded(6))
        #expect(reading.met(3, offset: 1, place: place(1, epoch: 6, source: "theirs"), own: own) == .strange)
        #expect(reading.met(3, offset: 2, place: place(1), own: own) == .wanted)
        #expect(reading.met(3, offset: 10, place: place(1, epoch: 6), own: own) == .passed, "it is behind what is read")
        #expect(reading.met(4, offset: 0, place: place(1), own: own) == .wanted)
        #expect(reading.ranges.isEmpty)
    }

    @Test func keysAreRememberedOnceAndInOrder() {
        var keys = StateKeys()
        for name in ["a", "b", "a", "c", ""] { keys.add(Array(name.utf8)) }
        keys.add([UInt8](repeating: 1, count: StateKeys.longestKey + 1))
        #expect(keys.first(9) == [[97], [98], [99]])
        keys.removeFirst()
        keys.add([97])
        #expect(keys.first(2) == [[98], [99]])
        for _ in 0..<2 { keys.removeFirst() }
        #expect(keys.first(2) == [[97]], "what was taken may come again")
        keys.removeFirst()
        keys.removeFirst()
        #expect(keys.isEmpty && keys.first(1).isEmpty)
    }

    @Test func keysHaveALimit() {
        var keys = StateKeys()
        for number in 0..<StateKeys.most {
            #expect(!keys.isFull)
            keys.add(Array("\(number)".utf8))
        }
        #expect(keys.isFull)
        keys.removeFirst()
        #expect(!keys.isFull && keys.count == StateKeys.most - 1)
        #expect(keys.first(1) == [Array("1".utf8)])
    }
}
