// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Platform
internal import Storage
internal import Telemetry

/// What a message is marked with until its report comes: its kind, its slot and its number.
struct KafkaMark {
    /// Whether it is a heartbeat, or says that an epoch begins.
    let isMark: Bool
    let slot: Int
    let sequence: Int64

    init(isMark: Bool, slot: Int, sequence: Int64) {
        self.isMark = isMark
        self.slot = slot
        self.sequence = sequence
    }

    /// Numbers have 57 bits here: a slot would need centuries for more.
    init(_ bits: UInt) {
        isMark = bits >> 63 != 0
        slot = Int(bits & 63)
        sequence = Int64((bits << 1) >> 7)
    }

    var bits: UInt { (isMark ? 1 << 63 : 0) | ((UInt(sequence) << 7) >> 1) | UInt(slot) }
}

/// From the outbox to the brokers.
extension KafkaOutlet {
    /// How long messages may be under way without a word of the brokers until that is told, in nanoseconds.
    private static var silenceNanoseconds: UInt64 { 3_000_000_000 }

    /// Tells of partitions whose messages no broker takes. They wait with the library, and in the outbox.
    private func lookForSilence(_ now: UInt64) {
        if publisher.kind == .state {
            if waiting == 0 { lastReports[0] = now }
            for slot in 1..<StreamSlots.count { lastReports[slot] = lastReports[0] }
        }
        let limit = Self.silenceNanoseconds &+ configuration.stream.probeNanoseconds
        let silent = lastReports.count { now > $0 &+ limit }
        if silent > 0 {
            let reported = producer?.reports.reason ?? ""
            complain(
                "\(silent) of \(StreamSlots.count) partitions take no messages"
                    + (reported.isEmpty ? "" : "; the last word: \(reported)"))
        } else if !counts.reason.isEmpty {
            succeeded()
        }
    }

    /// Hands over what there is; gives how long there is nothing more to do.
    func publish(_ now: UInt64) -> UInt64 {
        takeReports()
        lookForSilence(now)
        if let failure { return giveUp(failure, now) }
        if let fatal = producer?.fatal {
            // The reports say what it was about.
            producer?.poll(milliseconds: 100)
            takeReports()
            return giveUp(failure ?? fatal, now)
        }
        watch(milliseconds: 0)
        guard case .publishing = state, let feed = pump?.feed else { return 0 }
        guard let current = source.position, current.isNumbered(as: feed.sent) else {
            // Another numbering has begun.
            producer?.flush(milliseconds: 1000)
            takeReports()
            dropProducer()
            resume = nil
            state = .watching
            return 0
        }
        if now >= nextHeartbeat { askForHeartbeat(now) }
        var hasMore = false
        if waiting < configuration.waitingMax, waitingBytes < configuration.waitingBytesMax {
            do throws(StorageFailure) { hasMore = try pumpOnce() } catch {
                // The store is away; there are no heartbeats until it is back.
                return 50_000_000
            }
            sendHeartbeats()
        }
        if tendStates(now) || hasMore { return 0 }
        if stateReading != nil { return 5_000_000 }
        if waiting > 0 { return 5_000_000 }
        return min(50_000_000, nextHeartbeat > now ? nextHeartbeat - now : 1)
    }

    private func pumpOnce() throws(StorageFailure) -> Bool {
        guard var pump else { return false }
        let before = pump.feed.credit
        defer {
            // There is no other side that would grant.
            pump.feed.grant(before - pump.feed.credit)
            self.pump = pump
        }
        let end = Clock.monotonicNanoseconds() &+ 50_000_000
        return try pump.run(
            source, limitBytes: configuration.turnBytes, isOver: { Clock.monotonicNanoseconds() >= end }
        ) { item in
            switch item {
            case .record(let entry): publisher.kind == .log ? publish(entry) : publishState(entry)
            case .lost(let slot, let through):
                counts.lost += 1
                log?.warning(
                    "kafka: records were let go before they could be published",
                    ["topic": .text(publisher.topic), "slot": .count(slot), "through": .integer(through)])
            }
        }
    }

    private func publish(_ entry: ChangeTail.Entry) {
        let schema = publisher.registry?.number(topic: publisher.topic)
        hand(
            entry.slot, key: OutboxRecord.key(ofObject: entry.bytes),
            value: KafkaFrame.value(object: entry.bytes, schema: schema),
            mark: KafkaMark(isMark: false, slot: entry.slot, sequence: entry.sequence))
    }

    /// The last state of a key: the record with the value, or a tombstone.
    private func publishState(_ entry: ChangeTail.Entry) {
        guard let record = OutboxRecord(object: entry.bytes), !record.key.isEmpty else { return }
        let mark = KafkaMark(isMark: false, slot: entry.slot, sequence: entry.sequence)
        switch record.operation {
        case .set, .touch:
            let schema = publisher.registry?.number(topic: publisher.topic)
            hand(
                entry.slot, key: record.key, value: KafkaFrame.value(object: entry.bytes, schema: schema), mark: mark)
        case .delete: hand(entry.slot, key: record.key, value: nil, header: KafkaPlace(record).text, mark: mark)
        case .flush, .heartbeat, .epoch: break
        }
    }

    /// A heartbeat or the beginning of an epoch.
    func produce(_ record: OutboxRecord, _ slot: Int) {
        hand(
            slot, key: nil,
            value: KafkaFrame.value(record, schema: publisher.registry?.number(topic: publisher.topic)),
            header: Array(configuration.name.utf8),
            mark: KafkaMark(isMark: true, slot: slot, sequence: record.sequence))
    }

    func mark(
        _ operation: OutboxRecord.Operation, _ slot: Int, _ position: StreamPosition, unixMilliseconds: Int64
    ) -> OutboxRecord {
        var record = OutboxRecord()
        record.operation = operation
        record.region = publisher.term?.region ?? configuration.home
        (record.source, record.epoch) = (position.source, position.epoch)
        record.slot = Int32(slot)
        (record.firstSequence, record.sequence) = (position.sequences[slot], position.sequences[slot])
        record.timeMilliseconds = unixMilliseconds
        return record
    }

    /// Hands a message to the library; waits a little where it has no room.
    func hand(_ slot: Int, key: [UInt8]?, value: [UInt8]?, header: [UInt8]? = nil, mark: KafkaMark) {
        // Behind one that could not be published nothing follows: there would be a gap.
        guard let producer, failure == nil else { return }
        var code: Int32 = 0
        for _ in 0..<200 {
            code = producer.produce(partition: slot, key: key, value: value, header: header, mark: mark.bits)
            guard code == KafkaHandle.queueFull, !publisher.isStopped else { break }
            producer.poll(milliseconds: 5)
        }
        guard code == 0 else {
            failure = KafkaFailure(code: code, reason: KafkaHandle.words(code))
            return
        }
        waiting += 1
        statePlaces.handed(slot)
        waitingBytes += value?.count ?? 0
        if mark.isMark { heartbeatsWaiting += 1 }
    }

    // MARK: Heartbeats

    /// Asks the store what it has committed by now. Where several heartbeats wait for a broker, more would not help.
    private func askForHeartbeat(_ now: UInt64) {
        nextHeartbeat = now &+ configuration.stream.probeNanoseconds
        guard publisher.kind == .log, heartbeatsWaiting < 4 * StreamSlots.count else { return }
        heartbeatNumber &+= 1
        // The time first: what is committed from here on may be behind it.
        heartbeatTimes[heartbeatNumber] = Self.unixMilliseconds
        pump?.probe(heartbeatNumber, of: source)
    }

    /// What was asked for, and is in the topic by now, is covered by a heartbeat behind it in each partition.
    private func sendHeartbeats() {
        while let (number, sequences) = pump?.feed.answerable() {
            guard let time = heartbeatTimes.removeValue(forKey: number), let sent = pump?.feed.sent else { continue }
            heartbeatTimes = heartbeatTimes.filter { $0.key > number }
            let position = StreamPosition(source: sent.source, epoch: sent.epoch, sequences: sequences)
            let succession = source.succession
            // It is of the numbering that the store is in.
            guard let current = source.position, current.isNumbered(as: position) else { return }
            for slot in 0..<StreamSlots.count {
                var record = mark(.heartbeat, slot, position, unixMilliseconds: time)
                if let term = publisher.term {
                    record.position = HeartbeatHome(term, succession, slot: slot).position
                }
                produce(record, slot)
            }
        }
    }

    // MARK: Reports

    private func takeReports() {
        producer?.poll(milliseconds: 0)
        for report in producer?.reports.takeDeliveries() ?? [] {
            waiting = max(0, waiting - 1)
            waitingBytes = max(0, waitingBytes - report.bytes)
            let mark = KafkaMark(report.mark)
            statePlaces.reported(mark.slot, offset: report.code == 0 ? report.offset : nil)
            if mark.isMark { heartbeatsWaiting = max(0, heartbeatsWaiting - 1) }
            if report.code != 0 {
                broken |= StreamSlots.mask(mark.slot)
                if KafkaHandle.isPurged(report.code) { continue }
                counts.failures += 1
                if failure == nil {
                    failure = KafkaFailure(code: report.code, reason: KafkaHandle.words(report.code))
                }
            } else if mark.isMark {
                counts.heartbeats += 1
                lastReports[mark.slot] = Clock.monotonicNanoseconds()
            } else {
                if publisher.kind == .state { lastReports[0] = Clock.monotonicNanoseconds() }
                counts.published += 1
                counts.publishedBytes += UInt64(report.bytes)
                // What follows one that failed has to come again, or there is a gap for good.
                if broken & StreamSlots.mask(mark.slot) == 0 {
                    acknowledged[mark.slot] = max(acknowledged[mark.slot], mark.sequence)
                }
            }
        }
    }

    /// Begins anew behind what was acknowledged. What comes twice does no harm.
    private func giveUp(_ failure: KafkaFailure, _ now: UInt64) -> UInt64 {
        if KafkaHandle.isTooLarge(failure.code), valueMax > 1024 {
            // Without its value, or with one that fits, it is an invalidation.
            valueMax /= 2
            log?.warning("kafka: values are too large for the brokers", ["limit": .count(valueMax)])
        }
        counts.restarts += 1
        fail("publishing: \(failure.reason)", now)
        return 0
    }
}
