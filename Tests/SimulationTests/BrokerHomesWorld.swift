// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import SimulationKit
import Storage

/// Regions that become home one after the other, a broker that all of them publish through, and a node of another
/// region that follows and reads at the home that it knows of, in virtual time. A home that was given up with loss
/// accepted goes on for a while.
///
/// A copy that is shown may not be older than what the home acknowledged a bound ago, nor be of what was lost, once the
/// node has known that home for a bound.
struct BrokerHomesWorld {
    static let slots = 4
    static let keysPerSlot = 3
    static let step: UInt64 = 20_000_000

    private struct Commit {
        var id: Int
        var time: UInt64
        var key: Int
    }

    private struct Home {
        var term: HomeTerm
        var epoch: Int64
        var commits = [[Commit]](repeating: [], count: StreamSlots.count)
        var succession: StreamSuccession?
        var sent = [Int64](repeating: 0, count: StreamSlots.count)
        var nextBeat: UInt64 = 0
        /// When its publisher begins; nil once it did.
        var beginsAt: UInt64?
        /// Until when it takes writes, and says so; until when it publishes.
        var openUntil = UInt64.max
        var publishesUntil = UInt64.max
    }

    private var chance: SimulationRandom
    private let configuration: InvalidationConfiguration
    private let turns: Bool
    private var now: UInt64 = 50_000_000_000
    private var homes: [Home]
    private var lastID = 0

    private var partitions = [[OutboxRecord]](repeating: [], count: StreamSlots.count)
    private var starts = [Int](repeating: 0, count: StreamSlots.count)
    private var stamps = [[UInt64]](repeating: [], count: StreamSlots.count)
    private var isBrokerDown = false
    private var delay: UInt64 = 0

    // The node: at which home it reads, since when, and when it turns.
    private var reading = 0
    private var turned: UInt64 = 0
    private var turnsAt = UInt64.max
    /// When it last turned to a home behind one that was replaced with loss accepted, and whether there is one ahead.
    private var lossTurned: UInt64 = 0
    private var isLossAhead = false
    private var core: BrokerFollower
    private var trust: StreamTrust
    private var next: [Int]?
    /// By slot and key, which commit the copy is of; 0 is none.
    private var copies = [[Int?]](
        repeating: [Int?](repeating: nil, count: BrokerHomesWorld.keysPerSlot), count: BrokerHomesWorld.slots)
    private var filled = [UInt64](repeating: 0, count: BrokerHomesWorld.slots)
    private var sweep: (StreamSweep, at: UInt64)?
    private var isPausedUntil: UInt64 = 0
    private var asked: (position: StreamPosition, at: UInt64)?

    private(set) var shown = 0
    private(set) var events: [String: Int] = [:]
    private(set) var violation: String?

    /// Without `turns` the follower is not told which home counts.
    init(seed: UInt64, guards: StreamGuards = .all, turns: Bool = true) {
        chance = SimulationRandom(apart: seed)
        self.turns = turns
        var configuration = InvalidationConfiguration()
        configuration.lagBoundNanoseconds = 3_000_000_000
        self.configuration = configuration
        homes = [Home(term: HomeTerm(epoch: 0, region: "r0"), epoch: 1)]
        let home = turns ? BrokerHome.term(homes[0].term) : .fixed
        core = BrokerFollower(configuration, skewNanoseconds: 250_000_000, home: home, guards: guards)
        trust = StreamTrust(configuration, guards: guards)
    }

    mutating func run(steps: Int) {
        for _ in 0..<steps where violation == nil {
            now += Self.step
            commit()
            trouble()
            for index in homes.indices { publish(index) }
            turn()
            if now >= isPausedUntil { follow() }
            read()
        }
    }

    private mutating func note(_ event: String) { events[event, default: 0] += 1 }
    private var current: Int { homes.count - 1 }

    // MARK: Homes

    private mutating func commit() {
        for index in homes.indices.suffix(2) where now < homes[index].openUntil {
            for slot in 0..<Self.slots where chance.isOne(in: 10 << slot) {
                lastID += 1
                homes[index].commits[slot].append(Commit(id: lastID, time: now, key: chance.below(Self.keysPerSlot)))
            }
        }
    }

    private mutating func promote() {
        let isWhole = chance.isOne(in: 2)
        var home = homes[current]
        let included = home.commits.map { Int64(isWhole ? $0.count : max(0, $0.count - chance.below(4))) }
        for slot in 0..<StreamSlots.count { home.commits[slot] = Array(home.commits[slot].prefix(Int(included[slot]))) }
        home.succession = StreamSuccession(previous: home.epoch, included: included, isWhole: isWhole)
        home.term = HomeTerm(epoch: home.term.epoch + 1, region: "r\(homes.count)")
        home.epoch += 1
        home.beginsAt = now + UInt64(chance.below(3000)) * 1_000_000
        homes[current].openUntil = isWhole ? now : now + UInt64(chance.below(8000)) * 1_000_000
        homes[current].publishesUntil = homes[current].openUntil + 1_000_000_000
        homes.append(home)
        turnsAt = now + UInt64(chance.below(2500)) * 1_000_000
        if !isWhole { isLossAhead = true }
        note(isWhole ? "moved" : "replaced")
    }

    private mutating func turn() {
        guard now >= turnsAt, reading != current else { return }
        // Before anything is read at the new home.
        if turns { perform { core, _ in core.turn(to: .none) } }
        (reading, turned, turnsAt) = (current, now, .max)
        if isLossAhead { (lossTurned, isLossAhead) = (now, false) }
        if turns {
            let term = homes[current].term
            perform { core, _ in core.turn(to: .term(term)) }
        }
    }

    private func record(
        _ home: Home, _ slot: Int, _ sequence: Int64, _ operation: OutboxRecord.Operation
    ) -> OutboxRecord {
        var record = OutboxRecord()
        record.operation = operation
        (record.source, record.epoch, record.slot, record.region) = ("s", home.epoch, Int32(slot), home.term.region)
        (record.firstSequence, record.sequence) = (sequence, sequence)
        record.timeMilliseconds = Int64(now / 1_000_000)
        if operation == .set {
            let commit = home.commits[slot][Int(sequence) - 1]
            (record.key, record.version) = ([UInt8(commit.key)], UInt64(commit.id))
        }
        if operation == .heartbeat { record.position = HeartbeatHome(home.term, home.succession, slot: slot).position }
        return record
    }

    private mutating func publish(_ index: Int) {
        guard !isBrokerDown, now < homes[index].publishesUntil else { return }
        if let begins = homes[index].beginsAt {
            guard now >= begins else { return }
            homes[index].beginsAt = nil
            place(index)
        }
        for slot in 0..<Self.slots {
            while homes[index].sent[slot] < Int64(homes[index].commits[slot].count) {
                homes[index].sent[slot] += 1
                append(record(homes[index], slot, homes[index].sent[slot], .set))
            }
        }
        guard now >= homes[index].nextBeat, now < homes[index].openUntil else { return }
        homes[index].nextBeat = now + 1_000_000_000
        for slot in 0..<StreamSlots.count {
            append(record(homes[index], slot, homes[index].sent[slot], .heartbeat))
        }
    }

    /// Where a publisher begins: behind what the topic has of its numbering, or of the one before as far as it was
    /// taken over.
    private mutating func place(_ index: Int) {
        let home = homes[index]
        for slot in 0..<StreamSlots.count {
            var sequence: Int64 = 0
            if let last = partitions[slot].last {
                if last.epoch == home.epoch { sequence = last.sequence }
                if let succession = home.succession, last.epoch == succession.previous {
                    sequence = min(last.sequence, succession.included[slot])
                }
            }
            homes[index].sent[slot] = sequence
            append(record(home, slot, sequence, .epoch))
        }
    }

    private mutating func append(_ record: OutboxRecord) {
        partitions[Int(record.slot)].append(record)
        stamps[Int(record.slot)].append(now)
    }

    // MARK: What goes wrong

    private mutating func trouble() {
        // Now and then before the node has heard of the one before.
        if chance.isOne(in: reading == current && now > turned + 3_000_000_000 ? 250 : 2000) { promote() }
        if chance.isOne(in: isBrokerDown ? 60 : 400) {
            isBrokerDown.toggle()
            note("broker")
        }
        if chance.isOne(in: 100) { delay = chance.isOne(in: 2) ? 0 : UInt64(chance.below(2500)) * 1_000_000 }
        if chance.isOne(in: 300) {
            isPausedUntil = now + UInt64(chance.below(6000)) * 1_000_000
            note("pause")
        }
        if chance.isOne(in: 250), homes[current].beginsAt == nil {
            place(current)
            note("publisher")
        }
        if chance.isOne(in: 400) {
            for slot in 0..<StreamSlots.count { starts[slot] = max(0, partitions[slot].count - chance.below(3)) }
            note("retention")
        }
    }

    // MARK: The node

    private mutating func perform(_ event: (inout BrokerFollower, inout [FollowerAction]) -> Void) {
        var actions: [FollowerAction] = []
        event(&core, &actions)
        for action in actions {
            switch action {
            case .apply(let record):
                let (slot, key) = (Int(record.slot), Int(record.key[0]))
                if let copy = copies[slot][key], copy < Int(record.version) { copies[slot][key] = nil }
            case .quarantine(let mask): quarantine(mask)
            case .doubt(let since):
                note("doubt")
                let late = (0..<Self.slots).filter { filled[$0] >= since ?? 0 }
                quarantine(late.reduce(0) { $0 | StreamSlots.mask($1) })
            case .proved(let time): trust.proved(time)
            case .seek, .grant, .probe, .disconnect: break
            }
        }
    }

    private mutating func quarantine(_ mask: UInt64) {
        trust.quarantine(mask)
        sweep = nil
    }

    private mutating func follow() {
        let time = BrokerTime(monotonicNanoseconds: now, unixMilliseconds: Int64(now / 1_000_000))
        clean()
        if !isBrokerDown { take(time) }
        repair(time)
        let now = now
        perform { $0.tick(at: now, into: &$1) }
    }

    private mutating func take(_ time: BrokerTime) {
        if next == nil {
            next = partitions.indices.map { max(starts[$0], partitions[$0].count - 1) }
            perform { $0.joined(.max, into: &$1) }
        }
        for slot in 0..<StreamSlots.count {
            guard var place = next?[slot] else { return }
            if place < starts[slot], core.isPlaced(slot) {
                place = starts[slot]
                note("overrun")
            } else if place < starts[slot] {
                place = max(starts[slot], partitions[slot].count - 1)
                perform { $0.joined(StreamSlots.mask(slot), into: &$1) }
            }
            while place < partitions[slot].count, stamps[slot][place] + delay <= now {
                let record = partitions[slot][place]
                perform { $0.received(record, at: time, into: &$1) }
                place += 1
            }
            next?[slot] = place
        }
    }

    /// The home that the node knows of answers a while after it was asked.
    private mutating func repair(_ time: BrokerTime) {
        guard let wanted = core.wanted else { return asked = nil }
        guard let (position, at) = asked else {
            asked = (wanted, now + UInt64(chance.below(3000)) * 1_000_000)
            return
        }
        guard now >= at else { return }
        asked = nil
        let home = homes[reading]
        let last = home.commits.map { Int64($0.count) }
        var start = StreamPosition(source: "s", epoch: home.epoch, sequences: last)
        if position.epoch == home.epoch {
            for slot in 0..<StreamSlots.count { start.sequences[slot] = min(position.sequences[slot], last[slot]) }
        }
        perform { $0.repairBegan(start, asked: position, into: &$1) }
        guard position.epoch == home.epoch else { return }
        note("repair")
        for slot in 0..<Self.slots where position.sequences[slot] < OutboxRecord.sequenceMax {
            for sequence in stride(from: start.sequences[slot] + 1, through: last[slot], by: 1) {
                let record = record(home, slot, sequence, .set)
                perform { $0.repaired(record, at: time, into: &$1) }
            }
        }
    }

    private mutating func clean() {
        if let (work, at) = sweep {
            guard now >= at else { return }
            for slot in 0..<Self.slots where work.mask & StreamSlots.mask(slot) != 0 {
                for key in 0..<Self.keysPerSlot { copies[slot][key] = nil }
            }
            trust.swept(work)
            sweep = nil
        } else if let work = trust.sweep {
            sweep = (work, now + UInt64(chance.below(200)) * 1_000_000)
        }
    }

    private mutating func read() {
        for slot in 0..<Self.slots where chance.isOne(in: 3) {
            let key = chance.below(Self.keysPerSlot)
            guard let copy = copies[slot][key], trust.trusts(slot, at: now) else {
                // A fill, of a home that answers: one that is fenced does not.
                guard now >= isPausedUntil, now < homes[reading].openUntil, chance.isOne(in: 4) else { continue }
                copies[slot][key] = homes[reading].commits[slot].last { $0.key == key }?.id ?? 0
                filled[slot] = now
                continue
            }
            shown += 1
            violation = complaint(slot, key, copy)
        }
    }

    private func complaint(_ slot: Int, _ key: Int, _ copy: Int) -> String? {
        // One that has not heard that home was replaced goes by that one.
        let judge = isLossAhead ? reading : current
        let bound = configuration.lagBoundNanoseconds
        let commits = homes[judge].commits[slot].filter { $0.key == key }
        let place = commits.firstIndex { $0.id == copy }
        if place == nil, copy != 0 {
            guard now > turned + bound else { return nil }
            return "slot \(slot) shows key \(key) as a home had it that is over"
        }
        // What the node was to turn to counts from then: the home before went on.
        guard let successor = commits.dropFirst(place.map { $0 + 1 } ?? 0).first,
            max(successor.time, lossTurned) + bound < now
        else { return nil }
        return "slot \(slot) shows key \(key), \(Double(now - successor.time) / 1e9) s behind its successor"
    }
}
