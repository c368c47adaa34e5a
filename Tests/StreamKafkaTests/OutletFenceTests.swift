// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Storage
import Testing

@testable import StreamKafka

/// Who finds that another one has the topic ends in the numbering against which that was found, and in no other.
struct OutletFenceTests {
    /// A store that another numbering begins in between two looks.
    private final class MovingSource: ChangeSource {
        let tail = ChangeTail(limitBytes: 1 << 20)
        private let epochs: Guarded<[Int64]>
        let succession: StreamSuccession?

        init(_ epochs: [Int64], _ succession: StreamSuccession?) {
            self.epochs = Guarded(epochs)
            self.succession = succession
        }

        var position: StreamPosition? {
            let epoch = epochs.withLock { $0.count > 1 ? $0.removeFirst() : $0[0] }
            return StreamPosition(source: "a", epoch: epoch, sequences: keptSequences)
        }

        var keptSequences: [Int64] { [Int64](repeating: 0, count: StreamSlots.count) }
        func beginProof() -> UInt64 { 1 }
        func proof(_ ticket: UInt64) -> [Int64]? { nil }
        func records(slot: Int, after sequence: Int64, limitBytes: Int) throws(StorageFailure) -> ChangeSlice {
            ChangeSlice(records: [], isLast: true)
        }
        func rows(_ keys: [[UInt8]], limitBytes: Int, valueMax: Int) throws(StorageFailure) -> [StoredRow?] { [] }
        func release(through sequences: [Int64]) {}
    }

    private func outlet(
        _ epochs: [Int64], _ term: HomeTerm? = nil, behind succession: StreamSuccession? = nil
    ) -> KafkaOutlet {
        KafkaOutlet(
            KafkaPublisher(
                .log, StreamKafkaConfiguration(), source: MovingSource(epochs, succession), term: term,
                registry: nil, leadership: KafkaLeadership(), log: nil))
    }

    private func isFenced(_ outlet: KafkaOutlet) -> Bool {
        if case .fenced = outlet.state { true } else { false }
    }

    /// What the topic's last message says: it is of the epoch 2.
    private var places: [KafkaPlace?] {
        var places = [KafkaPlace?](repeating: nil, count: StreamSlots.count)
        places[5] = KafkaPlace(source: "a", epoch: 2, sequence: 7)
        return places
    }

    @Test func aStoreInAnEarlierEpochEnds() {
        let outlet = outlet([1])
        outlet.goOn(behind: places, 0)
        #expect(isFenced(outlet))
    }

    @Test func aStoreThatHasBegunALaterOneMeanwhileGoesOn() {
        let outlet = outlet([1, 3])
        outlet.goOn(behind: places, 0)
        #expect(!isFenced(outlet))
        outlet.goOn(behind: places, 0)
        guard case .proving(let position, _, _, _) = outlet.state else {
            Issue.record("it does not go on: \(outlet.state)")
            return
        }
        #expect(position.epoch == 3 && position.sequences[5] == 0)
    }

    /// Behind what the home before put there, as far as it was taken over; of other numberings it is not known what is
    /// there.
    @Test func aNewHomeBeginsBehindWhatItTookOver() {
        let included = [Int64](repeating: 5, count: StreamSlots.count)
        let succession = StreamSuccession(previous: 2, included: included, isWhole: false)
        let outlet = outlet([3], HomeTerm(epoch: 1 << 40, region: "b"), behind: succession)
        var places = places
        places[6] = KafkaPlace(source: "a", epoch: 2, sequence: 3)
        places[7] = KafkaPlace(source: "a", epoch: 1, sequence: 3)
        places[8] = KafkaPlace(source: "b", epoch: 2, sequence: 3)
        outlet.goOn(behind: places, 0)
        guard case .proving(let position, _, _, _) = outlet.state else {
            Issue.record("it does not go on: \(outlet.state)")
            return
        }
        #expect((5...8).map { position.sequences[$0] } == [5, 3, 0, 0])
    }
}
