// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Storage
internal import Telemetry

/// Reads what brokers keep of partitions once more, on an operator's behalf. With a consumer of its own: where the
/// stream is, and what its heartbeats prove, goes on beside it. One thread's.
final class KafkaReplay {
    private let configuration: StreamKafkaConfiguration
    private let log: Log?
    /// Partitions that are to be read.
    private var wanted: UInt64 = 0
    private var handle: KafkaHandle?
    /// By partition, the end as it was when reading began.
    private var ends: [Int64] = []
    /// Partitions of which something is left.
    private var left: UInt64 = 0
    private var retryAt: UInt64 = 0
    private var loggedReason = ""
    private var records: UInt64 = 0

    init(_ configuration: StreamKafkaConfiguration, log: Log?) { (self.configuration, self.log) = (configuration, log) }

    /// Whether there is something to read.
    var isActive: Bool { wanted | left != 0 }

    /// The partitions of a mask are to be read, behind those that are read now.
    func want(_ mask: UInt64) { wanted |= mask }

    /// Reads some of it, and hands the records to `body`. Waits for brokers where reading begins only.
    func step(_ now: UInt64, _ body: (OutboxRecord) -> Void) {
        guard isActive, now >= retryAt else { return }
        do throws(KafkaFailure) {
            if left == 0 { try begin() }
            try read(body)
        } catch {
            // From the beginning: what was read already changes nothing.
            wanted |= left
            (handle, left) = (nil, 0)
            retryAt = now &+ configuration.lastRetryNanoseconds
            if error.reason != loggedReason {
                loggedReason = error.reason
                log?.warning("kafka: what is kept cannot be read again", ["reason": .text(error.reason)])
            }
        }
    }

    private func begin() throws(KafkaFailure) {
        let fresh = try KafkaHandle(
            .consumer, settings: configuration.settings(.consumer), topic: configuration.topic, log: log)
        let limit = configuration.questionMilliseconds
        let starts = try fresh.offsets(ofEnds: false, partitions: StreamSlots.count, milliseconds: limit)
        ends = try fresh.offsets(ofEnds: true, partitions: StreamSlots.count, milliseconds: limit)
        let full = (0..<StreamSlots.count).filter { wanted & StreamSlots.mask($0) != 0 && starts[$0] < ends[$0] }
        try fresh.assign((0..<StreamSlots.count).map { full.contains($0) ? starts[$0] : nil })
        handle = fresh
        left = full.reduce(0) { $0 | StreamSlots.mask($1) }
        (wanted, records) = (0, 0)
    }

    private func read(_ body: (OutboxRecord) -> Void) throws(KafkaFailure) {
        for _ in 0..<configuration.turnMessages where left != 0 {
            guard let event = handle?.receive(milliseconds: 0) else { return }
            switch event {
            case .message(let message):
                let slot = message.partition
                guard ends.indices.contains(slot), left & StreamSlots.mask(slot) != 0 else { continue }
                if message.offset < ends[slot], let value = message.value, let record = KafkaFrame.record(value),
                    Int(record.slot) == slot
                {
                    records += 1
                    body(record)
                }
                if message.offset >= ends[slot] - 1 { left &= ~StreamSlots.mask(slot) }
            case .failure(let problem, _):
                if KafkaHandle.isOutOfRange(problem.code) { throw problem }
                if let fatal = handle?.fatal { throw fatal }
            }
        }
        guard left == 0 else { return }
        (handle, loggedReason) = (nil, "")
        log?.info("kafka: what the brokers keep was read again", ["records": .text("\(records)")])
    }
}
