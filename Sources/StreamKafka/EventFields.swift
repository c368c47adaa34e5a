// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Settings

/// The fields of an object of a message, in JSON or in Avro: those that are not there, are null, or are of another type
/// are nil.
enum EventFields {
    case json(JSONObject)
    case avro([String: AvroValue])

    /// What a key or a value of a message says, or why it cannot be read.
    enum Reading {
        case fields(EventFields)
        case damaged(String)
    }

    /// What of an event is looked at: in Avro the rest, such as rows' values, is passed over.
    static let choice: AvroChoice = {
        let row = AvroChoice.fields(["k": .everything, "ver": .everything, "exp": .everything, "del": .everything])
        let source = AvroChoice.fields(["ts_ms": .everything, "lsn": .everything, "snapshot": .everything])
        return .fields([
            "op": .everything, "ts_ms": .everything, "source": source, "before": row, "after": row,
            // Of a message's key.
            "k": .everything,
        ])
    }()

    /// Reads bytes: behind a registry's frame as its schema says, and as JSON without one, which never begins with the
    /// frame's 0.
    static func read(
        _ bytes: [UInt8], schema: (UInt32) throws(SchemaAwaited) -> WriterSchema
    ) throws(SchemaAwaited) -> Reading {
        guard bytes.first == 0 else { return json(bytes, from: 0) }
        guard let number = KafkaFrame.schema(of: bytes) else { return .damaged("a registry's frame is cut short") }
        switch try schema(number) {
        case .json: return json(bytes, from: KafkaFrame.headerBytes)
        case .refused(let reason): return .damaged("the schema \(number): \(reason)")
        case .avro(let schema):
            do throws(AvroProblem) {
                let value = try AvroDecoder.decode(bytes, from: KafkaFrame.headerBytes, schema, choice)
                if case .fields(let fields) = value { return .fields(.avro(fields)) }
                return .damaged("Avro of the schema \(number): no record")
            } catch { return .damaged("Avro of the schema \(number): \(error.reason)") }
        }
    }

    private static func json(_ bytes: [UInt8], from start: Int) -> Reading {
        let node: JSONNode
        do throws(PlacedProblem) {
            node = try JSONParser.parse(start == 0 ? bytes : Array(bytes[start...]), file: "message")
        } catch { return .damaged(error.text) }
        guard let object = node.object else { return .damaged("JSON, and no object") }
        // A schema may stand beside it.
        return .fields(.json(object["payload"]?.object ?? object))
    }

    /// An object within.
    func fields(_ name: String) -> EventFields? {
        switch self {
        case .json(let object): return object[name]?.object.map { .json($0) }
        case .avro(let record):
            if case .fields(let fields) = record[name] { return .avro(fields) }
            return nil
        }
    }

    /// A text.
    func text(_ name: String) -> String? {
        switch self {
        case .json(let object): return object[name]?.text
        case .avro(let record):
            if case .text(let text) = record[name] { return text }
            return nil
        }
    }

    /// A whole number.
    func integer(_ name: String) -> Int64? {
        switch self {
        case .json(let object): return object[name]?.integer
        case .avro(let record):
            if case .integer(let number) = record[name] { return number }
            return nil
        }
    }

    /// Whether something is so.
    func boolean(_ name: String) -> Bool? {
        switch self {
        case .json(let object): return object[name]?.boolean
        case .avro(let record):
            if case .boolean(let value) = record[name] { return value }
            return nil
        }
    }

    /// Bytes; in a text they are in base64.
    func bytes(_ name: String) -> [UInt8]? {
        if case .avro(let record) = self, case .bytes(let bytes) = record[name] { return bytes }
        return text(name).flatMap { Base64.bytes($0) }
    }
}

extension Base64 {
    /// The bytes of a text; nil where it is no base64 of the common alphabet, padded, and nothing else.
    fileprivate static func bytes(_ text: String) -> [UInt8]? {
        let letters = Array(text.utf8)
        var buffer = OutputBuffer(capacity: letters.count)
        guard decode(letters.span, into: &buffer) > 0 else { return nil }
        let bytes = buffer.withSpan { [UInt8](copying: $0) }
        return encoded(bytes) == text ? bytes : nil
    }
}
