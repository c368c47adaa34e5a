// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Platform
internal import Storage
internal import Synchronization
internal import Telemetry

/// Follows a topic, on a thread of its own. Safe to use from any thread.
final class KafkaFollower: Sendable {
    let configuration: StreamKafkaConfiguration
    let consumer: any StreamConsumer
    /// Who asks the source for what brokers do not have; nil where nobody can.
    let repairer: (any StreamRepairer)?
    let log: Log?
    let figures = Guarded(KafkaFigures.Follower())
    /// Whose heartbeats count, and how often that was said.
    private let home: Guarded<BrokerHome>
    private let turns = Atomic<UInt64>(1)
    /// What operators ask for.
    let orders = Guarded(StreamOrders())
    private let isStopping = Atomic<Bool>(false)
    private let thread = Guarded<Thread?>(nil)

    init(
        _ configuration: StreamKafkaConfiguration, consumer: any StreamConsumer, repairer: (any StreamRepairer)?,
        home: BrokerHome, log: Log?
    ) {
        self.home = Guarded(home)
        self.configuration = configuration
        self.consumer = consumer
        self.repairer = repairer
        self.log = log
    }

    /// Another home counts, before the next message does. Does not block.
    func turn(to home: BrokerHome) {
        self.home.withLock { $0 = home }
        turns.wrappingAdd(1, ordering: .acquiringAndReleasing)
    }

    /// How often it was said which home counts, and which one that is where it was not `seen` yet.
    func turned(since seen: UInt64) -> (home: BrokerHome, turns: UInt64)? {
        let turns = turns.load(ordering: .acquiring)
        return turns == seen ? nil : (home.withLock { $0 }, turns)
    }

    func start() throws(SystemError) {
        let thread = try Thread(name: "kafka-follow") { [self] in
            let inlet = KafkaInlet(self)
            while !isStopping.load(ordering: .acquiring) { inlet.step() }
        }
        self.thread.withLock { $0 = thread }
    }

    /// Ends the thread. Blocks, for about a second at most where brokers are away.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        thread.exchange(nil)?.join()
    }
}

/// The work of a ``KafkaFollower``, on its thread. Where it is, it keeps itself, in memory as the copies are: the
/// brokers' committed offsets are never used.
final class KafkaInlet {
    private let owner: KafkaFollower
    private var handle: KafkaHandle?
    private var core: BrokerFollower
    /// By partition, the next message; nil before the topic was joined.
    private var next: [Int64]?
    /// Partitions whose next message the brokers do not have.
    private var outOfRange: UInt64 = 0
    private var isAssigned = false
    private var retryAt: UInt64 = 0
    private var failures = 0
    /// What the source was asked for; nil when it was not.
    private var asked: StreamPosition?
    /// Slots whose records it was asked for.
    private var askedSlots: UInt64 = 0
    private var counts = KafkaFigures.Follower()
    private let replay: KafkaReplay
    private var nextNote: UInt64 = 0
    private var lastMessage: UInt64 = 0
    private var failure = "not connected yet"
    private var loggedReason = ""
    /// How often it was said which home counts.
    private var turns: UInt64 = 0
    /// What is told of messages that cannot be read.
    private var damage = DamageNotice()

    init(_ owner: KafkaFollower) {
        self.owner = owner
        core = BrokerFollower(owner.configuration.stream, skewNanoseconds: owner.configuration.skewNanoseconds)
        replay = KafkaReplay(owner.configuration, log: owner.log)
    }

    private var configuration: StreamKafkaConfiguration { owner.configuration }

    /// Both clocks.
    private static var time: BrokerTime {
        BrokerTime(
            monotonicNanoseconds: Clock.bootNanoseconds(),
            unixMilliseconds: Int64(clamping: Clock.realtimeNanoseconds() / 1_000_000))
    }

    /// Does what there is to do; waits a little for more.
    func step() {
        let now = Clock.monotonicNanoseconds()
        defer { note(now) }
        turn()
        obey()
        if !isAssigned || outOfRange != 0 {
            if now < retryAt { return Thread.sleep(microseconds: 10_000) }
            prepare(now)
        } else {
            take(now)
            readAgain(now)
        }
        takeRepaired()
        perform { core, actions in core.tick(at: Clock.bootNanoseconds(), into: &actions) }
        askForRepair()
    }

    /// Hears which home counts.
    private func turn() {
        guard let (home, turns) = owner.turned(since: turns) else { return }
        let isFirst = self.turns == 0
        self.turns = turns
        perform { core, _ in core.turn(to: home) }
        // What the home before was asked for says nothing in the numbering of another one.
        if !isFirst { owner.repairer?.repair(nil) }
        (asked, askedSlots) = (nil, 0)
    }

    // MARK: Places

    /// Makes the handle, finds out where the partitions go on, and takes their messages from there.
    private func prepare(_ now: UInt64) {
        do throws(KafkaFailure) {
            if handle == nil || handle?.fatal != nil {
                handle = nil
                handle = try KafkaHandle(
                    .consumer, settings: configuration.settings(.consumer), topic: configuration.topic, log: owner.log)
            }
            guard let handle else { return }
            let limit = configuration.questionMilliseconds
            let count = try handle.partitionCount(milliseconds: limit)
            guard count >= StreamSlots.count else {
                return fail(
                    "the topic \(configuration.topic) has \(count) partitions; \(StreamSlots.count) are needed", now)
            }
            if next == nil || outOfRange != 0 {
                let starts = try handle.offsets(ofEnds: false, partitions: StreamSlots.count, milliseconds: limit)
                let ends = try handle.offsets(ofEnds: true, partitions: StreamSlots.count, milliseconds: limit)
                move(starts, ends)
            }
            try handle.assign(next ?? [])
            isAssigned = true
            failures = 0
        } catch { fail("the brokers: \(error.reason)", now) }
    }

    /// Decides where partitions go on that are new, or whose next message the brokers do not have.
    private func move(_ starts: [Int64], _ ends: [Int64]) {
        var places = next ?? ends
        var anew = next == nil ? StreamSlots.all : 0
        for slot in 0..<StreamSlots.count {
            guard outOfRange & StreamSlots.mask(slot) != 0, next != nil else { continue }
            if places[slot] < starts[slot] { counts.overruns += 1 }
            if places[slot] < starts[slot], core.isPlaced(slot) {
                // Let go before they were read: the numbers of those that are there show what is missing.
                places[slot] = starts[slot]
            } else if places[slot] < starts[slot] || places[slot] > ends[slot] {
                // Not even its first message came; or brokers have lost some that came, or the topic was made anew.
                anew |= StreamSlots.mask(slot)
            }
        }
        for slot in 0..<StreamSlots.count where anew & StreamSlots.mask(slot) != 0 {
            // The last message before tells where the slot is.
            places[slot] = max(starts[slot], ends[slot] - 1)
        }
        if next != nil {
            counts.rejoins += UInt64(anew.nonzeroBitCount)
            owner.log?.warning(
                "kafka: messages that come next are gone",
                ["partitions": .count(outOfRange.nonzeroBitCount), "joined_anew": .count(anew.nonzeroBitCount)])
        } else {
            owner.log?.info("kafka: following", ["topic": .text(configuration.topic)])
        }
        (next, outOfRange) = (places, 0)
        // Behind the look at the ends, and before anything is taken: see BrokerFollower.
        if anew != 0 { perform { core, actions in core.joined(anew, into: &actions) } }
    }

    private func fail(_ reason: String, _ now: UInt64) {
        isAssigned = false
        failure = reason
        let wait = min(
            configuration.firstRetryNanoseconds << UInt64(min(failures, 10)), configuration.lastRetryNanoseconds)
        failures += 1
        retryAt = now &+ wait
        if reason != loggedReason {
            loggedReason = reason
            owner.log?.warning("kafka: nothing comes", ["reason": .text(reason)])
        }
    }

    // MARK: Messages

    private func take(_ now: UInt64) {
        guard let handle else { return isAssigned = false }
        var patience: Int32 = asked == nil && !replay.isActive ? 20 : 5
        for _ in 0..<configuration.turnMessages {
            guard let event = handle.receive(milliseconds: patience) else { return }
            patience = 0
            switch event {
            case .message(let message): take(message, now)
            case .failure(let problem, let partition):
                if KafkaHandle.isOutOfRange(problem.code), let partition, partition < StreamSlots.count {
                    outOfRange |= StreamSlots.mask(partition)
                    return
                }
                if handle.fatal != nil { return fail("the library: \(problem.reason)", now) }
                failure = problem.reason
            }
        }
    }

    private func take(_ message: KafkaMessage, _ now: UInt64) {
        guard message.partition >= 0, message.partition < StreamSlots.count else { return }
        // A message that the library had ready before it was told to go on elsewhere.
        guard let place = next?[message.partition], message.offset >= place else { return }
        next?[message.partition] = message.offset + 1
        counts.messages += 1
        (lastMessage, failure, loggedReason) = (now, "", "")
        guard let value = message.value, var record = KafkaFrame.record(value),
            Int(record.slot) == message.partition
        else { return damaged(message) }
        if !configuration.carriesValues { (record.value, record.clientFlags) = (nil, nil) }
        turn()
        let time = Self.time
        perform(slot: message.partition) { core, actions in core.received(record, at: time, into: &actions) }
    }

    /// Its place in the stream is not known: the next of its slot, or a heartbeat, shows the gap.
    private func damaged(_ message: KafkaMessage) {
        counts.damaged += 1
        let fault = KafkaFrame.fault(message.value, partition: message.partition)
        guard let count = damage.note(fault, at: Clock.monotonicNanoseconds()) else { return }
        let schema = message.value.flatMap(KafkaFrame.schema)
        owner.log?.error(
            "kafka: a message is no record that this version knows",
            [
                "partition": .count(message.partition), "offset": .integer(message.offset),
                "schema": schema.map { .count($0) } ?? "none",
                "source": .text(fault.source(followed: core.source(slot: message.partition))),
                "reason": .text(fault.reason), "count": .unsigned(count),
            ])
    }

    /// Lets the core see something, of one slot where that is known, and does what it asks for.
    private func perform(
        slot: Int? = nil, _ event: (inout BrokerFollower, inout [FollowerAction]) -> Void
    ) {
        var actions: [FollowerAction] = []
        event(&core, &actions)
        var moved = slot.map { StreamSlots.mask($0) } ?? 0
        for action in actions {
            switch action {
            case .apply(let record): moved |= StreamSlots.mask(Int(record.slot))
            case .quarantine(let mask): moved |= mask
            default: break
            }
        }
        for slot in StreamSlots.each(moved) {
            owner.consumer.reaching(core.place(slot), slot: slot)
        }
        for action in actions {
            switch action {
            case .apply(let record): owner.consumer.apply(record)
            case .quarantine(let mask):
                owner.log?.warning("stream: slots are quarantined", ["count": .of(mask.nonzeroBitCount)])
                owner.consumer.quarantine(mask)
            case .doubt(let since): owner.consumer.doubt(since: since)
            case .proved(let time): owner.consumer.proved(time)
            // What is missing is asked for below, for all slots together.
            case .seek, .grant, .probe, .disconnect: break
            }
        }
    }

    // MARK: Repair

    /// Asks the source for what is missing; for nothing any more once nothing is.
    private func askForRepair() {
        guard let repairer = owner.repairer else { return }
        guard let wanted = core.wanted else {
            if asked != nil {
                repairer.repair(nil)
                (asked, askedSlots) = (nil, 0)
            }
            return
        }
        // Slots that were missing before are on their way.
        guard asked == nil || core.missing & ~askedSlots != 0 else { return }
        (asked, askedSlots) = (wanted, core.missing)
        counts.fetches += 1
        repairer.repair(wanted)
    }

    private func takeRepaired() {
        guard let repairer = owner.repairer, let asked else { return }
        let (items, time) = (repairer.takeRepaired(), Self.time)
        for item in items {
            switch item {
            case .began(let base):
                perform { core, actions in core.repairBegan(base, asked: asked, into: &actions) }
            case .record(var record):
                if !configuration.carriesValues { (record.value, record.clientFlags) = (nil, nil) }
                perform { core, actions in core.repaired(record, at: time, into: &actions) }
            case .lost(let slot, let through):
                perform { core, actions in core.lost(slot, through: through, into: &actions) }
            case .failed: break
            }
        }
    }

    // MARK: Operators

    /// Does what operators asked for.
    private func obey() {
        for order in owner.orders.withLock({ $0.take(all: true) }) {
            switch order {
            case .skip(let mask): perform { core, actions in core.skip(mask, into: &actions) }
            case .replay(let mask): replay.want(mask)
            case .repair:
                core.repair(at: Clock.bootNanoseconds())
                if core.wanted != nil { (asked, askedSlots) = (nil, 0) }
            }
        }
    }

    private func readAgain(_ now: UInt64) {
        replay.step(now) { record in
            counts.replayed += 1
            perform { core, actions in core.replayed(record, into: &actions) }
        }
    }

    // MARK: Figures

    private func note(_ now: UInt64) {
        guard now >= nextNote else { return }
        nextNote = now &+ 50_000_000
        // A heartbeat comes each second in each of 64 partitions.
        counts.isConnected = lastMessage != 0 && now < lastMessage &+ 3_000_000_000
        (counts.counts, counts.backlog) = (core.statistics, core.backlog)
        counts.missingSlots = core.missing.nonzeroBitCount
        (counts.aheadMilliseconds, counts.skewed) = (core.aheadMilliseconds, core.skewed)
        counts.behind = 0
        if let next, let handle {
            for slot in 0..<StreamSlots.count {
                if let end = handle.knownEnd(partition: slot) { counts.behind += max(0, end - next[slot]) }
            }
        }
        counts.reason = reason
        owner.repairer?.reached((0..<StreamSlots.count).map(core.reached))
        let counts = counts
        owner.figures.withLock { $0 = counts }
    }

    private var reason: String {
        if core.doubtsClock(at: Clock.bootNanoseconds()) {
            return "the source's clock is ahead of this node's by \(core.aheadMilliseconds) ms; stream.kafka.clockSkew "
                + "allows \(configuration.skewNanoseconds / 1_000_000) ms"
        }
        if counts.isConnected { return damage.reason(at: Clock.monotonicNanoseconds()) }
        if !failure.isEmpty { return failure }
        let reported = handle?.reports.reason ?? ""
        return reported.isEmpty ? "no heartbeats come" : reported
    }
}
