// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Writes: in order for each key, committed by storage, then seen by the cache, then answered.
extension WriteThroughStateMachine {
    /// A command changes a key.
    package mutating func write(
        _ write: StorageWrite, hash: UInt64, for waiter: StorageWaiter, at now: StorageTime,
        into actions: inout StorageActions
    ) {
        statistics.writes += 1
        guard isAccepting else { return refuse(waiter, "the storage tier is stopping", &actions) }
        guard writeSlots.count < writesMax(write.operation) else {
            return refuse(waiter, "too many writes wait for storage", &actions)
        }
        let pool = Int(write.pool)
        var write = write
        write.valueLimitBytes = min(write.valueLimitBytes, pools[pool].valueLimitBytes)
        let slot = keys.findOrInsert(hash, write.key, pool: pool)
        let token = nextToken()
        let deadline = now.monotonicNanoseconds &+ waitNanoseconds
        noteDeadline(deadline)
        noteArrival(hash)
        writeSlots[token] = slot
        keys[slot].writes.append(
            WriteFlight(
                token: token, operation: write.operation, compares: write.compare != 0, waiter: waiter,
                deadlineNanoseconds: deadline))
        actions.writes.append(SubmittedWrite(token: token, write: write))
        // Its row may come and go while it is in flight: a copy shown after that expiry would deny that it came.
        let mayExpire =
            write.expiryMilliseconds != 0 && guards.contains(.expiry)
            && write.expiryMilliseconds <= now.unixMilliseconds + Int64(configuration.waitMilliseconds)
        if mayExpire || configuration.sharesKeys {
            keys[slot].isAhead = true
            forgetRow(slot, into: &actions)
        }
        if !guards.contains(.commitBeforeAnswer) { answerEarly(write, waiter, &actions) }
    }

    /// How many writes may be in flight for one of this kind to be let in: touch is shed first, delete last.
    private func writesMax(_ operation: StorageWrite.Operation) -> Int {
        let limit = configuration.share(configuration.writesInFlightMax)
        switch operation {
        case .touch: return max(1, limit / 4 * 3)
        case .delete: return limit + configuration.share(configuration.deletesReservedMax)
        default: return limit
        }
    }

    /// Storage answered a write: the cache step, then the answers of the write and of the reads behind it.
    package mutating func writeCompleted(
        _ token: UInt64, _ outcome: WriteOutcome, at now: StorageTime, into actions: inout StorageActions
    ) {
        guard let slot = writeSlots.removeValue(forKey: token), let flight = keys[slot].writes.remove(token) else {
            return
        }
        noteArrival(keys[slot].hash)
        if flight.isLate {
            keys[slot].lateWrites -= 1
            statistics.lateWrites += 1
        }
        if case .failed(let failure) = outcome {
            statistics.failedWrites += 1
            if failure.kind == .unknownOutcome { noteUnknownOutcome(slot) }
        }
        let isUncertain = isUncertain(slot)
        cache(outcome, of: flight, slot, isUncertain: isUncertain, at: now, into: &actions)
        if keys[slot].writes.isEmpty { keys[slot].isAhead = false }
        if !flight.isLate, guards.contains(.commitBeforeAnswer) || !answersEarly(flight.operation, flight.compares) {
            actions.answer(flight.waiter, outcome)
        }
        answerReaders(of: flight, outcome, slot, isUncertain: isUncertain, at: now, into: &actions)
        keys.removeIfIdle(slot)
    }

    private mutating func noteUnknownOutcome(_ slot: Int) {
        statistics.unknownOutcomes += 1
        guard guards.contains(.uncertainKeys), !keys[slot].isUnsettled else { return }
        if uncertainKeys < configuration.share(configuration.uncertainKeysMax) {
            keys[slot].isUnsettled = true
            uncertainKeys += 1
        } else {
            isUnsettled = true
        }
    }

    /// The cache step of a write. Nothing that is installed may be older than what somebody was shown.
    private mutating func cache(
        _ outcome: WriteOutcome, of flight: WriteFlight, _ slot: Int, isUncertain: Bool, at now: StorageTime,
        into actions: inout StorageActions
    ) {
        switch outcome {
        case .stored, .deleted:
            guard guards.contains(.cacheBeforeAnswer), flight.operation != .touch || guards.contains(.touches) else {
                return
            }
            // With newer writes in flight, a read may have shown what those did.
            let isBehind = keys[slot].isAhead && !keys[slot].writes.isEmpty
            if isUncertain || flight.isLate || flight.isSuperseded(outcome) || isBehind {
                return drop(slot, into: &actions)
            }
            guard case .stored(let row) = outcome else { return installAbsent(slot, into: &actions) }
            // What is not all known is read when somebody wants it.
            guard row.partialLength == nil else { return drop(slot, into: &actions) }
            if isLive(row, now.unixMilliseconds) {
                install(row, slot, into: &actions)
            } else if keys[slot].writes.isEmpty {
                installAbsent(slot, into: &actions)
            } else {
                // A write in flight may have found the row live: "absent" would be said too early.
                drop(slot, into: &actions)
            }
        case .failed(let failure):
            if failure.kind == .unknownOutcome, guards.contains(.uncertainKeys) {
                drop(slot, into: &actions)
            } else if !guards.contains(.wholeRows), failure.kind != .unknownOutcome {
                let empty = StoredRow(version: nextToken(), expiryMilliseconds: 0, clientFlags: 0, value: [])
                install(empty, slot, into: &actions)
            }
        case .exists:
            // Were it our copy that had the wrong version, the client would get it again and again.
            if flight.compares { drop(slot, into: &actions) }
        // There is no row, whatever the copy says: its time may go by another clock. Whoever was told to bring one is
        // still to, where the command was no attempt.
        case .notFound where flight.operation.leavesLease: forgetRow(slot, into: &actions)
        case .notStored where flight.operation != .add: forgetRow(slot, into: &actions)
        // What a delete was to forget goes as a whole, and what a compare was to replace.
        case .notFound: drop(slot, into: &actions)
        case .notStored, .notNumeric, .tooLarge:
            // Where others write too, the answer may tell of a row that is newer than the copy.
            if configuration.followsChanges { drop(slot, into: &actions) }
        }
    }

    /// Reads that waited for a write get its row, where the write tells; the others wait for a read from now on.
    private mutating func answerReaders(
        of flight: WriteFlight, _ outcome: WriteOutcome, _ slot: Int, isUncertain: Bool, at now: StorageTime,
        into actions: inout StorageActions
    ) {
        guard !flight.readers.isEmpty else { return }
        for reader in flight.readers {
            if !isUncertain, !flight.isSuperseded(outcome),
                let answer = value(after: outcome, flight.operation, reader, now)
            {
                forget(1, of: slot)
                actions.answer(reader.waiter, answer)
            } else {
                keys[slot].waiting.append(reader)
            }
        }
        sendRead(slot, at: now, into: &actions)
    }

    /// What a key's value is after a write, for a reader that came while it was in flight; nil if nobody can tell.
    private func value(
        after outcome: WriteOutcome, _ operation: StorageWrite.Operation, _ reader: WaitingRead, _ now: StorageTime
    ) -> ReadOutcome? {
        switch outcome {
        case .stored(let row):
            guard row.partialLength == nil else { return nil }
            if isLive(row, now.unixMilliseconds) { return .found(row) }
            // Expired between the reader's arrival and now: whether it was live at its commit, nobody can tell.
            return isLive(row, reader.arrivedMilliseconds) ? nil : .absent
        case .deleted, .notFound: return .absent
        case .notStored: return operation == .add ? nil : .absent
        case .exists, .notNumeric, .tooLarge, .failed: return nil
        }
    }

    private mutating func refuse(_ waiter: StorageWaiter, _ reason: String, _ actions: inout StorageActions) {
        statistics.refusedWrites += 1
        actions.answer(waiter, WriteOutcome.failed(StorageFailure(.notSent, reason)))
    }

    /// What a tier without ``WriteThroughGuards/commitBeforeAnswer`` does.
    private func answerEarly(_ write: StorageWrite, _ waiter: StorageWaiter, _ actions: inout StorageActions) {
        guard answersEarly(write.operation, write.compare != 0) else { return }
        let row = StoredRow(
            version: 0, expiryMilliseconds: write.expiryMilliseconds, clientFlags: write.clientFlags,
            value: write.value)
        actions.answer(waiter, WriteOutcome.stored(row))
    }

    private func answersEarly(_ operation: StorageWrite.Operation, _ compares: Bool) -> Bool {
        operation == .set && !compares
    }
}
