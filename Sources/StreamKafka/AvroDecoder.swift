// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// What Avro bytes say.
indirect enum AvroValue: Sendable, Equatable {
    case null
    case boolean(Bool)
    /// An int or a long.
    case integer(Int64)
    /// A float or a double.
    case double(Double)
    /// Bytes or a fixed.
    case bytes([UInt8])
    /// A string, or an enum's symbol.
    case text(String)
    case list([AvroValue])
    /// A record or a map.
    case fields([String: AvroValue])
}

/// What of a value is wanted: the rest is passed over, and not kept.
indirect enum AvroChoice: Sendable {
    case everything
    /// These fields of a record, and nothing of what is no record.
    case fields([String: AvroChoice])
}

/// Reads bytes by the schema that they were written by. What is no such bytes is refused: each step looks at how many
/// bytes are left, how deep it is, and how many steps there were. Pure. Source: Apache Avro 1.11 specification, Binary
/// Encoding.
struct AvroDecoder {
    private let schema: AvroSchema
    private var reader: AvroReader
    private var steps = 0

    /// Levels of nesting at most: a type may contain itself.
    static let depthMax = 64
    /// Values at most: of some types, any number takes no bytes.
    static let stepsMax = 1_000_000

    /// The value that the bytes from `position` on are, to their end.
    static func decode(
        _ bytes: [UInt8], from position: Int = 0, _ schema: AvroSchema, _ choice: AvroChoice = .everything
    ) throws(AvroProblem) -> AvroValue {
        guard position <= bytes.count else { throw Self.short }
        var decoder = AvroDecoder(schema: schema, reader: AvroReader(bytes, from: position))
        let value = try decoder.value(schema.root, choice, depth: 0)
        guard decoder.reader.isAtEnd else { throw AvroProblem(reason: "more behind the end of the value") }
        return value ?? .null
    }

    private init(schema: AvroSchema, reader: AvroReader) {
        self.schema = schema
        self.reader = reader
    }

    private static let short = AvroProblem(reason: "the bytes end too early, or have a number that cannot be")

    /// A value of a type; nil where it is not wanted.
    private mutating func value(_ type: Int, _ choice: AvroChoice?, depth: Int) throws(AvroProblem) -> AvroValue? {
        steps += 1
        guard steps <= Self.stepsMax else { throw AvroProblem(reason: "more than \(Self.stepsMax) values") }
        guard depth < Self.depthMax else {
            throw AvroProblem(reason: "values nested more than \(Self.depthMax) levels deep")
        }
        switch schema.types[type] {
        case .null: return .null
        case .boolean:
            guard let byte = reader.bytes(count: 1)?.first else { throw Self.short }
            guard byte <= 1 else { throw AvroProblem(reason: "a boolean of \(byte)") }
            return .boolean(byte == 1)
        case .int:
            guard let number = reader.long() else { throw Self.short }
            guard Int32(exactly: number) != nil else { throw AvroProblem(reason: "an int of more than 32 bits") }
            return .integer(number)
        case .long:
            guard let number = reader.long() else { throw Self.short }
            return .integer(number)
        case .float:
            return try raw(4, choice) { bytes in
                .double(Double(Float(bitPattern: UInt32(truncatingIfNeeded: Self.number(bytes)))))
            }
        case .double: return try raw(8, choice) { .double(Double(bitPattern: Self.number($0))) }
        case .fixed(let size): return try raw(Int64(size), choice) { .bytes($0) }
        case .bytes:
            guard let count = reader.long() else { throw Self.short }
            return try raw(count, choice) { .bytes($0) }
        case .string:
            guard let count = reader.long() else { throw Self.short }
            return try raw(count, choice) { .text(String(decoding: $0, as: UTF8.self)) }
        case .enumeration(let symbols): return .text(symbols[try place(of: symbols.count)])
        case .union(let branches):
            return try value(branches[try place(of: branches.count)], choice, depth: depth + 1)
        case .record(let fields): return try record(fields, choice, depth: depth)
        case .array(let item):
            var list: [AvroValue] = []
            try blocks(choice) { (decoder, part) throws(AvroProblem) in
                if let found = try decoder.value(item, part, depth: depth + 1), part != nil { list.append(found) }
            }
            return .list(list)
        case .map(let item):
            var found: [String: AvroValue] = [:]
            try blocks(choice) { (decoder, part) throws(AvroProblem) in
                guard let name = decoder.reader.bytes() else { throw Self.short }
                let value = try decoder.value(item, part, depth: depth + 1)
                if let value, part != nil { found[String(decoding: name, as: UTF8.self)] = value }
            }
            return .fields(found)
        }
    }

    /// So many bytes; nil where they are not wanted.
    private mutating func raw(
        _ count: Int64, _ choice: AvroChoice?, _ make: ([UInt8]) -> AvroValue
    ) throws(AvroProblem) -> AvroValue? {
        guard choice != nil else {
            guard reader.skip(count) else { throw Self.short }
            return nil
        }
        guard let bytes = reader.bytes(count: count) else { throw Self.short }
        return make(bytes)
    }

    private static func number(_ bytes: [UInt8]) -> UInt64 { bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) } }

    /// Which of so many symbols or branches.
    private mutating func place(of count: Int) throws(AvroProblem) -> Int {
        guard let number = reader.long() else { throw Self.short }
        guard number >= 0, number < Int64(count) else {
            throw AvroProblem(reason: "a union or an enum has no place \(number)")
        }
        return Int(number)
    }

    private mutating func record(
        _ fields: [AvroSchema.Field], _ choice: AvroChoice?, depth: Int
    ) throws(AvroProblem) -> AvroValue? {
        var found: [String: AvroValue] = [:]
        for field in fields {
            let part: AvroChoice? =
                switch choice {
                case nil: nil
                case .everything: .everything
                case .fields(let wanted): wanted[field.name]
                }
            let value = try value(field.type, part, depth: depth + 1)
            if let value, part != nil { found[field.name] = value }
        }
        return .fields(found)
    }

    /// The blocks of an array or a map. A block that says how many bytes it has is passed over where it is not wanted.
    private mutating func blocks(
        _ choice: AvroChoice?, _ item: (inout AvroDecoder, AvroChoice?) throws(AvroProblem) -> Void
    ) throws(AvroProblem) {
        var part: AvroChoice?
        if case .everything = choice { part = .everything }
        while true {
            guard var count = reader.long() else { throw Self.short }
            if count == 0 { return }
            if count < 0 {
                guard count > .min, let size = reader.long() else { throw Self.short }
                count = -count
                if part == nil {
                    guard reader.skip(size) else { throw Self.short }
                    continue
                }
            }
            for _ in 0..<count { try item(&self, part) }
        }
    }
}
