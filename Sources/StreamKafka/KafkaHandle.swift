// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CRDKafka
internal import Platform
internal import Telemetry

/// What librdkafka refuses or reports.
struct KafkaFailure: Error, Sendable, Equatable {
    /// Its number: below 0 the library's own, above a broker's.
    var code: Int32
    /// In words.
    var reason: String
}

/// What became of a message that was handed over.
struct KafkaDelivery: Sendable {
    /// What it was marked with.
    let mark: UInt
    /// 0 when a broker has it.
    let code: Int32
    /// Bytes of its value.
    let bytes: Int
    /// Where it is in its partition; below 0 where that is not known.
    let offset: Int64
}

/// A message of a partition.
struct KafkaMessage: Sendable {
    let partition: Int
    let offset: Int64
    let key: [UInt8]?
    /// Nil for a tombstone.
    let value: [UInt8]?
    /// The header ``KafkaHandle/headerName``, where it was asked for.
    let header: [UInt8]?
}

/// What a consumer is given.
enum KafkaEvent: Sendable {
    case message(KafkaMessage)
    /// An error, of a partition where it is one's.
    case failure(KafkaFailure, partition: Int?)
}

/// What librdkafka says on threads of its own, or while it is polled.
final class KafkaReports: Sendable {
    private let log: Log?
    private let deliveries = Guarded<[KafkaDelivery]>([])
    private let last = Guarded("")

    init(_ log: Log?) { self.log = log }

    func delivered(_ delivery: KafkaDelivery) { deliveries.withLock { $0.append(delivery) } }

    /// What became of messages since the last call.
    func takeDeliveries() -> [KafkaDelivery] { deliveries.exchange([]) }

    /// The library's last words about the brokers; empty when it had none.
    var reason: String { last.withLock { $0 } }

    func failed(_ reason: String) { last.withLock { $0 = reason } }

    func logged(level: Int32, _ text: String) {
        if level <= 3 {
            failed(text)
            log?.warning("kafka: the library reports", ["text": .text(text)])
        } else {
            log?.debug("kafka: the library says", ["text": .text(text)])
        }
    }
}

/// A producer or a consumer of one topic, by librdkafka 2.0. One thread's, but for ``reports``. Only what takes a time
/// waits.
///
/// Messages are taken one by one: taking batches leaves some out where partitions are paused (librdkafka before 2.1.0).
// SAFETY (file): the handle and the topic live from init to deinit, and what the library calls back is kept alive until
// the handle is destroyed, which ends its threads. It copies the texts and messages it is given; what it gives is
// copied before it is freed.
@safe
final class KafkaHandle {
    enum Kind {
        case producer, consumer
    }

    /// The name of the header that our messages may have.
    static var headerName: String { "martlet" }
    /// The most that the library holds back when the queue is full: RD_KAFKA_RESP_ERR__QUEUE_FULL.
    static var queueFull: Int32 { RD_KAFKA_RESP_ERR__QUEUE_FULL.rawValue }
    /// A message that this side threw away: RD_KAFKA_RESP_ERR__PURGE_QUEUE and RD_KAFKA_RESP_ERR__PURGE_INFLIGHT.
    static func isPurged(_ code: Int32) -> Bool {
        [RD_KAFKA_RESP_ERR__PURGE_QUEUE.rawValue, RD_KAFKA_RESP_ERR__PURGE_INFLIGHT.rawValue].contains(code)
    }
    /// The message is larger than a broker takes.
    static func isTooLarge(_ code: Int32) -> Bool { code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE.rawValue }
    /// The offset is none of the partition's: RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET.
    static func isOutOfRange(_ code: Int32) -> Bool {
        [RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET.rawValue, RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE.rawValue].contains(code)
    }
    /// No error: a partition was read to its end. RD_KAFKA_RESP_ERR__PARTITION_EOF.
    static func isEnd(_ code: Int32) -> Bool { code == RD_KAFKA_RESP_ERR__PARTITION_EOF.rawValue }
    /// What the code is in words.
    static func words(_ code: Int32) -> String {
        unsafe String(cString: rd_kafka_err2str(rd_kafka_resp_err_t(rawValue: code)))
    }

    private let handle: OpaquePointer
    private let topic: OpaquePointer
    private let topicName: String
    private let kind: Kind
    /// What the library reports.
    let reports: KafkaReports

    /// A handle with the library's settings by their names.
    init(_ kind: Kind, settings: [(name: String, value: String)], topic name: String, log: Log?) throws(KafkaFailure) {
        self.kind = kind
        topicName = name
        let reports = KafkaReports(log)
        self.reports = reports
        let conf = unsafe rd_kafka_conf_new()
        var text = [CChar](repeating: 0, count: 512)
        for (name, value) in settings {
            let result = unsafe rd_kafka_conf_set(conf, name, value, &text, text.count)
            guard result == RD_KAFKA_CONF_OK else {
                unsafe rd_kafka_conf_destroy(conf)
                throw KafkaFailure(code: -1, reason: "\(name): \(Self.words(text))")
            }
        }
        unsafe rd_kafka_conf_set_opaque(conf, Unmanaged.passUnretained(reports).toOpaque())
        unsafe rd_kafka_conf_set_log_cb(conf) { handle, level, _, text in
            guard let handle = unsafe handle, let text = unsafe text, let context = unsafe rd_kafka_opaque(handle)
            else { return }
            let reports = unsafe Unmanaged<KafkaReports>.fromOpaque(context).takeUnretainedValue()
            reports.logged(level: level, unsafe String(cString: text))
        }
        unsafe rd_kafka_conf_set_error_cb(conf) { _, code, text, context in
            guard let context = unsafe context else { return }
            let words = if let text = unsafe text { unsafe String(cString: text) } else { KafkaHandle.words(code) }
            unsafe Unmanaged<KafkaReports>.fromOpaque(context).takeUnretainedValue().failed(words)
        }
        if kind == .producer {
            unsafe rd_kafka_conf_set_dr_msg_cb(conf) { _, message, context in
                guard let message = unsafe message, let context = unsafe context else { return }
                unsafe Unmanaged<KafkaReports>.fromOpaque(context).takeUnretainedValue().delivered(
                    KafkaDelivery(
                        mark: UInt(martlet_kafka_mark(message)), code: message.pointee.err.rawValue,
                        bytes: message.pointee.len, offset: message.pointee.offset))
            }
        }
        let type = kind == .producer ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER
        guard let handle = unsafe rd_kafka_new(type, conf, &text, text.count) else {
            unsafe rd_kafka_conf_destroy(conf)
            throw KafkaFailure(code: -1, reason: Self.words(text))
        }
        guard let topic = unsafe rd_kafka_topic_new(handle, name, nil) else {
            unsafe martlet_kafka_destroy(handle)
            throw KafkaFailure(code: -1, reason: "the topic's name cannot be used")
        }
        unsafe self.handle = handle
        unsafe self.topic = topic
        if kind == .consumer { unsafe rd_kafka_poll_set_consumer(handle) }
    }

    deinit {
        if kind == .producer { unsafe martlet_kafka_purge(handle) }
        unsafe rd_kafka_topic_destroy(topic)
        unsafe martlet_kafka_destroy(handle)
        withExtendedLifetime(reports) {}
    }

    private static func words(_ text: [CChar]) -> String {
        String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static func failure(_ code: rd_kafka_resp_err_t) -> KafkaFailure {
        KafkaFailure(code: code.rawValue, reason: words(code.rawValue))
    }

    /// How many partitions the topic has.
    func partitionCount(milliseconds: Int32) throws(KafkaFailure) -> Int {
        var found: UnsafePointer<rd_kafka_metadata>?
        let code = unsafe rd_kafka_metadata(handle, 0, topic, &found, milliseconds)
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR, let metadata = unsafe found else { throw Self.failure(code) }
        defer { unsafe rd_kafka_metadata_destroy(metadata) }
        guard unsafe metadata.pointee.topic_cnt == 1, let first = unsafe metadata.pointee.topics else {
            throw Self.failure(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        }
        let error = unsafe first.pointee.err
        guard error == RD_KAFKA_RESP_ERR_NO_ERROR else { throw Self.failure(error) }
        return unsafe Int(first.pointee.partition_cnt)
    }

    /// Lets the library report what became of messages.
    func poll(milliseconds: Int32) { unsafe _ = rd_kafka_poll(handle, milliseconds) }

    // MARK: Producing

    /// Hands a message over; gives the code of the library, 0 when it has it. A value of nil is a tombstone.
    func produce(
        partition: Int, key: [UInt8]?, value: [UInt8]?, header: [UInt8]? = nil, mark: UInt
    ) -> Int32 {
        let code = unsafe Self.withBytes(key) { key, keyCount in
            unsafe Self.withBytes(value) { value, valueCount in
                unsafe Self.withBytes(header) { header, headerCount in
                    unsafe martlet_kafka_produce(
                        handle, topic, Int32(clamping: partition), key, keyCount, value, valueCount, Self.headerName,
                        header, headerCount, mark)
                }
            }
        }
        return code.rawValue
    }

    /// The bytes, which are there as long as the body runs; nil and 0 where there are none.
    private static func withBytes<R>(
        _ bytes: [UInt8]?, _ body: (UnsafeRawPointer?, Int) -> R
    ) -> R {
        guard let bytes else { return body(nil, 0) }
        // An empty value is no tombstone: it has an address.
        if bytes.isEmpty { return unsafe [UInt8(0)].withUnsafeBytes { unsafe body($0.baseAddress, 0) } }
        return unsafe bytes.withUnsafeBytes { unsafe body($0.baseAddress, $0.count) }
    }

    /// Messages that no broker has yet.
    var queued: Int { unsafe Int(rd_kafka_outq_len(handle)) }

    /// Waits until the brokers have what was handed over, as long as it may take.
    func flush(milliseconds: Int32) { unsafe _ = rd_kafka_flush(handle, milliseconds) }

    /// Why the handle is of no use any more; nil as long as it is.
    var fatal: KafkaFailure? {
        var text = [CChar](repeating: 0, count: 512)
        let code = unsafe rd_kafka_fatal_error(handle, &text, text.count)
        return code == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : KafkaFailure(code: code.rawValue, reason: Self.words(text))
    }

    // MARK: Consuming

    /// Where the partitions 0 to `count` - 1 begin, or end.
    func offsets(
        ofEnds isEnd: Bool, partitions count: Int, milliseconds: Int32
    ) throws(KafkaFailure) -> [Int64] {
        let list = unsafe rd_kafka_topic_partition_list_new(Int32(clamping: count))
        defer { unsafe rd_kafka_topic_partition_list_destroy(list) }
        for partition in 0..<count {
            // RD_KAFKA_OFFSET_END and RD_KAFKA_OFFSET_BEGINNING.
            let place = unsafe rd_kafka_topic_partition_list_add(list, topicName, Int32(partition))
            unsafe place?.pointee.offset = isEnd ? -1 : -2
        }
        let code = unsafe rd_kafka_offsets_for_times(handle, list, milliseconds)
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR else { throw Self.failure(code) }
        guard let list = unsafe list, unsafe Int(list.pointee.cnt) == count, let elements = unsafe list.pointee.elems
        else { throw Self.failure(RD_KAFKA_RESP_ERR__FAIL) }
        var found = [Int64](repeating: -1, count: count)
        for index in 0..<count {
            let element = unsafe elements[index]
            guard unsafe element.err == RD_KAFKA_RESP_ERR_NO_ERROR else { throw unsafe Self.failure(element.err) }
            let partition = unsafe Int(element.partition)
            if found.indices.contains(partition) { found[partition] = unsafe element.offset }
        }
        guard found.allSatisfy({ $0 >= 0 }) else { throw Self.failure(RD_KAFKA_RESP_ERR__NO_OFFSET) }
        return found
    }

    /// Takes messages of partitions from these offsets on, in place of what was taken before; of those that are nil,
    /// none.
    func assign(_ offsets: [Int64?]) throws(KafkaFailure) {
        let list = unsafe rd_kafka_topic_partition_list_new(Int32(clamping: offsets.count))
        defer { unsafe rd_kafka_topic_partition_list_destroy(list) }
        for (partition, offset) in offsets.enumerated() {
            guard let offset else { continue }
            let place = unsafe rd_kafka_topic_partition_list_add(list, topicName, Int32(partition))
            unsafe place?.pointee.offset = offset
        }
        let code = unsafe rd_kafka_assign(handle, list)
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR else { throw Self.failure(code) }
    }

    /// The next message or error, if there is one within the time.
    func receive(milliseconds: Int32, wantsHeader: Bool = false) -> KafkaEvent? {
        guard let message = unsafe rd_kafka_consumer_poll(handle, milliseconds) else { return nil }
        defer { unsafe rd_kafka_message_destroy(message) }
        let (code, partition) = unsafe (message.pointee.err, Int(message.pointee.partition))
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR else {
            let words =
                if let text = unsafe rd_kafka_message_errstr(message) {
                    unsafe String(cString: text)
                } else {
                    Self.words(code.rawValue)
                }
            return .failure(
                KafkaFailure(code: code.rawValue, reason: words), partition: partition >= 0 ? partition : nil)
        }
        var header: [UInt8]?
        if wantsHeader {
            var length = 0
            if let start = unsafe martlet_kafka_header(message, Self.headerName, &length) {
                header = unsafe [UInt8](UnsafeRawBufferPointer(start: start, count: length))
            }
        }
        return .message(
            KafkaMessage(
                partition: partition, offset: unsafe message.pointee.offset,
                key: unsafe Self.bytes(message.pointee.key, message.pointee.key_len),
                value: unsafe Self.bytes(message.pointee.payload, message.pointee.len), header: header))
    }

    private static func bytes(_ start: UnsafeMutableRawPointer?, _ count: Int) -> [UInt8]? {
        guard let start = unsafe start else { return nil }
        return unsafe [UInt8](UnsafeRawBufferPointer(start: start, count: count))
    }

    /// The end of a partition as the last answer of a broker told it; nil before the first.
    func knownEnd(partition: Int) -> Int64? {
        var (low, high): (Int64, Int64) = (-1, -1)
        let code = unsafe rd_kafka_get_watermark_offsets(handle, topicName, Int32(partition), &low, &high)
        return code == RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0 ? high : nil
    }
}
