// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Reads: one at a time for each key, shared by whoever may share it, and what of their answers is cached.
extension WriteThroughStateMachine {
    /// A command wants the value of a key that the cache does not have, or must not answer.
    package mutating func read(
        _ key: [UInt8], hash: UInt64, pool: Int, for waiter: StorageWaiter, at now: StorageTime,
        into actions: inout StorageActions
    ) {
        statistics.reads += 1
        guard isAccepting else { return refuse(waiter, "the storage tier is stopping", &actions) }
        let slot = keys.findOrInsert(hash, key, pool: pool)
        guard keys[slot].waiterCount < configuration.waitersPerKeyMax,
            statistics.waiters < configuration.share(configuration.waitersMax)
        else {
            keys.removeIfIdle(slot)
            return refuse(waiter, "too many commands wait for storage", &actions)
        }
        let waiting = WaitingRead(
            waiter: waiter, deadlineNanoseconds: now.monotonicNanoseconds &+ waitNanoseconds,
            arrivedMilliseconds: now.unixMilliseconds)
        noteDeadline(waiting.deadlineNanoseconds)
        keys[slot].waiterCount += 1
        statistics.waiters += 1
        if let last = keys[slot].lastWrite, guards.contains(.readsBehindWrites) {
            statistics.readsBehindWrites += 1
            keys[slot].writes[last].readers.append(waiting)
        } else if let sent = keys[slot].read?.arrivals, sent == arrivals(hash) || !guards.contains(.joins) {
            statistics.joinedReads += 1
            keys[slot].read?.waiters.append(waiting)
        } else {
            if keys[slot].waiting.count > 0 { statistics.joinedReads += 1 }
            keys[slot].waiting.append(waiting)
            if keys[slot].read == nil {
                sendRead(slot, at: now, into: &actions)
                // Where it was refused nothing else holds the key.
                keys.removeIfIdle(slot)
            }
        }
    }

    /// Storage answered a read.
    package mutating func readCompleted(
        _ token: UInt64, _ outcome: ReadOutcome, at now: StorageTime, into actions: inout StorageActions
    ) {
        // A token that was given up has nobody who waits for it.
        guard let slot = readSlots.removeValue(forKey: token), slot >= 0, let flight = keys[slot].read,
            flight.token == token
        else { return }
        keys[slot].read = nil
        cache(outcome, slot, sentAt: flight.arrivals, at: now, into: &actions)
        if case .failed = outcome { statistics.failedReads += 1 }
        forget(flight.waiters.count, of: slot)
        for waiting in flight.waiters {
            // The row was live when storage looked. Whoever came before its expiry may see it even now; to call it
            // absent would be to say that later writes, which found it live, came first.
            if case .found(let row) = outcome, !isLive(row, waiting.arrivedMilliseconds) {
                actions.answer(waiting.waiter, ReadOutcome.absent)
            } else {
                actions.answer(waiting.waiter, outcome)
            }
        }
        sendRead(slot, at: now, into: &actions)
        keys.removeIfIdle(slot)
    }

    /// Caches what a read found, if that cannot be older than what is known by now.
    private mutating func cache(
        _ answer: ReadOutcome, _ slot: Int, sentAt count: UInt64, at now: StorageTime,
        into actions: inout StorageActions
    ) {
        if case .failed = answer {
            if !guards.contains(.definiteAnswers) { installAbsent(slot, into: &actions) }
            return
        }
        if !keys[slot].writes.isEmpty, guards.contains(.readsAhead) {
            // The answer may show what a write in flight did: nobody may see an older copy after it.
            keys[slot].isAhead = true
            statistics.uncachedReads += 1
            return drop(slot, into: &actions)
        }
        if isUncertain(slot), guards.contains(.uncertainKeys) {
            statistics.uncachedReads += 1
            return
        }
        if guards.contains(.laggingReads),
            told.isAhead(of: answer, keys[slot].hash, atNanoseconds: now.monotonicNanoseconds)
        {
            statistics.guardedFills += 1
            return
        }
        let isUndisturbed = count == arrivals(keys[slot].hash)
        switch answer {
        case .found(let row):
            guard isUndisturbed || !guards.contains(.fills) else {
                if configuration.followsChanges {
                    let state = keys[slot]
                    actions.cacheSteps.append(.dropOlder(than: row.version, key: state.key, hash: state.hash))
                }
                return statistics.guardedFills += 1
            }
            guard isLive(row, now.unixMilliseconds) else { return }
            statistics.fills += 1
            install(row, slot, into: &actions)
        case .absent:
            guard isUndisturbed || !guards.contains(.negativeFills) else {
                if configuration.followsChanges { drop(slot, into: &actions) }
                return statistics.guardedFills += 1
            }
            installAbsent(slot, into: &actions)
        case .failed: break
        }
    }

    /// Sends a read for those who wait for one, if there is none under way.
    mutating func sendRead(_ slot: Int, at now: StorageTime, into actions: inout StorageActions) {
        guard keys[slot].read == nil, !keys[slot].waiting.isEmpty else { return }
        let waiters = keys[slot].waiting
        keys[slot].waiting = []
        guard isAccepting, readSlots.count < configuration.share(configuration.readsInFlightMax) else {
            forget(waiters.count, of: slot)
            let reason = isAccepting ? "too many reads wait for storage" : "the storage tier is stopping"
            for waiting in waiters { refuse(waiting.waiter, reason, &actions) }
            return
        }
        send(slot, for: waiters, at: now, into: &actions)
    }

    /// A copy that is behind its time was shown: storage is asked for a newer one, which nobody waits for, unless it is
    /// being asked or written already.
    package mutating func refresh(
        _ key: [UInt8], hash: UInt64, pool: Int, at now: StorageTime, into actions: inout StorageActions
    ) {
        guard isAccepting, readSlots.count < configuration.share(configuration.readsInFlightMax) else { return }
        let slot = keys.findOrInsert(hash, key, pool: pool)
        guard keys[slot].read == nil, keys[slot].waiting.isEmpty, keys[slot].lastWrite == nil else {
            return keys.removeIfIdle(slot)
        }
        statistics.refreshes += 1
        send(slot, for: [], at: now, into: &actions)
    }

    private mutating func send(
        _ slot: Int, for waiters: [WaitingRead], at now: StorageTime, into actions: inout StorageActions
    ) {
        let token = nextToken()
        let deadline = now.monotonicNanoseconds &+ waitNanoseconds
        noteDeadline(deadline)
        statistics.readsSent += 1
        readSlots[token] = slot
        keys[slot].read = ReadFlight(
            token: token, arrivals: arrivals(keys[slot].hash), deadlineNanoseconds: deadline, waiters: waiters)
        actions.reads.append(StorageRead(token: token, key: keys[slot].key))
    }

    private mutating func refuse(_ waiter: StorageWaiter, _ reason: String, _ actions: inout StorageActions) {
        statistics.refusedReads += 1
        actions.answer(waiter, ReadOutcome.failed(StorageFailure(.notSent, reason)))
    }

    /// Counts waiters that have their answer.
    mutating func forget(_ count: Int, of slot: Int) {
        keys[slot].waiterCount -= count
        statistics.waiters -= count
    }
}
