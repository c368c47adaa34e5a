// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// A record as the value of a message: behind a registry's frame (0, the schema's number, the Avro body), or, as long
/// as a registry gave no number, as an Avro single object. Pure. Source: Confluent Schema Registry documentation,
/// "Wire format"; Apache Avro 1.11 specification, Single-object encoding.
enum KafkaFrame {
    /// Bytes of a frame before the body.
    static let headerBytes = 5

    /// The value of a record that is there as a single object; `schema` is the registry's number of our schema.
    static func value(object: [UInt8], schema: UInt32?) -> [UInt8] {
        guard let schema, object.count >= OutboxRecord.objectHeaderBytes else { return object }
        var value: [UInt8] = []
        value.reserveCapacity(object.count)
        value.append(0)
        for shift in [24, 16, 8, 0] as [UInt32] { value.append(UInt8(truncatingIfNeeded: schema >> shift)) }
        value.append(contentsOf: object[OutboxRecord.objectHeaderBytes...])
        return value
    }

    /// The value of a record.
    static func value(_ record: OutboxRecord, schema: UInt32?) -> [UInt8] {
        var object: [UInt8] = []
        record.encodeObject(into: &object)
        return value(object: object, schema: schema)
    }

    /// The record of a value, in either form. Whatever the number of its schema, it has to be just what our schema
    /// says: so the registry need not be there for what it says to be understood.
    static func record(_ value: [UInt8]) -> OutboxRecord? {
        value.first == 0 ? OutboxRecord(body: value, from: headerBytes) : OutboxRecord(object: value)
    }

    /// What is wrong with a value that is no record of a partition.
    static func fault(_ value: [UInt8]?, partition: Int) -> RecordFault {
        let value = value ?? []
        var fault = value.first == 0 ? RecordFault(body: value, from: headerBytes) : RecordFault(object: value)
        if record(value) != nil { fault.reason = "it is in partition \(partition), and not of its slot" }
        return fault
    }

    /// The number of the schema of a value in a frame.
    static func schema(of value: [UInt8]) -> UInt32? {
        guard value.count >= headerBytes, value[0] == 0 else { return nil }
        return value[1..<headerBytes].reduce(0) { $0 << 8 | UInt32($1) }
    }
}

/// Where a message stands in the stream, for those whose value does not say: tombstones.
struct KafkaPlace: Sendable, Equatable {
    var source: String
    var epoch: Int64
    var sequence: Int64

    /// A place.
    init(source: String, epoch: Int64, sequence: Int64) {
        (self.source, self.epoch, self.sequence) = (source, epoch, sequence)
    }

    /// Of a record.
    init(_ record: OutboxRecord) {
        (source, epoch, sequence) = (record.source, record.epoch, record.sequence)
    }

    /// Reads ``text``; nil when it is none.
    init?(_ bytes: [UInt8]) {
        let parts = String(decoding: bytes, as: UTF8.self).split(
            separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3, let epoch = Int64(parts[0]), let sequence = Int64(parts[1]), epoch >= 0,
            (0...OutboxRecord.sequenceMax).contains(sequence)
        else { return nil }
        (source, self.epoch, self.sequence) = (String(parts[2]), epoch, sequence)
    }

    /// The epoch, the number and the source, as they stand in a header.
    var text: [UInt8] { Array("\(epoch).\(sequence).\(source)".utf8) }
}
