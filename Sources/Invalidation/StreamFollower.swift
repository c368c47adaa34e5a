// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage

/// What a follower asks its shell to do, in order.
package enum FollowerAction: Sendable, Equatable {
    /// Change the cached copy that the record is about, if that is older.
    case apply(OutboxRecord)
    /// What was cached of the slots of this mask may be older than the stream: show none of it, and void fills under
    /// way.
    case quarantine(UInt64)
    /// A promotion has lost what was acknowledged last: what was cached since the monotonic clock said this may be of
    /// it, and is to be given up; everything, where nothing was proved yet.
    case doubt(since: UInt64?)
    /// Ask the source to send a slot again, from behind this sequence number.
    case seek(slot: Int, after: Int64)
    /// Let the source send so many more bytes.
    case grant(Int)
    /// Ask the source whether this was all, and tell it the last probe whose answer has come; 0 when none has.
    case probe(UInt64, answered: UInt64)
    /// The stream was complete when the monotonic clock said this.
    case proved(UInt64)
    /// End the connection: the source does not keep to the protocol, for this reason.
    case disconnect(String)
}

/// Counts of a follower since it was made.
package struct FollowerStatistics: Sendable, Equatable {
    /// Records that were handed on.
    package var records: UInt64 = 0
    /// Records that had come before.
    package var duplicates: UInt64 = 0
    /// Times that records were missing.
    package var gaps: UInt64 = 0
    /// Gaps that the source filled in time.
    package var repairs: UInt64 = 0
    /// Slots that were quarantined.
    package var quarantines: UInt64 = 0
    /// Epochs that began.
    package var epochs: UInt64 = 0
    /// Records of another epoch or source that were dropped.
    package var fenced: UInt64 = 0

    /// Nothing counted yet.
    package init() {}
}

/// One consumer of one source's stream: notices what is missing, has it repaired or gives the slot up, and knows when
/// the stream was last known to be complete (docs/contract.md, 13 to 16). Pure: messages and time come in, actions go
/// out. Whoever runs it hands it the messages of one connection in their order.
package struct StreamFollower: Sendable {
    private let configuration: InvalidationConfiguration
    private let guards: StreamGuards
    /// What was received without a gap; nil before the first connection.
    package private(set) var position: StreamPosition?
    /// What the source is known to have committed, by slot.
    private var known = [Int64](repeating: 0, count: StreamSlots.count)
    /// Since when a slot waits for missing records, in monotonic nanoseconds; 0 when it does not.
    private var missingSince = [UInt64](repeating: 0, count: StreamSlots.count)
    private var missingCount = 0
    /// When such a slot was last asked for, in monotonic nanoseconds.
    private var soughtAt = [UInt64](repeating: 0, count: StreamSlots.count)
    /// By slot, up to where records were had before an operator asked for them again.
    private var had = [Int64](repeating: 0, count: StreamSlots.count)
    /// Slots of which a record has acted beyond a gap, and its number: ``reached`` does not show it yet.
    package private(set) var ahead: UInt64 = 0
    private var acted = [Int64](repeating: 0, count: StreamSlots.count)
    /// Probes without an answer, oldest first.
    private var probes: [(number: UInt64, sent: UInt64)] = []
    private var probeNumber: UInt64 = 0
    /// The last probe of the connection whose answer has come, and all records before it; 0 when none has.
    private var answered: UInt64 = 0
    private var nextProbe: UInt64 = 0
    private var isConnected = false
    /// When the stream was last known to be complete, in monotonic nanoseconds; nil before the first time.
    package private(set) var provenNanoseconds: UInt64?
    /// What happened so far.
    package private(set) var statistics = FollowerStatistics()

    /// A follower that has seen nothing: its first connection joins the stream where it is.
    package init(_ configuration: InvalidationConfiguration, guards: StreamGuards = .all) {
        self.configuration = configuration
        self.guards = guards
    }

    /// Up to where records were had, also those that come again on an operator's behalf.
    package var reached: StreamPosition? {
        guard var reached = position else { return nil }
        for slot in 0..<StreamSlots.count where had[slot] > reached.sequences[slot] {
            reached.sequences[slot] = had[slot]
        }
        return reached
    }

    /// Slots that wait for missing records.
    package var missingSlots: Int { missingCount }

    /// Records that the source has committed and that were not received, as far as is known.
    package var backlog: Int64 {
        guard let position else { return 0 }
        return (0..<StreamSlots.count).reduce(0) { sum, slot in
            let (total, isOverflow) = sum.addingReportingOverflow(max(0, known[slot] - position.sequences[slot]))
            return isOverflow ? .max : total
        }
    }

    // MARK: Connections

    /// The source answered: its stream goes on behind `base`, which is `position` where it could be resumed there.
    /// Where another region became home since, `succession` says what it has of the numbering before.
    package mutating func welcomed(
        _ base: StreamPosition, after succession: StreamSuccession? = nil, at now: UInt64,
        into actions: inout [FollowerAction]
    ) {
        isConnected = true
        probes.removeAll(keepingCapacity: true)
        answered = 0
        nextProbe = now
        if let position, position.source == base.source, position.epoch > base.epoch {
            isConnected = false
            return actions.append(.disconnect("the source is in epoch \(base.epoch), which is over"))
        }
        if let position, position.source == base.source, position.epoch == base.epoch {
            resume(base, into: &actions)
        } else if let position, let succession, position.source == base.source, position.epoch == succession.previous {
            succeed(base, succession, into: &actions)
        } else {
            if position != nil { statistics.epochs += 1 }
            if position == nil || guards.contains(.epochs) { quarantine(StreamSlots.all, into: &actions) }
            forgetMissing()
            position = base
            known = base.sequences
            had = [Int64](repeating: 0, count: StreamSlots.count)
            ahead = 0
        }
        actions.append(.grant(configuration.windowBytes))
        tick(at: now, into: &actions)
    }

    private mutating func resume(_ base: StreamPosition, into actions: inout [FollowerAction]) {
        var lost: UInt64 = 0
        for slot in 0..<StreamSlots.count where position?.sequences[slot] != base.sequences[slot] {
            // Trimmed behind our back, or the source went back: either way records are not to be had any more.
            if base.sequences[slot] > had[slot] || base.sequences[slot] < position?.sequences[slot] ?? 0 {
                lost |= StreamSlots.mask(slot)
            }
            position?.sequences[slot] = base.sequences[slot]
            known[slot] = base.sequences[slot]
        }
        // The source sends what is missing by itself.
        forgetMissing()
        catchUp()
        if lost != 0, guards.contains(.trims) { quarantine(lost, into: &actions) }
    }

    /// Goes on in the numbering of another home. Slots of which records came that it does not have are given up: what
    /// they said was lost, and other records have their numbers. Of the rest, what was read from the home before, and
    /// whose record did not come, may be lost as well, unless nothing was.
    private mutating func succeed(
        _ base: StreamPosition, _ succession: StreamSuccession, into actions: inout [FollowerAction]
    ) {
        statistics.epochs += 1
        var lost: UInt64 = 0
        for slot in 0..<StreamSlots.count {
            let last = position?.sequences[slot] ?? 0
            // Also where the new home has let go as much since: its numbers stand for other records. What comes again
            // on an operator's behalf was had before.
            let isAhead = ahead & StreamSlots.mask(slot) != 0
            let isBeyond = max(last, had[slot], isAhead ? acted[slot] : 0) > succession.included[slot]
            if isBeyond || last != base.sequences[slot] { lost |= StreamSlots.mask(slot) }
        }
        forgetMissing()
        position = base
        had = [Int64](repeating: 0, count: StreamSlots.count)
        ahead = 0
        for slot in 0..<StreamSlots.count { known[slot] = max(base.sequences[slot], succession.included[slot]) }
        guard guards.contains(.successions) else { return }
        if lost != 0 { quarantine(lost, into: &actions) }
        if !succession.isWhole { actions.append(.doubt(since: provenNanoseconds)) }
    }

    /// The connection is gone; the position stays.
    package mutating func disconnected() {
        isConnected = false
        probes.removeAll(keepingCapacity: true)
        forgetMissing()
    }

    private mutating func forgetMissing() {
        guard missingCount > 0 else { return }
        for slot in 0..<StreamSlots.count { missingSince[slot] = 0 }
        missingCount = 0
    }

    /// What has acted beyond a gap is shown by where the slot is now, or is not.
    private mutating func catchUp() {
        guard ahead != 0, let position else { return }
        for slot in StreamSlots.each(ahead) where max(position.sequences[slot], had[slot]) >= acted[slot] {
            ahead &= ~StreamSlots.mask(slot)
        }
    }

    // MARK: Records

    /// A record came.
    package mutating func received(
        _ record: OutboxRecord, at now: UInt64, into actions: inout [FollowerAction]
    ) {
        let slot = Int(record.slot)
        guard let current = position, isConnected else { return }
        guard slot >= 0, slot < StreamSlots.count, record.firstSequence > 0, record.firstSequence <= record.sequence,
            record.sequence <= OutboxRecord.sequenceMax
        else { return actions.append(.disconnect("a record has no place in the stream")) }
        guard record.source == current.source, record.epoch == current.epoch || !guards.contains(.epochs) else {
            statistics.fenced += 1
            return
        }
        known[slot] = max(known[slot], record.sequence)
        let last = current.sequences[slot]
        let end = max(last, had[slot])
        guard record.sequence > last else {
            statistics.duplicates += 1
            // Without the guard, what came before is done again.
            if !guards.contains(.versions) { actions.append(.apply(record)) }
            return
        }
        statistics.records += 1
        if record.operation == .flush, record.sequence <= had[slot] {
            // It comes again; those of the other slots, which belong to it, need not.
            quarantine(StreamSlots.mask(slot), into: &actions)
        } else {
            actions.append(.apply(record))
        }
        if record.firstSequence > last + 1, record.firstSequence <= end + 1 {
            // What comes again is not at it yet; this one follows what was had.
            had[slot] = max(end, record.sequence)
            catchUp()
        } else if record.firstSequence > last + 1, guards.contains(.contiguity) {
            // It was acted upon, which does no harm, and comes again with those before it.
            acted[slot] = max(ahead & StreamSlots.mask(slot) != 0 ? acted[slot] : 0, record.sequence)
            ahead |= StreamSlots.mask(slot)
            noteMissing(slot, at: now, into: &actions)
        } else {
            position?.sequences[slot] = record.sequence
            noteRepaired(slot)
            catchUp()
        }
    }

    /// The source answered a probe: when it did, it had committed these numbers and sent everything up to them.
    package mutating func completed(
        _ number: UInt64, epoch: Int64, sequences: [Int64], at now: UInt64, into actions: inout [FollowerAction]
    ) {
        guard let current = position, isConnected, sequences.count == StreamSlots.count else { return }
        guard epoch == current.epoch || !guards.contains(.epochs) else {
            return actions.append(.disconnect("the source changed its epoch to \(epoch)"))
        }
        guard let place = probes.firstIndex(where: { $0.number == number }) else { return }
        let sent = probes[place].sent
        probes.removeFirst(place + 1)
        var lost: UInt64 = 0
        for slot in 0..<StreamSlots.count {
            known[slot] = max(known[slot], sequences[slot])
            guard guards.contains(.tails) else { continue }
            if sequences[slot] > max(current.sequences[slot], had[slot]) {
                // Behind a question that the source was asked later, what it sent again did not come, or not in order.
                if missingSince[slot] != 0, sent > soughtAt[slot] { seek(slot, at: now, into: &actions) }
                noteMissing(slot, at: now, into: &actions)
            } else if sequences[slot] < current.sequences[slot] {
                // What we had of the source it does not have any more.
                position?.sequences[slot] = sequences[slot]
                known[slot] = sequences[slot]
                lost |= StreamSlots.mask(slot)
            }
        }
        if lost != 0 { quarantine(lost, into: &actions) }
        guard missingCount == 0 else { return }
        answered = number
        let proven = guards.contains(.proofs) ? sent : now
        provenNanoseconds = max(provenNanoseconds ?? 0, proven)
        actions.append(.proved(proven))
    }

    /// The source does not have the records of a slot up to `sequence` any more.
    package mutating func lost(_ slot: Int, through sequence: Int64, into actions: inout [FollowerAction]) {
        guard slot >= 0, slot < StreamSlots.count, let last = position?.sequences[slot], sequence > last else { return }
        noteRepaired(slot, isRepaired: false)
        position?.sequences[slot] = sequence
        known[slot] = max(known[slot], sequence)
        catchUp()
        // It was had before somebody asked for it again.
        if sequence <= had[slot] { return }
        if guards.contains(.trims) { quarantine(StreamSlots.mask(slot), into: &actions) }
    }

    /// A batch of so many bytes was worked off.
    package mutating func consumed(_ bytes: Int, into actions: inout [FollowerAction]) {
        if bytes > 0 { actions.append(.grant(bytes)) }
    }

    // MARK: Operators

    /// Asks for what is missing again, and for a proof at once.
    package mutating func repair(at now: UInt64, into actions: inout [FollowerAction]) {
        guard isConnected else { return }
        for slot in 0..<StreamSlots.count where missingSince[slot] != 0 {
            missingSince[slot] = max(now, 1)
            seek(slot, at: now, into: &actions)
        }
        nextProbe = now
        tick(at: now, into: &actions)
    }

    /// Has everything that the source keeps of the slots of `mask` sent again: each record acts if it is newer than the
    /// copy, as ever.
    package mutating func replay(_ mask: UInt64, into actions: inout [FollowerAction]) {
        guard isConnected else { return }
        for slot in 0..<StreamSlots.count where mask & StreamSlots.mask(slot) != 0 && missingSince[slot] == 0 {
            had[slot] = max(had[slot], position?.sequences[slot] ?? 0)
            position?.sequences[slot] = 0
            actions.append(.seek(slot: slot, after: 0))
        }
    }

    /// Gives the slots of `mask` up, and goes on behind what is known to be committed.
    package mutating func skip(_ mask: UInt64, into actions: inout [FollowerAction]) {
        for slot in 0..<StreamSlots.count where mask & StreamSlots.mask(slot) != 0 && position != nil {
            noteRepaired(slot, isRepaired: false)
            let last = position?.sequences[slot] ?? 0
            position?.sequences[slot] = max(last, known[slot], had[slot])
        }
        catchUp()
        quarantine(mask, into: &actions)
    }

    // MARK: Time

    /// Sends probes, and gives up gaps that are not repaired in time. To be called ten times a second or more often.
    package mutating func tick(at now: UInt64, into actions: inout [FollowerAction]) {
        guard isConnected else { return }
        if missingCount > 0 { giveUp(at: now, into: &actions) }
        guard now >= nextProbe else { return }
        nextProbe = now &+ configuration.probeNanoseconds
        probeNumber &+= 1
        if probes.count >= configuration.probesMax { probes.removeFirst() }
        probes.append((probeNumber, now))
        actions.append(.probe(probeNumber, answered: answered))
    }

    private mutating func giveUp(at now: UInt64, into actions: inout [FollowerAction]) {
        var lost: UInt64 = 0
        for slot in 0..<StreamSlots.count
        where missingSince[slot] != 0 && now &- missingSince[slot] >= configuration.repairNanoseconds {
            noteRepaired(slot, isRepaired: false)
            position?.sequences[slot] = known[slot]
            lost |= StreamSlots.mask(slot)
        }
        catchUp()
        if lost != 0, guards.contains(.repairs) { quarantine(lost, into: &actions) }
    }

    private mutating func noteMissing(_ slot: Int, at now: UInt64, into actions: inout [FollowerAction]) {
        guard missingSince[slot] == 0, position != nil else { return }
        missingSince[slot] = max(now, 1)
        missingCount += 1
        statistics.gaps += 1
        seek(slot, at: now, into: &actions)
    }

    private mutating func seek(_ slot: Int, at now: UInt64, into actions: inout [FollowerAction]) {
        guard let last = position?.sequences[slot] else { return }
        soughtAt[slot] = now
        actions.append(.seek(slot: slot, after: last))
    }

    /// Everything that is known of the slot was received, or is given up.
    private mutating func noteRepaired(_ slot: Int, isRepaired: Bool = true) {
        guard missingSince[slot] != 0 else { return }
        if isRepaired, let last = position?.sequences[slot], last < known[slot] { return }
        missingSince[slot] = 0
        missingCount -= 1
        if isRepaired { statistics.repairs += 1 }
    }

    private mutating func quarantine(_ mask: UInt64, into actions: inout [FollowerAction]) {
        statistics.quarantines += UInt64(mask.nonzeroBitCount)
        actions.append(.quarantine(mask))
    }
}
