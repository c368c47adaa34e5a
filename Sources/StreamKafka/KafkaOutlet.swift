// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Platform
internal import Storage
internal import Telemetry

/// The work of a ``KafkaPublisher``, on its thread: looks where the topic is, goes on behind that, and begins anew when
/// something cannot be published. Where it is stands in the topic, behind the last record of each partition: nothing
/// else has to be kept, and nothing can contradict it.
final class KafkaOutlet {
    enum State {
        /// Without a look at the topic until then.
        case closed(until: UInt64)
        /// Another node publishes.
        case watching
        /// The last records of the partitions are read.
        case placing(KafkaPlacing)
        /// The store is asked whether it has what the topic has.
        case proving(StreamPosition, places: [KafkaPlace?], ticket: UInt64, since: UInt64)
        case publishing
        /// The stream is another one's by now, as long as the store is in this numbering.
        case fenced(StreamPosition)
    }

    let publisher: KafkaPublisher
    var state = State.closed(until: 0)
    var consumer: KafkaHandle?
    var producer: KafkaHandle?
    var election: PublisherElection
    var pump: FeedPump?
    /// By slot, the last number that brokers have acknowledged, without one before it that they have not.
    var acknowledged = [Int64](repeating: 0, count: StreamSlots.count)
    /// Slots of which a message could not be published.
    var broken: UInt64 = 0
    /// Why it could not.
    var failure: KafkaFailure?
    /// Where it goes on in the process that knows: behind what was acknowledged.
    var resume: StreamPosition?
    /// The next message of partition 0 that is looked at for what others put there; nil before the first look.
    var watchNext: Int64?
    /// The value limit, which shrinks where brokers do not take so large messages.
    var valueMax: Int
    /// Messages and bytes of them that are under way.
    var waiting = 0
    var waitingBytes = 0
    var heartbeatsWaiting = 0
    /// By slot, when brokers last acknowledged a heartbeat; of states, in the first, when they acknowledged anything.
    var lastReports = [UInt64](repeating: 0, count: StreamSlots.count)
    /// The next heartbeat, and when those were asked for whose answer is not known, in Unix milliseconds.
    var nextHeartbeat: UInt64 = 0
    var heartbeatNumber: UInt64 = 0
    var heartbeatTimes: [UInt64: Int64] = [:]
    var failures = 0
    var counts = KafkaFigures.Publisher()
    var nextNote: UInt64 = 0
    /// Of states: where ours are, what is looked at, keys whose rows are to be put behind others' messages, and when
    /// the ends of the partitions are looked at next.
    var statePlaces = StatePlaces()
    var stateReading: StateReading?
    var stateKeys = StateKeys()
    var nextStateLook: UInt64 = 0
    /// When another store's states were last met, in Unix milliseconds; nil once the stream has shown to be ours since.
    var strangeTime: Int64?
    /// Some of them are not looked at, or not put right, as far as is known.
    var hasUnsureStates = false
    private var loggedReason = ""

    init(_ publisher: KafkaPublisher) {
        self.publisher = publisher
        valueMax = publisher.configuration.valueMax
        election = PublisherElection(
            name: publisher.configuration.name, isAlone: !publisher.configuration.isShared,
            intervalNanoseconds: publisher.configuration.stream.probeNanoseconds, now: Clock.monotonicNanoseconds())
    }

    var configuration: StreamKafkaConfiguration { publisher.configuration }
    var source: any ChangeSource { publisher.source }
    var log: Log? { publisher.log }

    /// Does what there is to do; gives how long there is nothing, in nanoseconds, unless changes come.
    func step() -> UInt64 {
        let now = Clock.monotonicNanoseconds()
        decideLeadership(now)
        if !publisher.leadership.leads { stepDown() }
        heedFence()
        defer { note(now) }
        switch state {
        case .closed(let until):
            if now < until { return min(until - now, 100_000_000) }
            open(now)
            return 0
        case .watching:
            if publisher.leadership.leads {
                beginPlacing(now, back: 1)
            } else {
                watch(milliseconds: 50)
            }
            return 0
        case .placing(let placing):
            place(placing, now)
            return 0
        case .proving(let position, let places, let ticket, let since):
            prove(position, places, ticket, since, now)
            return 5_000_000
        case .publishing: return publish(now)
        case .fenced(let position):
            if let current = source.position, !current.isNumbered(as: position) { state = .closed(until: 0) }
            return 100_000_000
        }
    }

    private func decideLeadership(_ now: UInt64) {
        guard publisher.kind == .log else { return }
        let leads = election.decide(at: now)
        if leads != publisher.leadership.leads {
            publisher.leadership.leads = leads
            if leads {
                log?.info("kafka: this node publishes the stream", ["topic": .text(publisher.topic)])
            } else {
                log?.info("kafka: another node publishes the stream", ["topic": .text(publisher.topic)])
            }
        }
    }

    /// Another node publishes: what is under way here ends.
    private func stepDown() {
        endStates()
        switch state {
        case .closed, .watching, .fenced: return
        case .placing, .proving, .publishing: break
        }
        producer?.flush(milliseconds: 200)
        dropProducer()
        (resume, counts.reason) = (nil, "")
        state = .closed(until: 0)
    }

    /// Makes the consumer, checks the topic, and takes what comes of partition 0 from now on.
    private func open(_ now: UInt64) {
        // A store opens in its own time.
        guard source.position != nil else { return state = .closed(until: now &+ 50_000_000) }
        do throws(KafkaFailure) {
            if consumer == nil || consumer?.fatal != nil {
                consumer = nil
                let settings = configuration.settings(.consumer) + [("enable.partition.eof", "true")]
                consumer = try KafkaHandle(.consumer, settings: settings, topic: publisher.topic, log: log)
            }
            guard let consumer else { return }
            let count = try consumer.partitionCount(milliseconds: configuration.questionMilliseconds)
            guard count >= StreamSlots.count else {
                return fail(
                    "the topic \(publisher.topic) has \(count) partitions; \(StreamSlots.count) are needed", now)
            }
            if publisher.kind == .log {
                let ends = try consumer.offsets(
                    ofEnds: true, partitions: 1, milliseconds: configuration.questionMilliseconds)
                try consumer.assign([watchNext.map { min($0, ends[0]) } ?? ends[0]])
            }
            state = .watching
        } catch { fail("the brokers: \(error.reason)", now) }
    }

    /// Nothing is published, for this reason.
    func complain(_ reason: String) {
        counts.reason = reason
        guard reason != loggedReason else { return }
        loggedReason = reason
        log?.warning("kafka: nothing is published", ["topic": .text(publisher.topic), "reason": .text(reason)])
    }

    /// Something cannot be done now; it is tried again.
    func fail(_ reason: String, _ now: UInt64) {
        complain(reason)
        let wait = min(
            configuration.firstRetryNanoseconds << UInt64(min(failures, 10)), configuration.lastRetryNanoseconds)
        failures += 1
        if let sent = pump?.feed.sent {
            resume = StreamPosition(source: sent.source, epoch: sent.epoch, sequences: acknowledged)
        }
        dropProducer()
        state = .closed(until: now &+ wait)
    }

    /// All is well.
    func succeeded() {
        counts.reason = ""
        loggedReason = ""
        failures = 0
    }

    func dropProducer() {
        producer = nil
        pump = nil
        (waiting, waitingBytes, heartbeatsWaiting) = (0, 0, 0)
        heartbeatTimes = [:]
        (broken, failure) = (0, nil)
        statePlaces.forgetWaiting()
        // What was to be put right is looked for again, in the topic.
        if hasUnsureStates { resume = nil }
    }

    /// Another source, or a later epoch of ours, has the topics now: both outlets of the node end, as long as the store
    /// is in the numbering of `position`, against which that was found. Where it is in another one by now, which may be
    /// the one that has them, nothing ends.
    func fence(_ position: StreamPosition, _ why: String) {
        publisher.leadership.fence(position, why)
        heedFence()
    }

    /// Ends what is under way when either outlet has found that another one has the topics.
    private func heedFence() {
        if case .fenced = state { return }
        guard let (position, why) = publisher.leadership.fence, let current = source.position,
            current.isNumbered(as: position)
        else { return }
        log?.error("kafka: the topic is another one's", ["topic": .text(publisher.topic), "reason": .text(why)])
        counts.reason = why
        endStates()
        dropProducer()
        resume = nil
        state = .fenced(position)
    }

    /// Takes what others put into partition 0, if it is for us to know: heartbeats of other publishers, and that the
    /// stream is another one's.
    func watch(milliseconds: Int32) {
        guard publisher.kind == .log else {
            if milliseconds > 0 { Thread.sleep(microseconds: UInt32(milliseconds) * 1000) }
            return
        }
        var patience = milliseconds
        for _ in 0..<configuration.turnMessages {
            guard let event = consumer?.receive(milliseconds: patience, wantsHeader: true) else { return }
            patience = 0
            guard case .message(let message) = event else {
                if case .failure(let failure, _) = event, KafkaHandle.isOutOfRange(failure.code) {
                    // What is there now is looked at again.
                    fail("the brokers do not have what comes next any more", Clock.monotonicNanoseconds())
                    (watchNext, resume) = (nil, nil)
                    return
                }
                continue
            }
            guard message.partition == 0 else { continue }
            watchNext = message.offset + 1
            guard let record = message.value.flatMap(KafkaFrame.record), record.slot == 0 else { continue }
            let position = source.position
            // A home before goes on as long as it has not heard of this one: it is nobody to wait for.
            let isOurs = publisher.term == nil || (record.source == position?.source && record.epoch == position?.epoch)
            if let header = message.header, record.operation == .heartbeat, isOurs {
                election.heard(String(decoding: header, as: UTF8.self), at: Clock.monotonicNanoseconds())
            }
            guard let own = position else { continue }
            if record.operation == .heartbeat, record.source == own.source, record.epoch == own.epoch,
                message.header == Array(configuration.name.utf8)
            {
                publisher.leadership.confirmed = record.timeMilliseconds
            }
            if record.source == own.source, record.epoch > own.epoch {
                return fence(own, "it is in epoch \(record.epoch), and this store in \(own.epoch)")
            }
            if record.operation == .epoch, record.source != own.source {
                return fence(own, "the store \(record.source) has taken it over")
            }
        }
    }

    /// Hands over what there is, as far as that goes within a moment.
    func finish() {
        if let producer { producer.flush(milliseconds: 1000) }
        dropProducer()
        consumer = nil
    }

    /// Puts figures where other threads read them.
    private func note(_ now: UInt64) {
        guard now >= nextNote else { return }
        nextNote = now &+ 20_000_000
        counts.leads = publisher.leadership.leads
        counts.waiting = waiting
        counts.schema = publisher.registry?.number(topic: publisher.topic)
        let (counts, acknowledged) = (counts, acknowledged)
        publisher.noted.withLock { $0 = (counts, acknowledged) }
    }
}
