// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Platform
import Settings

@testable import StreamKafka

/// What another library wrote and read: see Scripts/make-avro-fixtures.
struct AvroFixtures {
    /// A schema, what was written by it, and what was read of that.
    struct Fixture {
        let schema: String
        let bytes: [UInt8]
        let value: AvroValue
    }

    /// An event of Debezium's in both ways.
    struct Event {
        let key: [UInt8]
        let value: [UInt8]
        let avroKey: [UInt8]
        let avroValue: [UInt8]
    }

    private let root: JSONObject

    init() throws {
        let path = #filePath.split(separator: "/").dropLast().joined(separator: "/")
        let file = try readFile("/\(path)/avro-fixtures.json", limitBytes: 4 << 20)
        root = try JSONParser.parse(file, file: "fixtures").object ?? JSONObject()
    }

    /// Schemas of Debezium's: `envelope`, `key`, `message`.
    func schema(_ name: String) throws -> AvroSchema {
        try AvroSchema(root["debezium"]?.object?[name]?.text ?? "")
    }

    var events: [Event] {
        root["events"]?.array?.compactMap { node in
            guard let one = node.object, let key = one["key"]?.text, let value = one["value"]?.text,
                let avroKey = one["avroKey"]?.text.flatMap({ Hexadecimal.bytes($0) }),
                let avroValue = one["avroValue"]?.text.flatMap({ Hexadecimal.bytes($0) })
            else { return nil }
            return Event(key: Array(key.utf8), value: Array(value.utf8), avroKey: avroKey, avroValue: avroValue)
        } ?? []
    }

    var all: [Fixture] {
        root["values"]?.array?.compactMap { node in
            guard let one = node.object, let schema = one["schema"]?.text, let value = one["value"],
                let bytes = one["bytes"]?.text.flatMap({ Hexadecimal.bytes($0) })
            else { return nil }
            return Fixture(schema: schema, bytes: bytes, value: Self.value(value))
        } ?? []
    }

    /// What JSON cannot tell apart is in an object of one entry.
    private static func value(_ node: JSONNode) -> AvroValue {
        switch node.content {
        case .null: return .null
        case .boolean(let value): return .boolean(value)
        case .integer(let number): return .integer(number)
        case .double(let number): return .double(number)
        case .text(let text): return .text(text)
        case .array(let list): return .list(list.map { value($0) })
        case .object(let object):
            if let digits = object["bytes"]?.text { return .bytes(Hexadecimal.bytes(digits) ?? []) }
            var fields: [String: AvroValue] = [:]
            for (name, part) in object["fields"]?.object?.entries ?? [] { fields[name] = value(part) }
            return .fields(fields)
        }
    }
}
