// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Platform
import Storage
import Testing

@testable import StreamKafka

/// What the thread of a follower does between messages.
struct KafkaInletTests {
    private final class Ignoring: StreamConsumer {
        func reaching(_ position: StreamPosition, ahead: UInt64) {}
        func reaching(_ place: StreamPlace?, slot: Int) {}
        func reached(_ position: StreamPosition) {}
        func apply(_ record: OutboxRecord) {}
        func quarantine(_ mask: UInt64) {}
        func proved(_ nanoseconds: UInt64) {}
        func look(_ keys: [[UInt8]], explains: Bool) -> [CopyReport] { [] }
        func doubt(since nanoseconds: UInt64?) {}
    }

    private final class Noting: StreamRepairer {
        let asked = Guarded<[StreamPosition?]>([])

        func repair(_ position: StreamPosition?) { asked.withLock { $0.append(position) } }
        func reached(_ places: [(epoch: Int64, sequence: Int64)?]) {}
        func takeRepaired() -> [RepairItem] { [] }
    }

    /// What the home before was asked for, it may answer yet: nobody takes that for an answer of the new one.
    @Test func whatTheHomeBeforeWasAskedForIsForgottenWithEachTurn() {
        var configuration = StreamKafkaConfiguration()
        configuration.brokers = ["127.0.0.1:1"]
        configuration.questionMilliseconds = 1
        let repairer = Noting()
        let follower = KafkaFollower(
            configuration, consumer: Ignoring(), repairer: repairer,
            home: .term(HomeTerm(epoch: 0, region: "us-east")), log: nil)
        let inlet = KafkaInlet(follower)
        inlet.step()
        inlet.step()
        #expect(repairer.asked.withLock { $0 }.isEmpty)
        for turn in 1...2 {
            follower.turn(to: turn == 1 ? .none : .term(HomeTerm(epoch: 1 << 40, region: "eu-west")))
            inlet.step()
            inlet.step()
            #expect(repairer.asked.withLock { $0 } == [StreamPosition?](repeating: nil, count: turn))
        }
    }
}
