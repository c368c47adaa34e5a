// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage

/// The two clocks that a stream through a broker is followed by.
package struct BrokerTime: Sendable, Equatable {
    /// The monotonic clock, in nanoseconds.
    package var monotonicNanoseconds: UInt64
    /// Unix time, in milliseconds.
    package var unixMilliseconds: Int64

    /// Readings of both, taken together.
    package init(monotonicNanoseconds: UInt64, unixMilliseconds: Int64) {
        self.monotonicNanoseconds = monotonicNanoseconds
        self.unixMilliseconds = unixMilliseconds
    }
}

/// A consumer of a stream that comes through a broker, which has a partition for each slot: notices what is missing,
/// has it repaired by the source or gives the slot up, and knows from heartbeats when the stream was last complete
/// (docs/contract.md, 13 to 15). Pure: records and time come in, actions go out.
///
/// Partitions are not ordered among each other, so each slot has its own place, epoch and heartbeat. A broker's offsets
/// say nothing here: what is contiguous is the numbers in the records.
package struct BrokerFollower: Sendable {
    /// What is known of a slot.
    private struct Slot {
        /// The numbering of its place, and what tells that from others; nil before its first record.
        var numbering: Numbering?
        var code: UInt64 = 0
        /// Whether a heartbeat of the home that counts has named that numbering.
        var isOfHome = false
        /// The last number that was received without a gap.
        var last: Int64 = 0
        /// The last number that acted, also beyond a gap.
        var acted: Int64 = 0
        /// The last number that is known of.
        var known: Int64 = 0
        /// Since when it waits for missing records; 0 when it does not.
        var missingSince: UInt64 = 0
        /// The number that its last heartbeat covers, and what that proves once everything up to it is there.
        var heartbeat: (sequence: Int64, proof: UInt64) = (0, 0)
        /// When it was last known to be complete, in monotonic nanoseconds; 0 before the first time.
        var proven: UInt64 = 0
    }

    private struct Numbering: Equatable {
        var source: String
        var epoch: Int64
    }

    private let configuration: InvalidationConfiguration
    private let guards: StreamGuards
    /// By how much the clocks of two machines may differ, in nanoseconds.
    private let skewNanoseconds: UInt64
    private var slots = [Slot](repeating: Slot(), count: StreamSlots.count)
    /// Slots that wait for missing records.
    package private(set) var missing: UInt64 = 0
    /// Whose heartbeats count.
    private var home: BrokerHome
    /// The last promotion of which it was said that something may be lost.
    private var doubted: HomeTerm?
    /// The greatest epoch of the source that was met last.
    private var newest: Numbering?
    /// The numbering whose code was made last, and that.
    private var coded: (numbering: Numbering, code: UInt64)?
    /// When the stream was last known to be complete, in monotonic nanoseconds; nil before the first time.
    package private(set) var provenNanoseconds: UInt64?
    /// Until when heartbeats prove nothing, because one came from the future.
    private var doubtUntil: UInt64 = 0
    /// By how much a heartbeat came from the future at most, in milliseconds.
    package private(set) var aheadMilliseconds: Int64 = 0
    /// Heartbeats from further in the future than clocks may differ.
    package private(set) var skewed: UInt64 = 0
    /// What happened so far.
    package private(set) var statistics = FollowerStatistics()

    /// A follower that has seen nothing.
    package init(
        _ configuration: InvalidationConfiguration, skewNanoseconds: UInt64, home: BrokerHome = .fixed,
        guards: StreamGuards = .all
    ) {
        self.home = home
        self.configuration = configuration
        self.skewNanoseconds = skewNanoseconds
        self.guards = guards
    }

    /// Whether heartbeats prove nothing at `now`, because the source's clock is further ahead than it may be.
    package func doubtsClock(at now: UInt64) -> Bool { now < doubtUntil }

    /// Records that the source has committed and that were not received, as far as is known.
    package var backlog: Int64 {
        slots.reduce(0) { sum, slot in
            let (total, isOverflow) = sum.addingReportingOverflow(max(0, slot.known - slot.last))
            return isOverflow ? .max : total
        }
    }

    /// Whether a slot's first message has come. If not, and the broker let it go, the slot is to be joined anew: the
    /// next one would not show what is missing before it.
    package func isPlaced(_ slot: Int) -> Bool { slots[slot].numbering != nil }

    /// Where a slot is, which shows all that acted; nil before its first message, and where a record has acted beyond a
    /// gap.
    package func place(_ slot: Int) -> StreamPlace? {
        guard slots[slot].numbering != nil, slots[slot].acted <= slots[slot].last else { return nil }
        return StreamPlace(numbering: slots[slot].code, sequence: slots[slot].last)
    }

    /// Whose records of a slot are followed; nil before the first.
    package func source(slot: Int) -> String? { slots[slot].numbering?.source ?? newest?.source }

    private mutating func code(_ numbering: Numbering) -> UInt64 {
        if let coded, coded.numbering == numbering { return coded.code }
        let code = StreamPlace(source: numbering.source, epoch: numbering.epoch, sequence: 0).numbering
        coded = (numbering, code)
        return code
    }

    /// The epoch of a slot, and the last number there up to which everything was received; nil before its first
    /// message.
    package func reached(_ slot: Int) -> (epoch: Int64, sequence: Int64)? {
        slots[slot].numbering.map { ($0.epoch, slots[slot].last) }
    }

    // MARK: Places

    /// It is known where the partitions of a mask go on: behind what was written to them before this call, the last of
    /// which is met first. What was cached of their slots before may be older than that.
    package mutating func joined(_ mask: UInt64, into actions: inout [FollowerAction]) {
        for slot in 0..<StreamSlots.count where mask & StreamSlots.mask(slot) != 0 {
            noteRepaired(slot, isRepaired: false)
            slots[slot] = Slot()
        }
        quarantine(mask, into: &actions)
    }

    /// What the source is to be asked for: the numbering of the first slot that waits, where the slots of that
    /// numbering that wait go on, and the end of all others. Nil when none waits.
    package var wanted: StreamPosition? {
        guard missing != 0, let numbering = slots[missing.trailingZeroBitCount].numbering else { return nil }
        let sequences = (0..<StreamSlots.count).map { slot in
            missing & StreamSlots.mask(slot) != 0 && slots[slot].numbering == numbering
                ? slots[slot].last : OutboxRecord.sequenceMax
        }
        return StreamPosition(source: numbering.source, epoch: numbering.epoch, sequences: sequences)
    }

    // MARK: Homes

    /// Another home counts. What comes is passed over from here on, slot by slot, until a heartbeat of that one says
    /// what its numbers mean: what is missing by then is noticed as ever.
    package mutating func turn(to home: BrokerHome) {
        guard home != self.home else { return }
        self.home = home
        for slot in 0..<StreamSlots.count {
            noteRepaired(slot, isRepaired: false)
            (slots[slot].isOfHome, slots[slot].heartbeat) = (false, (0, 0))
        }
    }

    /// Whether a record is of the home that counts; a heartbeat may have the slot go on in another numbering.
    private mutating func isOfHome(
        _ record: OutboxRecord, _ own: Numbering, _ slot: Int, into actions: inout [FollowerAction]
    ) -> Bool {
        guard case .term(let term) = home else { return home == .fixed }
        guard record.operation == .heartbeat else { return slots[slot].isOfHome && slots[slot].numbering == own }
        guard let said = HeartbeatHome(record), said.term == term else { return false }
        if let current = slots[slot].numbering {
            if current.source == own.source, own.epoch < current.epoch { return false }
            if current != own, current.source == own.source, said.previous == current.epoch {
                succeed(slot, own, said, into: &actions)
            } else if current != own {
                begin(slot, own, record, into: &actions)
            }
        } else {
            place(slot, own, record)
            // What came before it was passed over, or was never there.
            quarantine(StreamSlots.mask(slot), into: &actions)
        }
        slots[slot].isOfHome = true
        return true
    }

    /// Goes on in the numbering of another home: see ``StreamFollower``. Of a slot of which more came than that has,
    /// the numbers stand for other records.
    private mutating func succeed(
        _ slot: Int, _ own: Numbering, _ said: HeartbeatHome, into actions: inout [FollowerAction]
    ) {
        if newest != own {
            newest = own
            statistics.epochs += 1
        }
        let isBeyond = slots[slot].known > said.included
        (slots[slot].numbering, slots[slot].code) = (own, code(own))
        slots[slot].last = min(slots[slot].last, said.included)
        // What acted beyond a gap, and was taken over, has the same number there.
        slots[slot].acted = min(slots[slot].acted, said.included)
        slots[slot].known = slots[slot].last
        guard guards.contains(.successions) else { return }
        if isBeyond { quarantine(StreamSlots.mask(slot), into: &actions) }
        if !said.isWhole, doubted != said.term {
            doubted = said.term
            actions.append(.doubt(since: provenNanoseconds))
        }
    }

    // MARK: Records

    /// A record came, of the partition of its slot.
    package mutating func received(
        _ record: OutboxRecord, at time: BrokerTime, into actions: inout [FollowerAction]
    ) {
        let slot = Int(record.slot)
        guard slot >= 0, slot < StreamSlots.count else { return }
        let own = Numbering(source: record.source, epoch: record.epoch)
        guard isOfHome(record, own, slot, into: &actions) else {
            statistics.fenced += 1
            return
        }
        if let current = slots[slot].numbering {
            if current != own {
                guard begins(own, record.operation, after: current) else {
                    statistics.fenced += 1
                    return
                }
                begin(slot, own, record, into: &actions)
            }
        } else {
            place(slot, own, record)
            // Nobody knows what came before it since the slot was joined, and was lost or never there: what was cached
            // since may be older than that.
            quarantine(StreamSlots.mask(slot), into: &actions)
        }
        switch record.operation {
        case .heartbeat: heartbeat(slot, record, at: time, into: &actions)
        case .epoch: break
        case .set, .delete, .touch, .flush: change(slot, record, at: time, into: &actions)
        }
    }

    /// Whether a record begins another numbering, rather than coming from one that is over.
    private func begins(_ own: Numbering, _ operation: OutboxRecord.Operation, after current: Numbering) -> Bool {
        guard guards.contains(.epochs) else { return true }
        // Another source takes over by saying so: the records of two that both go on would undo each other.
        return own.source == current.source ? own.epoch > current.epoch : operation == .epoch
    }

    private mutating func begin(
        _ slot: Int, _ own: Numbering, _ record: OutboxRecord, into actions: inout [FollowerAction]
    ) {
        if newest != own {
            newest = own
            statistics.epochs += 1
        }
        noteRepaired(slot, isRepaired: false)
        slots[slot] = Slot()
        place(slot, own, record)
        if guards.contains(.epochs) { quarantine(StreamSlots.mask(slot), into: &actions) }
    }

    /// The first record of a slot: what comes before it was there before the slot was joined.
    private mutating func place(_ slot: Int, _ own: Numbering, _ record: OutboxRecord) {
        if newest == nil { newest = own }
        (slots[slot].numbering, slots[slot].code) = (own, code(own))
        let isChange = ![.heartbeat, .epoch].contains(record.operation)
        slots[slot].last = isChange ? max(0, record.firstSequence - 1) : record.sequence
        slots[slot].known = slots[slot].last
    }

    private mutating func change(
        _ slot: Int, _ record: OutboxRecord, at time: BrokerTime, into actions: inout [FollowerAction]
    ) {
        guard record.firstSequence > 0 else { return }
        slots[slot].known = max(slots[slot].known, record.sequence)
        let last = slots[slot].last
        guard record.sequence > last else {
            statistics.duplicates += 1
            return
        }
        statistics.records += 1
        // Also one behind a gap: that does no harm, and it comes again with those before it.
        actions.append(.apply(record))
        slots[slot].acted = max(slots[slot].acted, record.sequence)
        if record.firstSequence > last + 1, guards.contains(.contiguity) {
            noteMissing(slot, at: time.monotonicNanoseconds, into: &actions)
        } else {
            slots[slot].last = record.sequence
            noteRepaired(slot)
            settle(slot, into: &actions)
        }
    }

    /// The source had committed no more than `record.sequence` of the slot at the time that the record tells.
    private mutating func heartbeat(
        _ slot: Int, _ record: OutboxRecord, at time: BrokerTime, into actions: inout [FollowerAction]
    ) {
        if guards.contains(.tails), record.sequence > slots[slot].last {
            slots[slot].known = max(slots[slot].known, record.sequence)
            noteMissing(slot, at: time.monotonicNanoseconds, into: &actions)
        }
        let (difference, isOverflow) = time.unixMilliseconds.subtractingReportingOverflow(record.timeMilliseconds)
        let age = isOverflow ? Int64.max : difference
        if age < 0 { aheadMilliseconds = max(aheadMilliseconds, age == .min ? .max : -age) }
        if age < -Int64(clamping: skewNanoseconds / 1_000_000) {
            // Its clock is ahead, and those that came late only look as if it were not: they prove nothing either.
            skewed += 1
            doubtUntil = time.monotonicNanoseconds &+ configuration.lagBoundNanoseconds
        }
        guard !doubtsClock(at: time.monotonicNanoseconds) else { return }
        let late = UInt64(min(max(0, age), Int64.max / 1_000_000)) * 1_000_000
        let (back, isLong) = late.addingReportingOverflow(guards.contains(.proofs) ? skewNanoseconds : 0)
        let now = time.monotonicNanoseconds
        let proof = isLong || back >= now ? 0 : now - back
        slots[slot].heartbeat = (record.sequence, max(proof, guards.contains(.proofs) ? proof : now))
        settle(slot, into: &actions)
    }

    /// What the slot's last heartbeat says holds once everything that it covers is there.
    private mutating func settle(_ slot: Int, into actions: inout [FollowerAction]) {
        let (sequence, proof) = slots[slot].heartbeat
        guard proof > slots[slot].proven, slots[slot].last >= sequence || !guards.contains(.tails) else { return }
        slots[slot].proven = proof
        var oldest = UInt64.max
        for slot in slots { oldest = min(oldest, slot.proven) }
        guard oldest > 0, oldest > provenNanoseconds ?? 0 else { return }
        provenNanoseconds = oldest
        actions.append(.proved(oldest))
    }

    // MARK: Repair

    /// What the source itself sent of a slot that waits; of others it is not asked for.
    package mutating func repaired(
        _ record: OutboxRecord, at time: BrokerTime, into actions: inout [FollowerAction]
    ) {
        let slot = Int(record.slot)
        guard slot >= 0, slot < StreamSlots.count, missing & StreamSlots.mask(slot) != 0,
            slots[slot].numbering == Numbering(source: record.source, epoch: record.epoch),
            ![.heartbeat, .epoch].contains(record.operation)
        else { return }
        change(slot, record, at: time, into: &actions)
    }

    /// The source goes on behind `base`, where it was asked for what follows `asked`.
    package mutating func repairBegan(
        _ base: StreamPosition, asked: StreamPosition, into actions: inout [FollowerAction]
    ) {
        var over: UInt64 = 0
        for slot in 0..<StreamSlots.count where missing & StreamSlots.mask(slot) != 0 {
            guard slots[slot].numbering == Numbering(source: asked.source, epoch: asked.epoch) else { continue }
            if !base.isNumbered(as: asked) {
                over |= StreamSlots.mask(slot)
            } else if base.sequences[slot] > slots[slot].last {
                lost(slot, through: base.sequences[slot], into: &actions)
            }
        }
        giveUp(over, into: &actions)
    }

    /// The source does not have the records of a slot up to `sequence` any more.
    package mutating func lost(_ slot: Int, through sequence: Int64, into actions: inout [FollowerAction]) {
        guard slot >= 0, slot < StreamSlots.count, missing & StreamSlots.mask(slot) != 0,
            sequence > slots[slot].last, sequence <= OutboxRecord.sequenceMax
        else { return }
        slots[slot].last = sequence
        slots[slot].known = max(slots[slot].known, sequence)
        if guards.contains(.trims) { quarantine(StreamSlots.mask(slot), into: &actions) }
        if slots[slot].last >= slots[slot].known { noteRepaired(slot, isRepaired: false) }
        settle(slot, into: &actions)
    }

    // MARK: Operators

    /// What is missing is asked for again: it has its time anew.
    package mutating func repair(at now: UInt64) {
        for slot in 0..<StreamSlots.count where slots[slot].missingSince != 0 { slots[slot].missingSince = max(now, 1) }
    }

    /// Gives the slots of `mask` up, and goes on behind what is known to be committed.
    package mutating func skip(_ mask: UInt64, into actions: inout [FollowerAction]) { giveUp(mask, into: &actions) }

    /// A record of before is read again: a copy that is older goes, and nothing takes its place. The value may be of a
    /// row that was changed since, by a record that has come already. What emptied caches gives its slot up: those of
    /// the other slots need not come.
    package mutating func replayed(_ record: OutboxRecord, into actions: inout [FollowerAction]) {
        let slot = Int(record.slot)
        guard slot >= 0, slot < StreamSlots.count, record.sequence <= slots[slot].last,
            slots[slot].numbering == Numbering(source: record.source, epoch: record.epoch),
            ![.heartbeat, .epoch].contains(record.operation)
        else { return }
        if record.operation == .flush { return quarantine(StreamSlots.mask(slot), into: &actions) }
        var again = record
        (again.value, again.clientFlags) = (nil, nil)
        actions.append(.apply(again))
    }

    // MARK: Time

    /// Gives up gaps that are not repaired in time. To be called ten times a second or more often.
    package mutating func tick(at now: UInt64, into actions: inout [FollowerAction]) {
        guard missing != 0 else { return }
        var late: UInt64 = 0
        for slot in 0..<StreamSlots.count
        where slots[slot].missingSince != 0 && now &- slots[slot].missingSince >= configuration.repairNanoseconds {
            late |= StreamSlots.mask(slot)
        }
        giveUp(late, into: &actions)
    }

    /// What is missing of the slots of a mask does not come any more.
    private mutating func giveUp(_ mask: UInt64, into actions: inout [FollowerAction]) {
        guard mask != 0 else { return }
        for slot in 0..<StreamSlots.count where mask & StreamSlots.mask(slot) != 0 {
            slots[slot].last = slots[slot].known
            noteRepaired(slot, isRepaired: false)
        }
        // Before any of the slots is proven complete again.
        if guards.contains(.repairs) { quarantine(mask, into: &actions) }
        for slot in 0..<StreamSlots.count where mask & StreamSlots.mask(slot) != 0 { settle(slot, into: &actions) }
    }

    private mutating func noteMissing(_ slot: Int, at now: UInt64, into actions: inout [FollowerAction]) {
        guard slots[slot].missingSince == 0 else { return }
        slots[slot].missingSince = max(now, 1)
        missing |= StreamSlots.mask(slot)
        statistics.gaps += 1
        actions.append(.seek(slot: slot, after: slots[slot].last))
    }

    /// Everything that is known of the slot was received, or is given up.
    private mutating func noteRepaired(_ slot: Int, isRepaired: Bool = true) {
        guard slots[slot].missingSince != 0 else { return }
        if isRepaired, slots[slot].last < slots[slot].known { return }
        slots[slot].missingSince = 0
        missing &= ~StreamSlots.mask(slot)
        if isRepaired { statistics.repairs += 1 }
    }

    private mutating func quarantine(_ mask: UInt64, into actions: inout [FollowerAction]) {
        statistics.quarantines += UInt64(mask.nonzeroBitCount)
        actions.append(.quarantine(mask))
    }
}
