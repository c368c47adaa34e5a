// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Time limits, and the end.
extension WriteThroughStateMachine {
    /// Answers whoever waited too long. Cheap while no limit has passed.
    package mutating func tick(at now: StorageTime, into actions: inout StorageActions) {
        let time = now.monotonicNanoseconds
        guard time >= earliestDeadline else { return }
        earliestDeadline = .max
        for slot in keys.used {
            expireWrites(slot, at: now, into: &actions)
            if let flight = keys[slot].read, flight.deadlineNanoseconds <= time {
                // Given up: who still has time waits for another. The answer, if it comes, is ignored.
                keys[slot].read = nil
                readSlots[flight.token] = -1
                keys[slot].waiting = flight.waiters + keys[slot].waiting
            }
            expireReads(slot, at: time, into: &actions)
            sendRead(slot, at: now, into: &actions)
            noteDeadlines(slot)
            keys.removeIfIdle(slot)
        }
    }

    /// A write without an answer in time: its outcome is unknown until storage answers it after all.
    private mutating func expireWrites(_ slot: Int, at now: StorageTime, into actions: inout StorageActions) {
        for index in 0..<keys[slot].writes.count {
            guard !keys[slot].writes[index].isLate,
                keys[slot].writes[index].deadlineNanoseconds <= now.monotonicNanoseconds
            else { continue }
            statistics.timedOutWrites += 1
            keys[slot].writes[index].isLate = true
            let flight = keys[slot].writes[index]
            keys[slot].writes[index].readers = []
            if guards.contains(.timeouts) {
                keys[slot].lateWrites += 1
                noteArrival(keys[slot].hash)
                drop(slot, into: &actions)
            } else {
                // Without the guard the write is forgotten, as if a time limit undid it.
                _ = keys[slot].writes.remove(flight.token)
                writeSlots[flight.token] = nil
            }
            if guards.contains(.commitBeforeAnswer) || flight.operation != .set || flight.compares {
                actions.answer(flight.waiter, WriteOutcome.failed(tooLate(.unknownOutcome)))
            }
            keys[slot].waiting += flight.readers
            if !guards.contains(.timeouts) { return expireWrites(slot, at: now, into: &actions) }
        }
    }

    private mutating func expireReads(_ slot: Int, at time: UInt64, into actions: inout StorageActions) {
        expire(keys[slot].waiting.filter { $0.deadlineNanoseconds <= time }, slot, into: &actions)
        keys[slot].waiting.removeAll { $0.deadlineNanoseconds <= time }
        for index in 0..<keys[slot].writes.count where !keys[slot].writes[index].readers.isEmpty {
            expire(keys[slot].writes[index].readers.filter { $0.deadlineNanoseconds <= time }, slot, into: &actions)
            keys[slot].writes[index].readers.removeAll { $0.deadlineNanoseconds <= time }
        }
    }

    private mutating func expire(_ waiters: [WaitingRead], _ slot: Int, into actions: inout StorageActions) {
        guard !waiters.isEmpty else { return }
        statistics.timedOutReads += UInt64(waiters.count)
        forget(waiters.count, of: slot)
        for waiting in waiters { actions.answer(waiting.waiter, ReadOutcome.failed(tooLate(.unknownOutcome))) }
    }

    private mutating func noteDeadlines(_ slot: Int) {
        if let read = keys[slot].read { noteDeadline(read.deadlineNanoseconds) }
        for waiting in keys[slot].waiting { noteDeadline(waiting.deadlineNanoseconds) }
        for index in 0..<keys[slot].writes.count {
            let flight = keys[slot].writes[index]
            if !flight.isLate { noteDeadline(flight.deadlineNanoseconds) }
            for reader in flight.readers { noteDeadline(reader.deadlineNanoseconds) }
        }
    }

    private func tooLate(_ kind: StorageFailure.Kind) -> StorageFailure {
        StorageFailure(kind, "no answer from storage in \(configuration.waitMilliseconds) ms")
    }

    /// Refuses new commands from now on; what is under way goes on.
    package mutating func stopAccepting() { isAccepting = false }

    /// Answers whatever still waits: storage is closed and will answer nothing any more.
    package mutating func abandon(_ actions: inout StorageActions) {
        isAccepting = false
        let failure = StorageFailure(.unknownOutcome, "the storage tier stopped before storage answered")
        for slot in keys.used {
            let state = keys[slot]
            var readers = (state.read?.waiters ?? []) + state.waiting
            for index in 0..<state.writes.count {
                readers += state.writes[index].readers
                if !state.writes[index].isLate {
                    actions.answer(state.writes[index].waiter, WriteOutcome.failed(failure))
                }
            }
            for reader in readers { actions.answer(reader.waiter, ReadOutcome.failed(failure)) }
            drop(slot, into: &actions)
        }
        keys = KeyTable()
        readSlots = [:]
        writeSlots = [:]
        uncertainKeys = 0
        statistics.waiters = 0
    }

    /// What is under way or uncertain now: reads and writes that storage owes an answer, uncertain keys.
    package var inFlight: (reads: Int, writes: Int, uncertainKeys: Int) {
        let uncertain = keys.used.count { keys[$0].isUnsettled || keys[$0].lateWrites > 0 }
        return (readSlots.count, writeSlots.count, uncertain + (isUnsettled ? 1 : 0))
    }
}
