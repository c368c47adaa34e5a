// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

@testable import StreamKafka

/// What Debezium's messages tell of the table of rows.
struct DebeziumEventTests {
    private static let time: Int64 = 1_767_225_600_000
    private static let key = Array("user:1".utf8)
    private static let old: Int64 = 1_767_225_000_000 << 16

    /// A row as the connector writes it; `user:1` in base64.
    private static func row(
        _ version: Int64, expiry: Int64 = 0, deleted: Bool = false, key: String = "dXNlcjox"
    ) -> String {
        "{\"k\":\"\(key)\",\"ver\":\(version),\"exp\":\(expiry),\"flags\":0,\"del\":\(deleted),\"val\":\"eA==\"}"
    }

    private static func read(
        _ operation: String, before: String = "null", after: String = "null", hasSchema: Bool = false,
        key: String? = nil
    ) -> [LoggedChange]? {
        let source = "{\"version\":\"2.7.0.Final\",\"connector\":\"postgresql\",\"ts_ms\":\(time),\"lsn\":24023128}"
        var text =
            "{\"before\":\(before),\"after\":\(after),\"source\":\(source),\"op\":\"\(operation)\","
            + "\"ts_ms\":\(time + 99)}"
        if hasSchema { text = "{\"schema\":{\"type\":\"struct\",\"fields\":[]},\"payload\":\(text)}" }
        return changes(key: key.map { Array($0.utf8) }, value: Array(text.utf8))
    }

    /// What a message in JSON tells of; nil where it cannot be understood.
    private static func changes(key: [UInt8]?, value: [UInt8]?) -> [LoggedChange]? {
        guard case .changes(let changes)? = event(key: key, value: value) else { return nil }
        return changes
    }

    private static func event(key: [UInt8]?, value: [UInt8]?) -> DebeziumEvent? {
        try? DebeziumEvent.read(key: key, value: value, schema: unknown)
    }

    private static func unknown(_ number: UInt32) throws(SchemaAwaited) -> WriterSchema {
        throw SchemaAwaited(number: number)
    }

    private static func change(
        _ operation: OutboxRecord.Operation, _ version: Int64, expiry: Int64 = 0, isUnconditional: Bool
    ) -> LoggedChange {
        LoggedChange(
            operation, key: key, version: version, expiryMilliseconds: expiry, timeMilliseconds: time,
            isUnconditional: isUnconditional)
    }

    @Test(arguments: [false, true]) func anUpdateActsAlwaysUnlessTheVersionGrew(_ hasSchema: Bool) {
        let (before, same) = (Self.row(Self.old), Self.row(Self.old, expiry: 5))
        #expect(
            Self.read("u", before: before, after: same, hasSchema: hasSchema)
                == [Self.change(.set, Self.old, expiry: 5, isUnconditional: true)])
        #expect(
            Self.read("u", before: before, after: Self.row(Self.old + 1), hasSchema: hasSchema)
                == [Self.change(.set, Self.old + 1, isUnconditional: false)])
        #expect(
            Self.read("u", after: Self.row(Self.old + 1), hasSchema: hasSchema)
                == [Self.change(.set, Self.old + 1, isUnconditional: true)], "nobody knows what it was")
        #expect(
            Self.read("u", before: before, after: Self.row(Self.old, expiry: 5, deleted: true), hasSchema: hasSchema)
                == [Self.change(.delete, Self.old, isUnconditional: true)])
    }

    @Test func aVersionThatTheOldRowDoesNotTellOfDidNotGrow() {
        let grown = Self.row(Self.old + 1)
        for before in ["{\"k\":\"dXNlcjox\"}", "{\"k\":\"dXNlcjox\",\"ver\":null}"] {
            #expect(
                Self.read("u", before: before, after: grown)
                    == [Self.change(.set, Self.old + 1, isUnconditional: true)])
        }
    }

    @Test func ofEachKeyTheLastChangeIsLeft() {
        let gone = Self.change(.delete, Self.time << 16, isUnconditional: true)
        let made = Self.change(.set, Self.old, isUnconditional: false)
        var other = made
        other.key = [1]
        var flush = gone
        (flush.operation, flush.key) = (.flush, [])
        #expect(
            DebeziumEvent.lastOfEachKey([gone, other, flush, made])
                == [other, flush, Self.change(.set, Self.old, isUnconditional: true)])
        #expect(DebeziumEvent.lastOfEachKey([made, made, gone]) == [gone])
        #expect(DebeziumEvent.lastOfEachKey([made, made]) == [made])
        #expect(DebeziumEvent.lastOfEachKey([]) == [])
        var givenUp = flush
        givenUp.version = Self.time
        #expect(DebeziumEvent.lastOfEachKey([flush, givenUp]) == [flush], "rows are gone, whatever is given up")
        #expect(DebeziumEvent.lastOfEachKey([givenUp, flush]) == [flush])
    }

    @Test func anInsertionActsAlwaysUnlessANodeMayHaveMadeIt() {
        #expect(Self.read("c", after: Self.row(Self.old)) == [Self.change(.set, Self.old, isUnconditional: false)])
        #expect(Self.read("c", after: Self.row(1)) == [Self.change(.set, 1, isUnconditional: true)])
    }

    @Test func aDeletionActsAlwaysUnlessTheRowWasOver() {
        let gone = Self.change(.delete, Self.time << 16, isUnconditional: true)
        #expect(Self.read("d", before: Self.row(Self.old)) == [gone])
        #expect(Self.read("d", key: "{\"k\":\"dXNlcjox\"}") == [gone])
        #expect(Self.read("d", key: "{\"schema\":{},\"payload\":{\"k\":\"dXNlcjox\"}}") == [gone])
        #expect(Self.read("d", before: Self.row(Self.old, deleted: true)) == [])
        #expect(Self.read("d", before: Self.row(Self.old, expiry: Self.time)) == [])
        let ahead = (Self.time + 5) << 16
        #expect(Self.read("d", before: Self.row(ahead))?.first?.version == ahead + 1)
    }

    @Test func aTruncationIsAFlush() {
        let flush = LoggedChange(
            .flush, key: [], version: Self.time << 16, timeMilliseconds: Self.time, isUnconditional: true)
        #expect(Self.read("t") == [flush])
    }

    @Test func aSnapshotIsToldByItsPlaceAndRowsThatAreReadAgainActAlways() {
        func read(_ snapshot: String, lsn: String = "77") -> DebeziumEvent? {
            let source = "{\"ts_ms\":\(Self.time),\"lsn\":\(lsn),\"snapshot\":\"\(snapshot)\"}"
            let text = "{\"op\":\"r\",\"before\":null,\"after\":\(Self.row(Self.old)),\"source\":\(source)}"
            return Self.event(key: nil, value: Array(text.utf8))
        }
        for kind in ["first", "first_in_data_collection", "true", "last_in_data_collection", "last", "false"] {
            #expect(read(kind) == .snapshot(77))
        }
        #expect(read("true", lsn: "null") == .snapshot(Self.time))
        #expect(read("incremental") == .changes([Self.change(.set, Self.old, isUnconditional: true)]))
    }

    @Test func inAvroEventsSayWhatTheySayInJSON() throws {
        let fixtures = try AvroFixtures()
        var schemas: [UInt32: AvroSchema] = [:]
        for (number, name) in [(UInt32(1), "envelope"), (2, "key"), (3, "message")] {
            schemas[number] = try fixtures.schema(name)
        }
        #expect(fixtures.events.count == 64)
        var kinds: Set<String> = []
        for event in fixtures.events {
            var asked: [UInt32] = []
            func schema(_ number: UInt32) throws(SchemaAwaited) -> WriterSchema {
                asked.append(number)
                guard let schema = schemas[number] else { throw SchemaAwaited(number: number) }
                return .avro(schema)
            }
            let expected = Self.event(key: event.key, value: event.value)
            let text = String(decoding: event.value, as: UTF8.self)
            // Keys and values may be written in different ways.
            for (key, value) in [
                (event.avroKey, event.avroValue), (event.key, event.avroValue), (event.avroKey, event.value),
            ] { #expect(try DebeziumEvent.read(key: key, value: value, schema: schema) == expected, "\(text)") }
            // A key's schema is asked for where it is needed.
            #expect(!asked.contains(2) || text.contains("\"op\": \"d\""), "\(text)")
            let awaited = SchemaAwaited(number: text.contains("\"op\": \"m\"") ? 3 : 1)
            #expect(throws: awaited) { try DebeziumEvent.read(key: nil, value: event.avroValue, schema: Self.unknown) }
            switch expected {
            case .changes(let changes): kinds.insert(changes.isEmpty ? "nothing" : "change")
            case .snapshot: kinds.insert("snapshot")
            case .damaged: kinds.insert("damaged")
            case nil: Issue.record("\(text)")
            }
        }
        #expect(kinds == ["nothing", "change", "snapshot", "damaged"])
    }

    @Test func whatCannotBeReadBehindAFrameIsSaidToBeSo() throws {
        func read(_ bytes: [UInt8], _ schema: WriterSchema) throws -> DebeziumEvent {
            try DebeziumEvent.read(key: nil, value: bytes) { _ in schema }
        }
        func reason(_ bytes: [UInt8], _ schema: WriterSchema) throws -> String {
            guard case .damaged(let reason) = try read(bytes, schema) else { return "" }
            return reason
        }
        let text = Array("{\"op\":\"c\",\"after\":\(Self.row(1))}".utf8)
        let change = LoggedChange(.set, key: Self.key, version: 1, timeMilliseconds: 0, isUnconditional: true)
        // JSON with a schema in a registry.
        #expect(try read([0, 0, 0, 0, 7] + text, .json) == .changes([change]))
        #expect(try reason([0, 0, 0, 0, 7] + text, .refused("nobody knows")) == "the schema 7: nobody knows")
        #expect(try reason([0], .json) == "a registry's frame is cut short")
        #expect(try reason([0, 0, 0, 0, 7, 2], .avro(try AvroSchema(#""int""#))) == "Avro of the schema 7: no record")
        let short = try reason([0, 0, 0, 0, 7, 2], .avro(try AvroFixtures().schema("envelope")))
        #expect(short.hasPrefix("Avro of the schema 7: the bytes end too early"))
    }

    @Test func whatTellsOfNoChangeIsPassedOver() {
        #expect(Self.changes(key: Self.key, value: nil) == [], "a tombstone")
        #expect(Self.read("m") == [])
        let long = [String](repeating: "QUFB", count: 84).joined()
        #expect(Self.read("c", after: Self.row(1, key: long)) == [], "no client can name a key of 252 bytes")
    }

    @Test(arguments: [
        "", "x", "[]", "1", "{}", "{\"op\":7}", "{\"op\":\"u\"}", "{\"op\":\"u\",\"after\":{}}",
        "{\"op\":\"u\",\"after\":{\"k\":\"\"}}", "{\"op\":\"c\",\"after\":{\"k\":\"=\"}}",
        "{\"op\":\"d\",\"before\":null}",
        // Another alphabet, two lines, and something behind the end.
        "{\"op\":\"c\",\"after\":{\"k\":\"dXNl-_cjox\"}}", "{\"op\":\"c\",\"after\":{\"k\":\"dXNl\\ncjox\"}}",
        "{\"op\":\"c\",\"after\":{\"k\":\"AA==AAAA\"}}",
        "{\"op\":\"q\",\"after\":{\"k\":\"dXNlcjox\"}}", "{\"payload\":{\"op\":\"u\",\"after\":{\"k\":3}}}",
    ])
    func whatIsNoEventIsSaidToBeNone(_ text: String) {
        #expect(Self.changes(key: nil, value: Array(text.utf8)) == nil)
    }

    @Test func oddNumbersDoNoHarm() {
        for number in [Int64.min, -1, .max] {
            let text = Self.row(number, expiry: number)
            let event = "{\"op\":\"d\",\"before\":\(text),\"after\":\(text),\"ts_ms\":\(number)}"
            for operation in ["c", "u", "d", "t"] {
                let bytes = Array(event.replacing("\"op\":\"d\"", with: "\"op\":\"\(operation)\"").utf8)
                let found = Self.changes(key: nil, value: bytes)
                #expect(found != nil)
                for change in found ?? [] {
                    #expect(change.version >= 0 && change.timeMilliseconds >= 0 && change.expiryMilliseconds >= 0)
                }
            }
        }
    }
}
