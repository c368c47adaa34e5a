// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage
internal import Synchronization
internal import Telemetry

/// What a thread does that never asks the database: answers those who wait in vain that nothing was done.
///
/// The threads with connections may be held up for seconds, by a host that answers nothing or by a name that is looked
/// up. What waits behind one that has failed to connect is refused at once; what waits behind one that may yet do it,
/// before those who asked give up: then they know that nothing was done.
struct SQLDoor {
    let core: SQLCore

    /// Works until the core says that all else has ended.
    func run() {
        while true {
            let ticket = core.door.ticket
            let isOver = core.isOver.load(ordering: .acquiring)
            core.answerRefused()
            if isOver { return }
            refuseWaiting()
            core.door.wait(ticket, timeoutNanoseconds: tickNanoseconds)
        }
    }

    /// Between looks at how long things have waited.
    private var tickNanoseconds: UInt64 {
        UInt64(max(1, min(100, core.configuration.waitingMilliseconds / 8))) * 1_000_000
    }

    private func refuseWaiting() {
        let now = Clock.monotonicNanoseconds()
        let limit = UInt64(core.configuration.waitingMilliseconds) * 1_000_000
        let oldest = now > limit ? now - limit : 0
        let slow = StorageFailure(.notSent, "the database takes too long")
        for (index, queue) in core.writes.enumerated() where queue.count > 0 {
            let outage = core.outage(writer: index)
            var taken: [Waiting<SubmittedWrite>] = []
            queue.take(into: &taken, limit: .max) { outage != nil || $0.sinceNanoseconds < oldest }
            if taken.isEmpty { continue }
            core.counters.refused.add(taken.count)
            let failure = outage.map { StorageFailure(.notSent, $0) } ?? slow
            core.sink?.writesCompleted(taken.map { ($0.element.token, .failed(failure)) })
        }
        if core.reads.count == 0 { return }
        let outage = core.outageOfReaders
        var taken: [Waiting<StorageRead>] = []
        core.reads.take(into: &taken, limit: .max) { outage != nil || $0.sinceNanoseconds < oldest }
        if taken.isEmpty { return }
        core.counters.refused.add(taken.count)
        let failure = outage.map { StorageFailure(.notSent, $0) } ?? slow
        core.sink?.readsCompleted(taken.map { ($0.element.token, .failed(failure)) })
    }
}
