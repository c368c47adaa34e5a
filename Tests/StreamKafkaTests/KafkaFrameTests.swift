// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

@testable import StreamKafka

struct KafkaFrameTests {
    private var record: OutboxRecord {
        var record = OutboxRecord()
        (record.source, record.epoch, record.slot) = ("a.b", 3, 63)
        (record.firstSequence, record.sequence) = (7, 9)
        record.operation = .heartbeat
        return record
    }

    @Test func aRecordIsReadInEitherForm() {
        for schema in [nil, 0, 4711, UInt32.max] as [UInt32?] {
            let value = KafkaFrame.value(record, schema: schema)
            #expect(KafkaFrame.record(value) == record)
            #expect(KafkaFrame.schema(of: value) == schema)
        }
        #expect(Array(KafkaFrame.value(record, schema: 0x0102_0304).prefix(5)) == [0, 1, 2, 3, 4])
    }

    @Test func whatIsCutShortOrTooLongIsNoRecord() {
        for schema in [nil, 1] as [UInt32?] {
            let value = KafkaFrame.value(record, schema: schema)
            for count in 0..<value.count { #expect(KafkaFrame.record(Array(value.prefix(count))) == nil) }
            #expect(KafkaFrame.record(value + [0]) == nil)
        }
    }

    @Test func randomBytesAreNoRecordAndDoNoHarm() {
        let seed = UInt64.random(in: 0 ... .max)
        var state = seed
        for round in 0..<20_000 {
            var value = round % 2 == 0 ? KafkaFrame.value(record, schema: 1) : [UInt8](repeating: 0, count: round % 90)
            for _ in 0..<(round % 5 + 1) where !value.isEmpty {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                value[Int(state >> 33) % value.count] = UInt8(truncatingIfNeeded: state >> 56)
            }
            if let found = KafkaFrame.record(value) {
                #expect((0..<64).contains(Int(found.slot)) && found.firstSequence <= found.sequence, "seed \(seed)")
            }
        }
    }

    @Test func keysAreFoundWithoutTheRest() {
        var record = OutboxRecord()
        record.pool = "a pool"
        record.key = Array("a key".utf8)
        var object: [UInt8] = []
        record.encodeObject(into: &object)
        #expect(OutboxRecord.key(ofObject: object) == record.key)
        #expect(OutboxRecord.key(ofObject: Array(object.prefix(14))) == nil)
        #expect(OutboxRecord.key(ofObject: [1, 2, 3]) == nil)
    }

    @Test func placesOfTombstonesAreReadAgain() {
        let place = KafkaPlace(record)
        #expect(place.text == Array("3.9.a.b".utf8))
        #expect(KafkaPlace(place.text) == place)
        for text in ["", "3.9", "x.9.s", "3.-1.s", "-3.1.s", "3.99999999999999999999.s"] {
            #expect(KafkaPlace(Array(text.utf8)) == nil, "\(text)")
        }
    }

    @Test func marksKeepWhatTheyWereMadeOf() {
        for (isMark, slot, sequence) in [(false, 0, 1), (true, 63, 1 << 50), (false, 63, (1 << 57) - 1), (true, 0, 0)] {
            let mark = KafkaMark(KafkaMark(isMark: isMark, slot: slot, sequence: Int64(sequence)).bits)
            #expect(mark.isMark == isMark && mark.slot == slot && mark.sequence == Int64(sequence))
        }
    }

    @Test func aRegistrysAnswerGivesItsNumber() {
        func number(_ text: String) -> UInt32? {
            (try? RegistryClient.object(Array(text.utf8))).flatMap { SchemaRegistry.number($0) }
        }
        #expect(number(#"{"id":17}"#) == 17)
        #expect(number(#"{"version":1,"id":4294967295,"schema":"x"}"#) == .max)
        for text in ["", "{}", #"{"id":"17"}"#, #"{"id":-1}"#, #"{"id":4294967296}"#, "[1]", "<html>"] {
            #expect(number(text) == nil, "\(text)")
        }
    }
}

struct KafkaPlacingTests {
    private func place(_ sequence: Int64) -> KafkaPlace {
        var record = OutboxRecord()
        (record.source, record.epoch, record.sequence) = ("s", 1, sequence)
        return KafkaPlace(record)
    }

    @Test func theLastMessageOfEachPartitionIsLookedFor() {
        var placing = KafkaPlacing(starts: [0, 5, 3], ends: [10, 5, 4], back: 1, since: 0)
        #expect(placing.offsets == [9, nil, 3])
        #expect(!placing.isOver && placing.firstEnd == 10)
        placing.met(partition: 0, offset: 9, place: place(40))
        placing.met(partition: 2, offset: 3, place: place(2))
        #expect(placing.isOver && !placing.goesFurtherBack)
        #expect(placing.found == [place(40), nil, place(2)])
    }

    @Test func behindForeignMessagesItIsLookedForFurtherBack() {
        var placing = KafkaPlacing(starts: [0, 0], ends: [40, 2], back: 1, since: 0)
        placing.met(partition: 0, offset: 39, place: nil)
        placing.met(partition: 1, offset: 1, place: place(1))
        #expect(placing.isOver && placing.goesFurtherBack)
        placing = KafkaPlacing(starts: [0, 0], ends: [40, 2], back: 16, since: 0)
        #expect(placing.offsets == [24, 0])
        placing.met(partition: 0, offset: 25, place: place(7))
        placing.met(partition: 0, offset: 39, place: nil)
        placing.met(partition: 1, offset: 1, place: place(1))
        #expect(placing.isOver && !placing.goesFurtherBack && placing.found[0] == place(7))
    }

    @Test func whereCompactionTookTheEndAwayItIsLookedForFurtherBack() {
        var placing = KafkaPlacing(starts: [0], ends: [40], back: 1, since: 0)
        placing.ended(partition: 0)
        #expect(placing.isOver && placing.goesFurtherBack)
        placing = KafkaPlacing(starts: [0], ends: [40], back: 16, since: 0)
        placing.met(partition: 0, offset: 30, place: place(7))
        #expect(!placing.isOver)
        placing.ended(partition: 0)
        #expect(placing.isOver && placing.found == [place(7)])
    }

    @Test func aPartitionOfForeignMessagesAloneHasNoPlace() {
        var placing = KafkaPlacing(starts: [0], ends: [3], back: 16, since: 0)
        for offset in Int64(0)..<3 { placing.met(partition: 0, offset: offset, place: nil) }
        #expect(placing.isOver && !placing.goesFurtherBack && placing.found == [nil])
    }
}

struct KafkaSettingsTests {
    @Test func theLibraryIsToldWhatKeepsTheStreamWhole() throws {
        var configuration = StreamKafkaConfiguration()
        configuration.brokers = ["127.0.0.1:1"]
        func settings(_ kind: KafkaHandle.Kind) -> [String: String] {
            Dictionary(configuration.settings(kind).map { ($0.name, $0.value) }, uniquingKeysWith: { $1 })
        }
        let (producer, consumer) = (settings(.producer), settings(.consumer))
        #expect(producer["enable.idempotence"] == "true" && producer["message.timeout.ms"] == "0")
        #expect(consumer["auto.offset.reset"] == "error" && consumer["enable.auto.commit"] == "false")
        #expect(!configuration.settings(.producer).contains { $0.name.hasPrefix("sasl.") })
        // All of them are settings of the library's, and may go together.
        configuration.security = .saslSSL
        (configuration.username, configuration.password) = ("u", "p")
        for kind in [KafkaHandle.Kind.producer, .consumer] {
            _ = try KafkaHandle(kind, settings: configuration.settings(kind), topic: "t", log: nil)
        }
    }

    @Test func whatTheLibraryRefusesIsNamed() {
        for (settings, part) in [
            ([("no.such.setting", "1")], "no.such.setting"), ([("linger.ms", "x")], "linger.ms"),
            ([("security.protocol", "ssl"), ("ssl.ca.location", "none.pem")], "ssl.ca.location"),
        ] {
            do throws(KafkaFailure) {
                let list = settings.map { (name: $0.0, value: $0.1) }
                _ = try KafkaHandle(.producer, settings: list, topic: "t", log: nil)
                Issue.record("\(settings) was taken")
            } catch { #expect(error.reason.contains(part), "\(error.reason)") }
        }
    }
}
