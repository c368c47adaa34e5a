// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Settings

/// How what stands behind a registry's frame was written.
enum WriterSchema: Sendable, Equatable {
    /// In Avro.
    case avro(AvroSchema)
    /// In JSON, which needs no schema to be read.
    case json
    /// In a way that cannot be read, for this reason.
    case refused(String)

    /// What a registry says of a schema; nil where it says nothing.
    init?(_ answer: JSONObject) {
        guard let text = answer["schema"]?.text else { return nil }
        switch answer["schemaType"]?.text ?? "AVRO" {
        case "AVRO":
            if let references = answer["references"]?.array, !references.isEmpty {
                self = .refused("it refers to other schemas, which is not supported")
                return
            }
            do throws(AvroProblem) { self = .avro(try AvroSchema(text)) } catch { self = .refused(error.reason) }
        case "JSON": self = .json
        case let type: self = .refused("it is of the type \(type.prefix(40)); AVRO and JSON can be read")
        }
    }
}

/// A message cannot be read before a registry has told its schema.
struct SchemaAwaited: Error, Equatable {
    /// The schema's number.
    let number: UInt32
    /// Why it is not there; empty where it was not asked for yet.
    var reason = ""
}

/// The schemas that messages were written by, as the registry tells them. What a number stands for never changes: it is
/// asked for once, and kept as long as there is room. Used by one thread.
final class WriterSchemas {
    private let client: RegistryClient?
    private var schemas: [UInt32: WriterSchema] = [:]
    /// The numbers in the order in which they were told.
    private var order: [UInt32] = []
    /// Times that the registry did not tell a schema.
    private(set) var failures: UInt64 = 0

    /// Schemas that are kept at most.
    static let schemasMax = 64
    /// Bytes of an answer at most: a schema in quotes, and some more.
    private static let answerMax = 4 << 20

    /// Asks a registry; nil is none.
    init(_ client: RegistryClient?) { self.client = client }

    /// How many are known.
    var count: Int { schemas.count }

    /// The schema of a number, where it is known. Does not block.
    func known(_ number: UInt32) throws(SchemaAwaited) -> WriterSchema {
        guard let schema = schemas[number] else { throw SchemaAwaited(number: number) }
        return schema
    }

    /// Asks for a schema. Blocks.
    func ask(_ number: UInt32) throws(SchemaAwaited) -> WriterSchema {
        guard let client else {
            failures += 1
            throw SchemaAwaited(
                number: number, reason: "a message has the schema \(number) of a registry: set stream.kafka.registry")
        }
        do throws(RegistryClient.Problem) {
            let answer = try client.ask("GET", "/schemas/ids/\(number)", limit: Self.answerMax)
            guard let schema = WriterSchema(answer) else {
                throw RegistryClient.Problem(reason: "the registry's answer has no schema")
            }
            keep(schema, number)
            return schema
        } catch {
            failures += 1
            throw SchemaAwaited(number: number, reason: "the schema \(number) of a message: \(error.reason)")
        }
    }

    /// Keeps a schema; where there is no room, the one that has been known for longest goes.
    func keep(_ schema: WriterSchema, _ number: UInt32) {
        if schemas.updateValue(schema, forKey: number) != nil { return }
        order.append(number)
        if order.count > Self.schemasMax { schemas[order.removeFirst()] = nil }
    }
}
