// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Memory
internal import Platform
internal import Storage
internal import Telemetry

/// Compaction keeps the last message of a key, whoever put it there. A publisher that stood still, and whose messages
/// come behind those of the one that took its place, would leave old states for good: of the keys of what others put
/// there, the rows as they are now are put behind that. Another store's states may be those of the home to come, which
/// does the same: so nothing is put behind these until the stream's own topic has shown that it is still this store's.
extension KafkaOutlet {
    /// Between looks at the ends of the partitions, in nanoseconds.
    private static var lookNanoseconds: UInt64 { 1_000_000_000 }
    /// Messages before the ends that are looked at by who begins to publish.
    static var lookBack: Int64 { 256 }
    /// Rows that are read at once.
    private static var rowsMax: Int { 64 }

    /// This node begins to publish.
    func beginStates(_ placing: KafkaPlacing) {
        guard publisher.kind == .state else { return }
        statePlaces.begin(ends: placing.allEnds)
        stateReading = StateReading(ranges: placing.last(Self.lookBack), wantsLateOnly: true)
    }

    /// Another one publishes: what is to be put right is for that one.
    func endStates() {
        (stateReading, stateKeys, strangeTime, hasUnsureStates) = (nil, StateKeys(), nil, false)
    }

    /// Looks for what others put into the topic, and puts rows behind it. Whether there is more to do now.
    func tendStates(_ now: UInt64) -> Bool {
        guard publisher.kind == .state, let consumer else { return false }
        if now >= nextStateLook {
            let limit = configuration.questionMilliseconds
            if let ends = try? consumer.offsets(ofEnds: true, partitions: StreamSlots.count, milliseconds: limit) {
                for slot in 0..<StreamSlots.count { statePlaces.ended(slot, at: ends[slot]) }
            }
            // Where a broker does not answer, publishing to the others is not to wait for it all the time.
            let end = Clock.monotonicNanoseconds()
            nextStateLook = end &+ Self.lookNanoseconds &+ 4 * (end &- now)
        }
        if stateReading == nil {
            let others = statePlaces.takeOthers()
            if !others.isEmpty {
                stateReading = StateReading(ranges: others, wantsLateOnly: false)
                hasUnsureStates = true
            }
        }
        readStates(consumer, now)
        guard case .publishing = state else { return false }
        if waiting == 0, stateReading == nil, stateKeys.isEmpty { hasUnsureStates = false }
        return putRows()
    }

    private func readStates(_ consumer: KafkaHandle, _ now: UInt64) {
        guard var reading = stateReading else { return }
        if reading.since == 0 {
            reading.since = now
            let offsets = (0..<StreamSlots.count).map { reading.ranges[$0]?.lowerBound }
            guard (try? consumer.assign(offsets)) != nil else { return }
        }
        if stateKeys.isFull {
            // What was read is put first. Meanwhile brokers may take their time.
            reading.since = now
            return stateReading = reading
        }
        for _ in 0..<configuration.turnMessages where !reading.ranges.isEmpty && !stateKeys.isFull {
            guard let event = consumer.receive(milliseconds: 0, wantsHeader: true) else { break }
            switch event {
            case .message(let message):
                note(message, &reading)
                guard case .publishing = state else { return }
            case .failure(let failure, let partition):
                // Compaction, or retention, took the rest of it away.
                let isOver = KafkaHandle.isEnd(failure.code) || KafkaHandle.isOutOfRange(failure.code)
                if isOver, let partition { reading.ranges[partition] = nil }
            }
        }
        if reading.ranges.isEmpty {
            stateReading = nil
            _ = try? consumer.assign([])
        } else if now > reading.since &+ configuration.placingNanoseconds {
            // Brokers are away: it is begun anew.
            reading.since = 0
            stateReading = reading
        } else {
            stateReading = reading
        }
    }

    private func note(_ message: KafkaMessage, _ reading: inout StateReading) {
        guard let own = source.position ?? pump?.feed.sent else { return }
        let sight = reading.met(message.partition, offset: message.offset, place: Self.place(message), own: own)
        switch sight {
        case .passed: return
        case .superseded(let epoch):
            return fence(own, "its states are in epoch \(epoch), and this store in \(own.epoch)")
        case .strange: strangeTime = Self.unixMilliseconds
        case .wanted: break
        }
        if let key = message.key { stateKeys.add(key) }
    }

    /// Whether the stream was ours since another store's states were met.
    private func isStillOurs() -> Bool {
        guard let time = strangeTime else { return true }
        // A clock may be put back.
        let since = min(time, Self.unixMilliseconds)
        strangeTime = publisher.leadership.confirmed > since ? nil : since
        return strangeTime == nil
    }

    /// Puts the rows of the keys into the topic, as they are now, or that there are none: no message that was handed
    /// over before is newer. Whether there are more.
    private func putRows() -> Bool {
        guard !stateKeys.isEmpty, isStillOurs(), let position = pump?.feed.sent, waiting < configuration.waitingMax,
            waitingBytes < configuration.waitingBytesMax
        else { return false }
        let keys = stateKeys.first(Self.rowsMax)
        let limit = configuration.turnBytes
        guard let rows = try? source.rows(keys, limitBytes: limit, valueMax: valueMax), !rows.isEmpty else {
            return false
        }
        for (key, row) in zip(keys, rows) {
            guard failure == nil, putState(key, row, position) else { return false }
            stateKeys.removeFirst()
            hasUnsureStates = true
            counts.restored += 1
        }
        return !stateKeys.isEmpty
    }

    private func putState(_ key: [UInt8], _ row: StoredRow?, _ position: StreamPosition) -> Bool {
        let hash = stableHash(key.span)
        let slot = StreamSlots.slot(keyHash: hash)
        var record = OutboxRecord()
        (record.key, record.keyHash, record.region, record.reason) = (key, hash, configuration.home, "write")
        (record.source, record.epoch, record.slot) = (position.source, position.epoch, Int32(slot))
        (record.firstSequence, record.sequence) = (position.sequences[slot], position.sequences[slot])
        record.timeMilliseconds = Self.unixMilliseconds
        let mark = KafkaMark(isMark: false, slot: slot, sequence: record.sequence)
        guard let row else {
            hand(slot, key: key, value: nil, header: KafkaPlace(record).text, mark: mark)
            return failure == nil
        }
        (record.version, record.expiryMilliseconds) = (row.version, row.expiryMilliseconds)
        // One whose value is too long is there all the same.
        if row.partialLength == nil { (record.value, record.clientFlags) = (row.value, row.clientFlags) }
        let schema = publisher.registry?.number(topic: publisher.topic)
        hand(slot, key: key, value: KafkaFrame.value(record, schema: schema), mark: mark)
        return failure == nil
    }
}
