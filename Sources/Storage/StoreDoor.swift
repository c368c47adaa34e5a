// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization

/// What a backend lets the thread at its door see: what waits for the threads that use the disk or the network, and
/// whether it waits in vain.
package protocol StoreBehindDoor: Sendable {
    /// The door that its thread stands at.
    var door: StoreDoor { get }
    /// What waits to be looked up.
    var reads: SubmissionQueue<Waiting<StorageRead>> { get }
    /// What waits to be written; the writes of one key are in one of the queues.
    var writeQueues: [SubmissionQueue<Waiting<SubmittedWrite>>] { get }
    /// Where answers go.
    var sink: (any StorageSink)? { get }
    /// How long anything may wait, in milliseconds; those who asked give up soon after.
    var waitingMilliseconds: Int { get }
    /// What those are told who waited that long.
    var slowReason: String { get }

    /// Why all that waits in the queue of writes `index` waits in vain; nil where it may yet be done.
    func outage(writes index: Int, nowNanoseconds: UInt64) -> String?
    /// The same of reads.
    func outageOfReads(nowNanoseconds: UInt64) -> String?
    /// Counts what was refused.
    func countRefused(reads: Int, writes: Int)
}

extension StoreBehindDoor {
    /// Has the thread at the door answer that these tokens found no room, and that nothing was done.
    package func refuse(reads: [UInt64] = [], writes: [UInt64] = []) {
        countRefused(reads: reads.count, writes: writes.count)
        door.put(reads: reads, writes: writes)
    }
}

/// What a thread does that never touches the disk or the network: answers those who wait in vain that nothing was done.
///
/// The threads that do may be held up for as long as a disk, a host that answers nothing or a name that is looked up
/// likes. What is with them then can only be given up by those who asked. What waits behind them is refused while those
/// still wait, so that they know that nothing was done, and at once where it is known that it waits in vain.
package final class StoreDoor: Sendable {
    private let parking = Parking()
    private let isOver = Atomic<Bool>(false)
    /// Tokens that found no room.
    private let refused = RefusedTokens()

    /// A door where nobody stands yet.
    package init() {}

    /// Works until ``end()``.
    package func run(_ store: some StoreBehindDoor) {
        let tickNanoseconds = UInt64(max(1, min(100, store.waitingMilliseconds / 8))) * 1_000_000
        while true {
            let ticket = parking.ticket
            let isOver = self.isOver.load(ordering: .acquiring)
            answerRefused(store.sink)
            if isOver { return }
            refuseWaiting(store)
            parking.wait(ticket, timeoutNanoseconds: tickNanoseconds)
        }
    }

    /// Has the thread look at once: something is known to wait in vain.
    package func announce() { parking.announce() }

    /// Ends ``run(_:)``. After everything else that uses the store has ended.
    package func end() {
        isOver.store(true, ordering: .releasing)
        parking.announce()
    }

    /// Answers the tokens that found no room. By itself only after ``run(_:)`` returned: for what came meanwhile.
    package func answerRefused(_ sink: (any StorageSink)?) { refused.answer(sink) }

    /// Remembers tokens that found no room.
    fileprivate func put(reads: [UInt64], writes: [UInt64]) {
        refused.add(reads: reads, writes: writes)
        parking.announce()
    }

    private func refuseWaiting(_ store: some StoreBehindDoor) {
        let now = Clock.monotonicNanoseconds()
        let limit = UInt64(store.waitingMilliseconds) * 1_000_000
        let oldest = now > limit ? now - limit : 0
        for (index, queue) in store.writeQueues.enumerated() where queue.count > 0 {
            let outage = store.outage(writes: index, nowNanoseconds: now)
            let taken = Self.takeVain(queue, oldest, all: outage != nil)
            if taken.isEmpty { continue }
            store.countRefused(reads: 0, writes: taken.count)
            let failure = StorageFailure(.notSent, outage ?? store.slowReason)
            store.sink?.writesCompleted(taken.map { ($0.token, .failed(failure)) })
        }
        guard store.reads.count > 0 else { return }
        let outage = store.outageOfReads(nowNanoseconds: now)
        let taken = Self.takeVain(store.reads, oldest, all: outage != nil)
        if taken.isEmpty { return }
        store.countRefused(reads: taken.count, writes: 0)
        let failure = StorageFailure(.notSent, outage ?? store.slowReason)
        store.sink?.readsCompleted(taken.map { ($0.token, .failed(failure)) })
    }

    /// Takes what has waited since before `oldest`, or everything.
    private static func takeVain<Element>(
        _ queue: SubmissionQueue<Waiting<Element>>, _ oldest: UInt64, all: Bool
    ) -> [Element] {
        var taken: [Waiting<Element>] = []
        queue.take(into: &taken, limit: .max) { all || $0.sinceNanoseconds < oldest }
        return taken.map(\.element)
    }
}
