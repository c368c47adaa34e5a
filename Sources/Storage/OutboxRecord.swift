// Martlet
// SPDX-License-Identifier: Apache-2.0

/// One record of the stream: what was done to a key, in the order of its slot (docs/contract.md, Stream record).
///
/// It is written in Avro: in the outbox and on our own transport as a single object, on Kafka behind a registry's
/// frame; the body is the same everywhere. Source: Apache Avro 1.11 specification, Binary Encoding, Single-object
/// encoding.
package struct OutboxRecord: Sendable, Equatable {
    /// What was done.
    package enum Operation: UInt8, Sendable, CaseIterable {
        case set
        case delete
        case touch
        case flush
        case heartbeat
        case epoch
    }

    /// What was done.
    package var operation = Operation.set
    /// The pool's name.
    package var pool = ""
    /// The key; empty for flush, heartbeat and epoch.
    package var key: [UInt8] = []
    /// The stable hash of the key.
    package var keyHash: UInt64 = 0
    /// The version of the commit, which is the CAS value.
    package var version: UInt64 = 0
    /// When the row expires, in milliseconds of Unix time; 0 is never.
    package var expiryMilliseconds: Int64 = 0
    /// The region that the change comes from.
    package var region = ""
    /// The outbox that it comes from.
    package var source = ""
    /// Grows when the outbox cannot go on where it was: made anew, restored, or ended without being closed in `async`.
    package var epoch: Int64 = 0
    /// The partition of the stream, 0 to 63.
    package var slot: Int32 = 0
    /// The first sequence number that the record stands for; less than `sequence` where records were put together.
    package var firstSequence: Int64 = 0
    /// The last sequence number that the record stands for.
    package var sequence: Int64 = 0
    /// Where it is in the source's own log.
    package var position = ""
    /// When it was committed, in milliseconds of Unix time.
    package var timeMilliseconds: Int64 = 0
    /// `write`, `cdc` or `admin`.
    package var reason: String?
    /// The value, where values travel.
    package var value: [UInt8]?
    /// The client's flags, where values travel.
    package var clientFlags: UInt32?
    /// A W3C traceparent.
    package var trace: String?

    /// The greatest sequence number that a record may have: there is room behind it for arithmetic.
    package static let sequenceMax: Int64 = 1 << 62

    /// A record of nothing yet.
    package init() {}

    /// The record as an Avro single object, in place of what is in `bytes`: C3 01, the schema's fingerprint, the body.
    package func encodeObject(into bytes: inout [UInt8]) {
        bytes.removeAll(keepingCapacity: true)
        bytes.append(0xc3)
        bytes.append(0x01)
        for shift in stride(from: UInt64(0), to: 64, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: OutboxRecord.fingerprint >> shift))
        }
        encodeBody(into: &bytes)
    }

    /// Appends the record's Avro body to `bytes`.
    package func encodeBody(into bytes: inout [UInt8]) {
        AvroEncoding.append(long: Int64(operation.rawValue), to: &bytes)
        AvroEncoding.append(pool, to: &bytes)
        AvroEncoding.append(key, to: &bytes)
        AvroEncoding.append(long: Int64(bitPattern: keyHash), to: &bytes)
        AvroEncoding.append(long: Int64(bitPattern: version), to: &bytes)
        AvroEncoding.append(long: expiryMilliseconds, to: &bytes)
        AvroEncoding.append(region, to: &bytes)
        AvroEncoding.append(source, to: &bytes)
        AvroEncoding.append(long: epoch, to: &bytes)
        AvroEncoding.append(long: Int64(slot), to: &bytes)
        AvroEncoding.append(long: firstSequence, to: &bytes)
        AvroEncoding.append(long: sequence, to: &bytes)
        AvroEncoding.append(position, to: &bytes)
        AvroEncoding.append(long: timeMilliseconds, to: &bytes)
        AvroEncoding.append(optional: reason, to: &bytes, AvroEncoding.append)
        AvroEncoding.append(optional: value, to: &bytes, AvroEncoding.append)
        AvroEncoding.append(optional: clientFlags.map { Int64($0) }, to: &bytes, AvroEncoding.append(long:to:))
        AvroEncoding.append(optional: trace, to: &bytes, AvroEncoding.append)
    }

    /// The record that an Avro single object holds; nil when it is none, is cut short, has another schema, or has
    /// numbers that no record can have.
    package init?(object bytes: [UInt8]) {
        guard OutboxRecord.isObject(bytes) else { return nil }
        self.init(body: bytes, from: OutboxRecord.objectHeaderBytes)
    }

    /// Bytes of a single object before its body.
    package static let objectHeaderBytes = 10

    /// Whether bytes begin as a single object of our schema.
    private static func isObject(_ bytes: [UInt8]) -> Bool {
        guard bytes.count >= objectHeaderBytes, bytes[0] == 0xc3, bytes[1] == 0x01 else { return false }
        var fingerprint: UInt64 = 0
        for index in 0..<8 { fingerprint |= UInt64(bytes[2 + index]) << UInt64(8 * index) }
        return fingerprint == OutboxRecord.fingerprint
    }

    /// The key of the record that a single object holds; nil when it is none. Cheaper than the whole record.
    package static func key(ofObject bytes: [UInt8]) -> [UInt8]? {
        guard isObject(bytes) else { return nil }
        var reader = AvroReader(bytes, from: objectHeaderBytes)
        guard reader.long() != nil, reader.bytes() != nil else { return nil }
        return reader.bytes()
    }

    /// The record whose Avro body is what follows the first `start` bytes, to the end; nil as above.
    package init?(body bytes: [UInt8], from start: Int) {
        guard start >= 0, start <= bytes.count else { return nil }
        var reader = AvroReader(bytes, from: start)
        guard let number = reader.long(), number >= 0 else { return nil }
        // An operation that is not known yet reads as the enumeration's default.
        operation = UInt8(exactly: number).flatMap(Operation.init) ?? .set
        guard let pool = reader.string(), let key = reader.bytes(), let keyHash = reader.long(),
            let version = reader.long(), let expiry = reader.long(), let region = reader.string(),
            let source = reader.string(), let epoch = reader.long(), let slot = reader.long(),
            let firstSequence = reader.long(), let sequence = reader.long(), let position = reader.string(),
            let time = reader.long(), let reason = reader.optional({ $0.string() }),
            let value = reader.optional({ $0.bytes() }), let flags = reader.optional({ $0.long() }),
            let trace = reader.optional({ $0.string() }), reader.isAtEnd,
            epoch >= 0, (0..<Int64(StreamSlots.count)).contains(slot), expiry >= 0, time >= 0,
            firstSequence >= 0, firstSequence <= sequence, sequence <= OutboxRecord.sequenceMax,
            key.isEmpty || StreamSlots.slot(keyHash: UInt64(bitPattern: keyHash)) == Int(slot)
        else { return nil }
        (self.pool, self.key, self.keyHash) = (pool, key, UInt64(bitPattern: keyHash))
        (self.version, expiryMilliseconds) = (UInt64(bitPattern: version), expiry)
        (self.region, self.source, self.epoch) = (region, source, epoch)
        (self.slot, self.firstSequence, self.sequence) = (Int32(truncatingIfNeeded: slot), firstSequence, sequence)
        (self.position, timeMilliseconds, self.reason) = (position, time, reason)
        (self.value, clientFlags, self.trace) = (value, flags.map { UInt32(truncatingIfNeeded: $0) }, trace)
    }

    /// The schema as Kafka Connect and a registry take it.
    package static let schema = schemaText(isCanonical: false)

    /// The schema's CRC-64-AVRO fingerprint. Source: Avro specification, Schema Fingerprints.
    package static let fingerprint = AvroEncoding.fingerprint(Array(schemaText(isCanonical: true).utf8))

    /// The schema; canonical is the Parsing Canonical Form, without defaults and logical types.
    static func schemaText(isCanonical: Bool) -> String {
        let symbols = #"["SET","DELETE","TOUCH","FLUSH","HEARTBEAT","EPOCH"]"#
        let fallback = isCanonical ? "" : #","default":"SET""#
        let operation = #"{"name":"martlet.Operation","type":"enum","symbols":\#(symbols)\#(fallback)}"#
        let time = isCanonical ? #""long""# : #"{"type":"long","logicalType":"timestamp-millis"}"#
        let fields = [
            ("op", operation), ("pool", #""string""#), ("key", #""bytes""#), ("key_hash", #""long""#),
            ("version", #""long""#), ("exp_ms", #""long""#), ("region", #""string""#), ("source", #""string""#),
            ("epoch", #""long""#), ("slot", #""int""#), ("seq_first", #""long""#), ("seq", #""long""#),
            ("position", #""string""#), ("ts_ms", time),
        ].map { #"{"name":"\#($0.0)","type":\#($0.1)}"# }
        let null = isCanonical ? "" : #","default":null"#
        let optional = [("reason", "string"), ("value", "bytes"), ("flags", "long"), ("trace", "string")]
            .map { #"{"name":"\#($0.0)","type":["null","\#($0.1)"]\#(null)}"# }
        let all = (fields + optional).joined(separator: ",")
        return #"{"name":"martlet.StreamRecord","type":"record","fields":[\#(all)]}"#
    }
}
