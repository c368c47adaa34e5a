// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import SimulationKit
import Storage

extension SimulationRandom {
    /// Numbers of which those of seeds that follow each other have nothing in common.
    init(apart seed: UInt64) {
        var own = SimulationRandom(seed: seed)
        self.init(seed: own.next() ^ (seed << 32))
    }

    mutating func isOne(in chance: Int) -> Bool { below(chance) == 0 }
}

/// A home region, a broker, and a region that follows through it, in virtual time: some keys in each of some slots. A
/// copy that is shown may not be older than what was committed a bound ago.
struct BrokerWorld {
    /// Slots with keys.
    static let slots = 6
    static let keysPerSlot = 3
    static let step: UInt64 = 20_000_000

    private let guards: StreamGuards
    private var chance: SimulationRandom
    private let configuration: InvalidationConfiguration
    private let skewMilliseconds: Int64
    private var now: UInt64 = 50_000_000_000

    // Home: by slot, when each number was committed, and of which key; the epoch began behind `base` of them.
    private var epoch: Int64 = 1
    private var commits = [[(time: UInt64, key: Int)]](repeating: [], count: StreamSlots.count)
    private var base = [Int](repeating: 0, count: StreamSlots.count)
    private var kept = [Int64](repeating: 0, count: StreamSlots.count)

    // The broker: by slot, messages, and how many of them were let go.
    private var partitions = [[OutboxRecord]](repeating: [], count: StreamSlots.count)
    private var starts = [Int](repeating: 0, count: StreamSlots.count)
    private var stamps = [[UInt64]](repeating: [], count: StreamSlots.count)
    private var isBrokerDown = false
    /// How long messages are under way.
    private var delay: UInt64 = 0

    // The publisher: what it sent, and a heartbeat that waits.
    private var sent = [Int64](repeating: 0, count: StreamSlots.count)
    private var nextBeat: UInt64 = 0
    private var publishesAgain: UInt64 = 0

    // The follower.
    private var core: BrokerFollower
    private var trust: StreamTrust
    private var next: [Int]?
    /// By slot and key, how many commits the copy has seen.
    private var copies = [[Int?]](
        repeating: [Int?](repeating: nil, count: BrokerWorld.keysPerSlot), count: BrokerWorld.slots)
    private var sweep: (StreamSweep, at: UInt64)?
    private var isPausedUntil: UInt64 = 0
    private var asked: (position: StreamPosition, at: UInt64)?

    /// What happened, so that a run in which nothing did is noticed.
    private(set) var shown = 0
    private(set) var events: [String: Int] = [:]
    /// The first copy that was shown and is too old.
    private(set) var violation: String?

    init(seed: UInt64, guards: StreamGuards = .all) {
        self.guards = guards
        chance = SimulationRandom(apart: seed)
        var configuration = InvalidationConfiguration()
        configuration.lagBoundNanoseconds = 3_000_000_000
        self.configuration = configuration
        // Either may be ahead, by as much as is allowed.
        skewMilliseconds = Int64(chance.below(501)) - 250
        core = BrokerFollower(configuration, skewNanoseconds: 250_000_000, guards: guards)
        trust = StreamTrust(configuration, guards: guards)
    }

    mutating func run(steps: Int) {
        for _ in 0..<steps where violation == nil {
            now += Self.step
            commit()
            trouble()
            publish()
            if now >= isPausedUntil { follow() }
            read()
        }
    }

    private mutating func note(_ event: String) { events[event, default: 0] += 1 }

    // MARK: Home

    private mutating func commit() {
        // Some slots have many changes, others few.
        for slot in 0..<Self.slots where chance.isOne(in: 10 << slot) {
            commits[slot].append((now, chance.below(Self.keysPerSlot)))
        }
    }

    private mutating func record(_ slot: Int, _ sequence: Int64, _ operation: OutboxRecord.Operation) -> OutboxRecord {
        var record = OutboxRecord()
        record.operation = operation
        (record.source, record.epoch, record.slot) = ("s", epoch, Int32(slot))
        (record.firstSequence, record.sequence) = (sequence, sequence)
        let number = base[slot] + Int(sequence)
        record.version = UInt64(number)
        if operation == .set { record.key = [UInt8(commits[slot][number - 1].key)] }
        record.timeMilliseconds = Int64(now / 1_000_000) + skewMilliseconds
        return record
    }

    private func last(_ slot: Int) -> Int64 { Int64(commits[slot].count - base[slot]) }

    // MARK: What goes wrong

    private mutating func trouble() {
        if chance.isOne(in: isBrokerDown ? 60 : 300) {
            isBrokerDown.toggle()
            note("broker")
        }
        if chance.isOne(in: 200) {
            // Another publisher, or the same again: behind what is in the topic, or further back.
            for slot in 0..<StreamSlots.count {
                let there = partitions[slot].last { $0.epoch == epoch }?.sequence ?? kept[slot]
                sent[slot] = max(kept[slot], there - Int64(chance.below(4)))
            }
            note("publisher")
        }
        if chance.isOne(in: 100) { delay = chance.isOne(in: 2) ? 0 : UInt64(chance.below(2500)) * 1_000_000 }
        if chance.isOne(in: 300) {
            isPausedUntil = now + UInt64(chance.below(6000)) * 1_000_000
            note("pause")
        }
        if chance.isOne(in: 250) {
            for slot in 0..<StreamSlots.count { starts[slot] = partitions[slot].count - chance.below(3) }
            for slot in 0..<StreamSlots.count { starts[slot] = max(0, starts[slot]) }
            note("retention")
        }
        if chance.isOne(in: 400) {
            // What is not published yet is let go at home.
            for slot in 0..<StreamSlots.count where chance.isOne(in: 2) { kept[slot] = last(slot) }
            note("trim")
        }
        if chance.isOne(in: 500) {
            // Brokers lose the end of some partitions.
            for slot in 0..<Self.slots where chance.isOne(in: 2) && !partitions[slot].isEmpty {
                let count = min(partitions[slot].count, 1 + chance.below(3))
                partitions[slot].removeLast(count)
                stamps[slot].removeLast(count)
                starts[slot] = min(starts[slot], partitions[slot].count)
            }
            note("loss")
        }
        if chance.isOne(in: 600) {
            // The outbox cannot go on: what was not published of it is gone.
            epoch += 1
            for slot in 0..<StreamSlots.count {
                base[slot] = commits[slot].count
                (kept[slot], sent[slot]) = (0, 0)
                append(record(slot, 0, .epoch))
            }
            note("epoch")
        }
    }

    // MARK: The publisher

    private mutating func append(_ record: OutboxRecord) {
        partitions[Int(record.slot)].append(record)
        stamps[Int(record.slot)].append(now)
    }

    private mutating func publish() {
        guard !isBrokerDown, now >= publishesAgain else { return }
        if chance.isOne(in: 80) { publishesAgain = now + UInt64(chance.below(2500)) * 1_000_000 }
        for slot in 0..<Self.slots {
            sent[slot] = max(sent[slot], kept[slot])
            while sent[slot] < last(slot) {
                sent[slot] += 1
                append(record(slot, sent[slot], .set))
            }
        }
        guard now >= nextBeat else { return }
        nextBeat = now + 1_000_000_000
        for slot in 0..<StreamSlots.count {
            append(record(slot, max(sent[slot], kept[slot]), .heartbeat))
        }
    }

    // MARK: The follower

    private var time: BrokerTime {
        BrokerTime(monotonicNanoseconds: now, unixMilliseconds: Int64(now / 1_000_000))
    }

    private mutating func perform(_ event: (inout BrokerFollower, inout [FollowerAction]) -> Void) {
        var actions: [FollowerAction] = []
        event(&core, &actions)
        for action in actions {
            switch action {
            case .apply(let record):
                let (slot, key) = (Int(record.slot), Int(record.key[0]))
                if let copy = copies[slot][key], copy < Int(record.version) { copies[slot][key] = nil }
            case .quarantine(let mask):
                trust.quarantine(mask)
                sweep = nil
            case .doubt:
                trust.quarantine(StreamSlots.all)
                sweep = nil
            case .proved(let time): trust.proved(time)
            case .seek, .grant, .probe, .disconnect: break
            }
        }
    }

    private mutating func follow() {
        let time = time
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
            if place < starts[slot] { note("overrun") }
            if place < starts[slot], core.isPlaced(slot) {
                place = starts[slot]
            } else if place < starts[slot] || place > partitions[slot].count {
                place = max(starts[slot], partitions[slot].count - 1)
                note("rejoin")
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

    /// The source answers a while after it was asked, or never.
    private mutating func repair(_ time: BrokerTime) {
        guard let wanted = core.wanted else { return asked = nil }
        guard let (position, at) = asked else {
            asked = (wanted, now + UInt64(chance.below(3000)) * 1_000_000)
            return
        }
        guard now >= at else { return }
        asked = nil
        var start = StreamPosition(source: "s", epoch: epoch, sequences: (0..<StreamSlots.count).map { last($0) })
        if position.epoch == epoch {
            for slot in 0..<StreamSlots.count {
                start.sequences[slot] = min(max(position.sequences[slot], kept[slot]), last(slot))
            }
        }
        perform { $0.repairBegan(start, asked: position, into: &$1) }
        guard position.epoch == epoch else { return }
        note("repair")
        for slot in 0..<Self.slots where position.sequences[slot] < OutboxRecord.sequenceMax {
            for sequence in stride(from: start.sequences[slot] + 1, through: last(slot), by: 1) {
                let record = record(slot, sequence, .set)
                perform { $0.repaired(record, at: time, into: &$1) }
            }
        }
    }

    /// Sweeps take a while.
    private mutating func clean() {
        if let (work, at) = sweep {
            guard now >= at else { return }
            for slot in 0..<Self.slots where work.mask & StreamSlots.mask(slot) != 0 {
                for key in 0..<Self.keysPerSlot { copies[slot][key] = nil }
            }
            trust.swept(work)
            sweep = nil
        } else if let work = trust.sweep {
            // What is removed is what is there when it begins.
            sweep = (work, now + UInt64(chance.below(200)) * 1_000_000)
        }
    }

    // MARK: Clients

    private mutating func read() {
        for slot in 0..<Self.slots where chance.isOne(in: 3) {
            let key = chance.below(Self.keysPerSlot)
            guard let copy = copies[slot][key], trust.trusts(slot, at: now) else {
                // A fill, from home: it has what is committed by now.
                if now >= isPausedUntil, chance.isOne(in: 4) { copies[slot][key] = commits[slot].count }
                continue
            }
            shown += 1
            guard let next = commits[slot][min(copy, commits[slot].count)...].first(where: { $0.key == key }),
                next.time + configuration.lagBoundNanoseconds < now
            else { continue }
            violation = "slot \(slot) shows key \(key), \(Double(now - next.time) / 1e9) s behind its successor"
        }
    }
}
