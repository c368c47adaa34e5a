// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Platform
internal import Storage
internal import Telemetry

/// Where the topic is, and where publishing goes on.
extension KafkaOutlet {
    /// Begins to look for the last records of the partitions, unless it is known what brokers have.
    func beginPlacing(_ now: UInt64, back: Int64) {
        if let resume, let current = source.position, resume.isNumbered(as: current) {
            let places = resume.sequences.map { sequence in
                KafkaPlace(source: resume.source, epoch: resume.epoch, sequence: sequence)
            }
            return beginProving(resume, places, now)
        }
        resume = nil
        guard let consumer else { return state = .closed(until: 0) }
        do throws(KafkaFailure) {
            let limit = configuration.questionMilliseconds
            let starts = try consumer.offsets(ofEnds: false, partitions: StreamSlots.count, milliseconds: limit)
            let ends = try consumer.offsets(ofEnds: true, partitions: StreamSlots.count, milliseconds: limit)
            let placing = KafkaPlacing(starts: starts, ends: ends, back: back, since: now)
            try consumer.assign(placing.offsets)
            state = .placing(placing)
        } catch { fail("the ends of the partitions: \(error.reason)", now) }
    }

    func place(_ placing: KafkaPlacing, _ now: UInt64) {
        var placing = placing
        for _ in 0..<configuration.turnMessages where !placing.isOver {
            guard let event = consumer?.receive(milliseconds: 50, wantsHeader: publisher.kind == .state) else { break }
            switch event {
            case .message(let message):
                placing.met(partition: message.partition, offset: message.offset, place: Self.place(message))
            case .failure(let failure, let partition):
                if KafkaHandle.isOutOfRange(failure.code) { return beginPlacing(now, back: placing.back) }
                // Compaction may have taken the last message away.
                if KafkaHandle.isEnd(failure.code), let partition, partition < StreamSlots.count {
                    placing.ended(partition: partition)
                }
            }
        }
        guard placing.isOver else {
            state = .placing(placing)
            if Clock.monotonicNanoseconds() > placing.since &+ configuration.placingNanoseconds {
                fail("the last records of the partitions do not come: \(consumer?.reports.reason ?? "")", now)
            }
            return
        }
        if placing.goesFurtherBack { return beginPlacing(now, back: placing.back * 16) }
        do throws(KafkaFailure) {
            try consumer?.assign(publisher.kind == .log ? [placing.firstEnd] : [])
        } catch { return fail("the brokers: \(error.reason)", now) }
        watchNext = placing.firstEnd
        beginStates(placing)
        goOn(behind: placing.found, now)
    }

    /// Where a message stands in the stream; nil when it is none of ours.
    static func place(_ message: KafkaMessage) -> KafkaPlace? {
        if let value = message.value {
            // A record of another slot's says nothing of this one.
            return KafkaFrame.record(value).flatMap { Int($0.slot) == message.partition ? KafkaPlace($0) : nil }
        }
        return message.header.flatMap { KafkaPlace($0) }
    }

    func goOn(behind places: [KafkaPlace?], _ now: UInt64) {
        guard let current = source.position else { return fail("the store is not open", now) }
        let succession = publisher.term == nil ? nil : source.succession
        var position = StreamPosition(
            source: current.source, epoch: current.epoch, sequences: [Int64](repeating: 0, count: StreamSlots.count))
        for slot in 0..<StreamSlots.count {
            guard let place = places[slot], place.source == current.source else { continue }
            if place.epoch > current.epoch {
                return fence(current, "it is in epoch \(place.epoch), and this store in \(current.epoch)")
            }
            if place.epoch == current.epoch { position.sequences[slot] = place.sequence }
            // What the home before put there, and this one took over, does not come again.
            if let succession, place.epoch == succession.previous {
                position.sequences[slot] = min(place.sequence, succession.included[slot])
            }
        }
        beginProving(position, places, now)
    }

    private func beginProving(_ position: StreamPosition, _ places: [KafkaPlace?], _ now: UInt64) {
        state = .proving(position, places: places, ticket: source.beginProof(), since: now)
    }

    /// The store must have what the topic has: another node may have published what this one has not heard of yet, but
    /// a store that went back without another epoch would have its numbers stand for other changes.
    func prove(_ position: StreamPosition, _ places: [KafkaPlace?], _ ticket: UInt64, _ since: UInt64, _ now: UInt64) {
        guard let last = source.proof(ticket) else {
            if now > since &+ configuration.placingNanoseconds { fail("the store does not say where it is", now) }
            return
        }
        for slot in 0..<StreamSlots.count where position.sequences[slot] > last[slot] {
            return fail(
                "the topic has change \(position.sequences[slot]) of slot \(slot), and the store \(last[slot]) only; "
                    + "one that was put back to an earlier state needs another epoch", now)
        }
        begin(position, places, now)
    }

    /// Makes a producer and publishes from there on.
    private func begin(_ wanted: StreamPosition, _ places: [KafkaPlace?], _ now: UInt64) {
        let tailPlace = source.tail.end
        guard let last = source.position, last.isNumbered(as: wanted) else { return state = .closed(until: 0) }
        dropProducer()
        do throws(KafkaFailure) {
            producer = try KafkaHandle(
                .producer, settings: configuration.settings(.producer), topic: publisher.topic, log: log)
        } catch { return fail("the producer: \(error.reason)", now) }
        var hello = StreamHello()
        hello.position = wanted
        var feed = StreamFeed(configuration.stream, hello: hello, kept: source.keptSequences, last: last)
        for slot in 0..<StreamSlots.count where feed.sent.sequences[slot] > wanted.sequences[slot] {
            // A place of our own: what is between was let go before it could be published.
            if places[slot]?.source == last.source, places[slot]?.epoch == last.epoch { counts.lost += 1 }
        }
        feed.grant(configuration.stream.windowBytes * 4)
        acknowledged = feed.sent.sequences
        resume = feed.sent
        let carries = publisher.kind == .state || configuration.carriesValues
        pump = FeedPump(feed, place: tailPlace, tail: source.tail, valueMax: carries ? valueMax : nil)
        nextHeartbeat = now
        lastReports = [UInt64](repeating: now, count: StreamSlots.count)
        state = .publishing
        succeeded()
        if publisher.kind == .log { announceEpochs(feed.sent, places) }
        log?.info(
            "kafka: publishing",
            [
                "topic": .text(publisher.topic), "source": .text(last.source),
                "epoch": .integer(last.epoch),
            ])
    }

    /// Says in each partition that was another numbering's that ours goes on there, and where that one ended.
    private func announceEpochs(_ position: StreamPosition, _ places: [KafkaPlace?]) {
        for slot in 0..<StreamSlots.count {
            let place = places[slot]
            if let place, place.source == position.source, place.epoch == position.epoch { continue }
            var record = mark(.epoch, slot, position, unixMilliseconds: Self.unixMilliseconds)
            record.position = place.map { String(decoding: $0.text, as: UTF8.self) } ?? ""
            produce(record, slot)
        }
    }

    static var unixMilliseconds: Int64 { Int64(clamping: Clock.realtimeNanoseconds() / 1_000_000) }
}
