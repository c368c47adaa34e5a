// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Settings

/// Why a schema, or bytes that are said to follow one, are refused.
struct AvroProblem: Error, Equatable {
    /// In words.
    let reason: String
}

/// The schema that Avro bytes were written by: all that is needed to read them. Names of types, defaults, logical types
/// and other attributes do not change what is read. Pure. Source: Apache Avro 1.11 specification, Schema Declaration.
struct AvroSchema: Sendable, Equatable {
    /// A type; others are named by their places in ``types``.
    enum Kind: Sendable, Equatable {
        case null
        case boolean
        case int
        case long
        case float
        case double
        case bytes
        case string
        case fixed(Int)
        case enumeration([String])
        case array(Int)
        case map(Int)
        case union([Int])
        case record([Field])
    }

    /// A field of a record.
    struct Field: Sendable, Equatable {
        let name: String
        let type: Int
    }

    /// The types, the primitive ones first.
    private(set) var types: [Kind]
    /// The place of the type that bytes are of.
    private(set) var root = 0

    /// Bytes of a schema at most.
    static let bytesMax = 1 << 20
    /// Types of a schema at most, and branches of a union, symbols of an enumeration, fields of a record.
    static let typesMax = 20_000
    /// Bytes of a fixed at most.
    static let fixedMax: Int64 = 16 << 20

    private static let primitives: [(name: String, kind: Kind)] = [
        ("null", .null), ("boolean", .boolean), ("int", .int), ("long", .long), ("float", .float), ("double", .double),
        ("bytes", .bytes), ("string", .string),
    ]
    /// Places of types by their full names.
    private typealias Names = [String: Int]

    /// Reads a schema's JSON.
    init(_ text: String) throws(AvroProblem) {
        guard text.utf8.count <= Self.bytesMax else { throw AvroProblem(reason: "a schema of more than 1 MiB") }
        let node: JSONNode
        do throws(PlacedProblem) { node = try JSONParser.parse(Array(text.utf8), file: "schema") } catch {
            throw AvroProblem(reason: error.text)
        }
        types = Self.primitives.map(\.kind)
        var names = Names()
        for (place, primitive) in Self.primitives.enumerated() { names[primitive.name] = place }
        root = try add(node, space: "", &names)
    }

    /// The place of a type that JSON tells of, within a namespace. JSON is not nested without bound.
    private mutating func add(_ node: JSONNode, space: String, _ names: inout Names) throws(AvroProblem) -> Int {
        switch node.content {
        case .text(let name): return try Self.find(name, space: space, names)
        case .array(let branches):
            let place = try reserve()
            var list: [Int] = []
            for branch in branches {
                if case .array = branch.content { throw AvroProblem(reason: "a union right in a union") }
                list.append(try add(branch, space: space, &names))
            }
            try set(place, .union(list), count: list.count)
            return place
        case .object(let object): return try add(object, space: space, &names)
        default: throw AvroProblem(reason: "\(node.kind) in the place of a type")
        }
    }

    private mutating func add(
        _ object: JSONObject, space: String, _ names: inout Names
    ) throws(AvroProblem) -> Int {
        guard let type = object["type"] else { throw AvroProblem(reason: "an object without a type") }
        switch type.text {
        case nil: return try add(type, space: space, &names)
        case "record", "error":
            let (place, inner) = try name(object, space: space, &names)
            guard let fields = object["fields"]?.array else { throw AvroProblem(reason: "a record without fields") }
            var list: [Field] = []
            for field in fields {
                guard let field = field.object, let name = field["name"]?.text, let type = field["type"] else {
                    throw AvroProblem(reason: "a field without a name and a type")
                }
                list.append(Field(name: name, type: try add(type, space: inner, &names)))
            }
            try set(place, .record(list), count: list.count)
            return place
        case "enum":
            let (place, _) = try name(object, space: space, &names)
            guard let symbols = object["symbols"]?.array?.map(\.text) else {
                throw AvroProblem(reason: "an enum without symbols")
            }
            let list = symbols.compactMap { $0 }
            guard list.count == symbols.count else { throw AvroProblem(reason: "a symbol that is no text") }
            try set(place, .enumeration(list), count: list.count)
            return place
        case "fixed":
            let (place, _) = try name(object, space: space, &names)
            guard let size = object["size"]?.integer, (0...Self.fixedMax).contains(size) else {
                throw AvroProblem(reason: "a fixed without a size, or with one that is too large")
            }
            types[place] = .fixed(Int(size))
            return place
        case "array", "map":
            let place = try reserve()
            guard let part = object[type.text == "map" ? "values" : "items"] else {
                throw AvroProblem(reason: "an array without items, or a map without values")
            }
            let item = try add(part, space: space, &names)
            types[place] = type.text == "map" ? .map(item) : .array(item)
            return place
        case let name?: return try Self.find(name, space: space, names)
        }
    }

    private mutating func reserve() throws(AvroProblem) -> Int {
        guard types.count < Self.typesMax else { throw AvroProblem(reason: "more than \(Self.typesMax) types") }
        types.append(.null)
        return types.count - 1
    }

    private mutating func set(_ place: Int, _ kind: Kind, count: Int) throws(AvroProblem) {
        guard count <= Self.typesMax else { throw AvroProblem(reason: "a type of more than \(Self.typesMax) parts") }
        types[place] = kind
    }

    /// Makes room for a type that has a name, so that its own parts may name it; gives the namespace of these.
    private mutating func name(
        _ object: JSONObject, space: String, _ names: inout Names
    ) throws(AvroProblem) -> (place: Int, space: String) {
        guard let name = object["name"]?.text, !name.isEmpty else { throw AvroProblem(reason: "a type without a name") }
        let full = Self.full(name, space: object["namespace"]?.text ?? space)
        guard names[full] == nil else { throw AvroProblem(reason: "two types of the name \(Self.shown(full))") }
        let place = try reserve()
        names[full] = place
        return (place, full.lastIndex(of: ".").map { String(full[..<$0]) } ?? "")
    }

    private static func full(_ name: String, space: String) -> String {
        space.isEmpty || name.contains(".") ? name : "\(space).\(name)"
    }

    /// Types without a namespace are found from everywhere, as other libraries do.
    private static func find(_ name: String, space: String, _ names: Names) throws(AvroProblem) -> Int {
        if let place = names[full(name, space: space)] ?? names[name] { return place }
        throw AvroProblem(reason: "no type of the name \(shown(name))")
    }

    private static func shown(_ name: String) -> String { String(name.prefix(80)) }
}
