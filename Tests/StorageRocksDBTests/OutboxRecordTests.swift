// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

/// The stream's record in Avro.
struct OutboxRecordTests {
    private func sample() -> OutboxRecord {
        var record = OutboxRecord()
        record.operation = .delete
        record.pool = "users"
        record.key = Array("user:1".utf8)
        record.keyHash = 0xfedc_ba98_7654_3210
        record.version = 118_000_000_000_000_001
        record.expiryMilliseconds = 1_800_000_000_123
        record.region = "us-east"
        record.source = "00112233aabbccdd"
        record.epoch = 3
        record.slot = 16
        record.firstSequence = 9
        record.sequence = 12
        record.position = "4711"
        record.timeMilliseconds = 1_800_000_000_000
        record.reason = "write"
        return record
    }

    @Test func comesBackFromItsBytes() {
        var full = sample()
        full.value = [0, 1, 2, 255]
        full.clientFlags = .max
        full.trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        var bytes: [UInt8] = []
        for record in [sample(), full, OutboxRecord()] {
            record.encodeObject(into: &bytes)
            #expect(bytes.prefix(2) == [0xc3, 0x01])
            #expect(OutboxRecord(object: bytes) == record)
            for length in 0..<bytes.count { #expect(OutboxRecord(object: Array(bytes.prefix(length))) == nil) }
            #expect(OutboxRecord(object: bytes + [0]) == nil)
        }
    }

    @Test func numbersThatNoRecordHasAreRefused() {
        let changes: [(String, (inout OutboxRecord) -> Void)] = [
            ("time", { $0.timeMilliseconds = .min }), ("expiry", { $0.expiryMilliseconds = .min }),
            ("epoch", { $0.epoch = -1 }), ("slot", { $0.slot = 64 }), ("another slot", { $0.slot = 17 }),
            ("no slot", { $0.slot = -1 }), ("sequence", { $0.sequence = .max }), ("order", { $0.firstSequence = 13 }),
            ("first", { $0.firstSequence = .min }),
        ]
        for (name, change) in changes {
            var record = sample()
            change(&record)
            var bytes: [UInt8] = []
            record.encodeObject(into: &bytes)
            #expect(OutboxRecord(object: bytes) == nil, "\(name)")
        }
    }

    /// The bytes and the fingerprint were made with Python's fastavro 1.12 from the schema's text.
    @Test func isWhatOtherProgramsWrite() {
        var bytes: [UInt8] = []
        sample().encodeObject(into: &bytes)
        let hexadecimal = bytes.map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
        #expect(String(OutboxRecord.fingerprint, radix: 16) == expectedFingerprint)
        #expect(hexadecimal == expectedBytes)
    }

    private let expectedFingerprint = "d8bfcfe0a256b2c5"
    private let expectedBytes =
        "c301c5b256a2e0cfbfd8020a75736572730c757365723a31dfb7de9af1d9a2a3028280f8b7fe979ca303f6c1e285e3680e75732d656173"
        + "74203030313132323333616162626363646406201218083437313180c0e285e368020a7772697465000000"
}
