// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import StreamKafka

/// Schemas and bytes of Avro, as another library has them, and as nobody should.
struct AvroTests {
    @Test func whatAnotherLibraryWroteIsReadAsItReadsIt() throws {
        let fixtures = try AvroFixtures().all
        #expect(fixtures.count == 120)
        for fixture in fixtures {
            let schema = try AvroSchema(fixture.schema)
            #expect(try AvroDecoder.decode(fixture.bytes, schema) == fixture.value, "\(fixture.schema)")
            // Behind something else, and with nothing of it wanted.
            #expect(try AvroDecoder.decode([9, 9] + fixture.bytes, from: 2, schema) == fixture.value)
            let nothing = try AvroDecoder.decode(fixture.bytes, schema, .fields([:]))
            if case .fields = fixture.value { #expect(nothing == .fields([:])) }
        }
    }

    @Test func whatIsCutShortOrGoesOnIsRefused() throws {
        for fixture in try AvroFixtures().all where !fixture.bytes.isEmpty {
            let schema = try AvroSchema(fixture.schema)
            for choice in [AvroChoice.everything, .fields([:])] {
                for count in 0..<fixture.bytes.count {
                    #expect(throws: AvroProblem.self, "\(fixture.schema) \(count)") {
                        try AvroDecoder.decode(Array(fixture.bytes.prefix(count)), schema, choice)
                    }
                }
                #expect(throws: AvroProblem(reason: "more behind the end of the value")) {
                    try AvroDecoder.decode(fixture.bytes + [0], schema, choice)
                }
            }
        }
    }

    @Test func anyBytesAreAValueOrAreRefused() throws {
        var random = Random(Seed.current)
        let fixtures = try AvroFixtures()
        var schemas = try fixtures.all.map { try AvroSchema($0.schema) }
        for name in ["envelope", "key", "message"] { schemas.append(try fixtures.schema(name)) }
        for round in 0..<20_000 {
            let schema = schemas[Int.random(in: 0..<schemas.count, using: &random)]
            let count = Int.random(in: 0...60, using: &random)
            var bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            // Small numbers lead deeper into types.
            if Bool.random(using: &random) { bytes = bytes.map { $0 & 7 } }
            let choice = Bool.random(using: &random) ? AvroChoice.everything : EventFields.choice
            do throws(AvroProblem) { _ = try AvroDecoder.decode(bytes, schema, choice) } catch {
                #expect(!error.reason.isEmpty, "seed \(Seed.current), round \(round)")
            }
        }
    }

    @Test func anyTextIsASchemaOrIsRefused() throws {
        var random = Random(Seed.current)
        let texts = try AvroFixtures().all.map { Array($0.schema.utf8) }
        for round in 0..<5_000 {
            var text = texts[Int.random(in: 0..<texts.count, using: &random)]
            for _ in 0..<Int.random(in: 1...4, using: &random) where !text.isEmpty {
                let place = Int.random(in: 0..<text.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: text.remove(at: place)
                case 1: text[place] = "[{}],:\"0a".utf8.randomElement(using: &random) ?? 0
                case 2: text.insert(contentsOf: text[..<place], at: place)
                default: text.removeSubrange(place...)
                }
            }
            do throws(AvroProblem) {
                let schema = try AvroSchema(String(decoding: text, as: UTF8.self))
                _ = try? AvroDecoder.decode([0, 2, 4, 6, 8, 0, 0, 0], schema)
            } catch { #expect(!error.reason.isEmpty, "seed \(Seed.current), round \(round)") }
        }
    }

    @Test(arguments: [
        ("", "not valid JSON"), ("7", "a whole number in the place of a type"),
        (#""text""#, "no type of the name text"),
        (#"{"type":"record","name":"R"}"#, "a record without fields"), (#"{"name":"R"}"#, "an object without a type"),
        (#"{"type":"record","fields":[]}"#, "a type without a name"),
        (#"{"type":"record","name":"R","fields":[{"name":"a"}]}"#, "a field without a name and a type"),
        (#"{"type":"enum","name":"E"}"#, "an enum without symbols"),
        (#"{"type":"enum","name":"E","symbols":[1]}"#, "a symbol that is no text"),
        (#"{"type":"fixed","name":"F","size":-1}"#, "a fixed without a size"),
        (#"{"type":"fixed","name":"F","size":99999999999}"#, "a fixed without a size"),
        (#"{"type":"array"}"#, "an array without items"),
        (#"{"type":"map","items":"int"}"#, "an array without items, or a map without values"),
        (#"["int",["null"]]"#, "a union right in a union"),
        (#"[{"type":"fixed","name":"F","size":1},{"type":"fixed","name":"F","size":1}]"#, "two types of the name F"),
        (#"{"type":"fixed","name":"long","size":1}"#, "two types of the name long"),
    ])
    func aSchemaThatIsNoneIsRefused(_ text: String, _ reason: String) {
        let problem = #expect(throws: AvroProblem.self) { try AvroSchema(text) }
        #expect(problem?.reason.hasPrefix(reason) ?? false, "\(problem?.reason ?? "")")
    }

    @Test func schemasHaveBounds() {
        let deep = String(repeating: #"{"type":"array","items":"#, count: 200) + #""int""#
        #expect(throws: AvroProblem.self) { try AvroSchema(deep + String(repeating: "}", count: 200)) }
        #expect(throws: AvroProblem.self) { try AvroSchema(String(repeating: "[", count: 900_000)) }
        let wide = [String](repeating: #"{"type":"array","items":"int"}"#, count: 25_000).joined(separator: ",")
        #expect(throws: AvroProblem(reason: "more than 20000 types")) { try AvroSchema("[\(wide)]") }
        let long = [String](repeating: #""int""#, count: 25_000).joined(separator: ",")
        #expect(throws: AvroProblem(reason: "a type of more than 20000 parts")) { try AvroSchema("[\(long)]") }
        let large = AvroProblem(reason: "a schema of more than 1 MiB")
        #expect(throws: large) { try AvroSchema("\"" + String(repeating: "x", count: 1 << 20) + "\"") }
    }

    @Test func typesThatNeverEndAreRefused() throws {
        // It has itself in it, and takes no bytes.
        let fields = #"[{"name":"a","type":"R"},{"name":"b","type":"R"}]"#
        let own = try AvroSchema("{\"type\":\"record\",\"name\":\"R\",\"fields\":\(fields)}")
        let deep = AvroProblem(reason: "values nested more than 64 levels deep")
        #expect(throws: deep) { try AvroDecoder.decode([], own) }
        // A list that is nested by its bytes.
        let list = try AvroSchema(#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#)
        #expect(throws: deep) { try AvroDecoder.decode([UInt8](repeating: 2, count: 100) + [0], list) }
        #expect(throws: Never.self) { try AvroDecoder.decode([UInt8](repeating: 2, count: 20) + [0], list) }
        // Each type has the one before twice.
        let parts = (1...50).map { number in
            let type =
                "{\"type\":\"record\",\"name\":\"T\(number)\",\"fields\":["
                + "{\"name\":\"a\",\"type\":\"T\(number - 1)\"},{\"name\":\"b\",\"type\":\"T\(number - 1)\"}]}"
            return "{\"name\":\"f\(number)\",\"type\":\(type)}"
        }
        let first = #"{"name":"f0","type":{"type":"record","name":"T0","fields":[]}}"#
        let bomb = try AvroSchema(
            "{\"type\":\"record\",\"name\":\"B\",\"fields\":[\(([first] + parts).joined(separator: ","))]}")
        let many = AvroProblem(reason: "more than 1000000 values")
        #expect(throws: many) { try AvroDecoder.decode([], bomb, .fields([:])) }
        // As many values without bytes as there are numbers.
        let nulls = try AvroSchema(#"{"type":"array","items":"null"}"#)
        let count: [UInt8] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0]
        #expect(throws: many) { try AvroDecoder.decode(count, nulls, .fields([:])) }
    }

    @Test func numbersThatCannotBeAreRefused() throws {
        let bytes = try AvroSchema(#""bytes""#)
        let list = try AvroSchema(#"{"type":"array","items":"bytes"}"#)
        let least: [UInt8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]
        let greatest: [UInt8] = [0xfe] + least.dropFirst()
        for number in [least, greatest, [UInt8](repeating: 0xff, count: 30)] {
            for schema in [bytes, list] {
                #expect(throws: AvroProblem.self) { try AvroDecoder.decode(number, schema) }
                #expect(throws: AvroProblem.self) { try AvroDecoder.decode(number + [0], schema, .fields([:])) }
            }
            // A block of so many bytes.
            #expect(throws: AvroProblem.self) { try AvroDecoder.decode([1] + number, list, .fields([:])) }
        }
        #expect(throws: AvroProblem(reason: "an int of more than 32 bits")) {
            try AvroDecoder.decode([0x80, 0x80, 0x80, 0x80, 0x10], try AvroSchema(#""int""#))
        }
        #expect(throws: AvroProblem(reason: "a boolean of 2")) {
            try AvroDecoder.decode([2], try AvroSchema(#""boolean""#))
        }
        for (number, text) in [(UInt8(4), "2"), (1, "-1")] {
            #expect(throws: AvroProblem(reason: "a union or an enum has no place \(text)")) {
                try AvroDecoder.decode([number, 0], try AvroSchema(#"["null","int"]"#))
            }
        }
    }

    @Test func blocksWithTheirSizesAreReadAndPassedOver() throws {
        let fields = #"[{"name":"a","type":{"type":"array","items":"int"}},{"name":"b","type":"int"}]"#
        let schema = try AvroSchema("{\"type\":\"record\",\"name\":\"R\",\"fields\":\(fields)}")
        // Two in a block that says that it has two bytes, and one in a block that does not.
        let bytes: [UInt8] = [3, 4, 2, 4, 2, 6, 0, 14]
        #expect(
            try AvroDecoder.decode(bytes, schema)
                == .fields(["a": .list([.integer(1), .integer(2), .integer(3)]), "b": .integer(7)]))
        #expect(try AvroDecoder.decode(bytes, schema, .fields(["b": .everything])) == .fields(["b": .integer(7)]))
    }

    @Test func namesAreFoundInTheirNamespaces() throws {
        let text = """
            {"type":"record","name":"R","namespace":"a.b","fields":[
              {"name":"x","type":{"type":"fixed","name":"F","size":1}},
              {"name":"y","type":{"type":"record","name":"c.S","fields":[
                {"name":"z","type":{"type":"fixed","name":"F","size":2}},{"name":"own","type":"F"},
                {"name":"other","type":"a.b.F"}]}},
              {"name":"w","type":"F"},{"name":"v","type":{"type":{"type":"string","logicalType":"uuid"}}}]}
            """
        let found = try AvroDecoder.decode([1, 2, 3, 4, 5, 6, 7, 2, 65], try AvroSchema(text))
        let inner: [String: AvroValue] = ["z": .bytes([2, 3]), "own": .bytes([4, 5]), "other": .bytes([6])]
        #expect(found == .fields(["x": .bytes([1]), "y": .fields(inner), "w": .bytes([7]), "v": .text("A")]))
    }
}

/// What a registry says of schemas, and what is kept of it.
struct WriterSchemaTests {
    private func schema(_ text: String) throws -> WriterSchema? {
        WriterSchema(try RegistryClient.object(Array(text.utf8)))
    }

    @Test func anAnswerTellsHowAMessageWasWritten() throws {
        #expect(try schema(#"{"schema":"\"int\""}"#) == .avro(try AvroSchema(#""int""#)))
        let named = try schema(#"{"schemaType":"AVRO","schema":"\"int\"","references":[]}"#)
        #expect(named == .avro(try AvroSchema(#""int""#)))
        #expect(try schema(#"{"schemaType":"JSON","schema":"{}"}"#) == .json)
        for text in [
            #"{"schemaType":"PROTOBUF","schema":""}"#, #"{"schema":"nothing"}"#,
            #"{"schema":"\"int\"","references":[{"name":"a","subject":"b","version":1}]}"#,
        ] {
            guard case .refused = try schema(text) else { Issue.record("\(text)"); continue }
        }
        #expect(try schema(#"{"id":7}"#) == nil, "no answer at all")
    }

    @Test func theOldestGoesWhereThereIsNoRoom() throws {
        let schemas = WriterSchemas(nil)
        for number in 0..<UInt32(WriterSchemas.schemasMax) { schemas.keep(.json, number) }
        schemas.keep(.json, 0)
        #expect(schemas.count == WriterSchemas.schemasMax)
        schemas.keep(.json, 1000)
        #expect(schemas.count == WriterSchemas.schemasMax)
        #expect(try schemas.known(1000) == .json && schemas.known(1) == .json)
        #expect(throws: SchemaAwaited(number: 0)) { try schemas.known(0) }
    }

    @Test func withoutARegistryTheSettingIsNamed() {
        let schemas = WriterSchemas(nil)
        let problem = #expect(throws: SchemaAwaited.self) { try schemas.ask(7) }
        #expect(problem?.reason.contains("stream.kafka.registry") ?? false)
        #expect(schemas.failures == 1)
    }
}

/// Numbers at random, by a seed. Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators".
struct Random: RandomNumberGenerator {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
