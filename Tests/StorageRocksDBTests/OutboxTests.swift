// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Memory
import Platform
import Storage
import StorageRocksDB
import Testing

/// The record of every change.
struct OutboxTests {
    @Test func aRecordSaysWhatWasDone() throws {
        let bed = try StoreBed {
            $0.keepsOutbox = true
            $0.region = "us-east"
            $0.poolNames = ["users"]
        }
        let expiry = bed.clock.now + 9_000
        let stored = bed.write(.set, "a", "value") { $0.expiryMilliseconds = expiry }
        let touched = bed.write(.touch, "a") { $0.expiryMilliseconds = 0 }
        let other = bed.write(.append, "a", "more") { $0.pool = 3 }
        let deleted = bed.write(.delete, "a")
        bed.write(.delete, "a")
        bed.write(.add, "b", "1")
        let key = Array("a".utf8)
        let keyHash = stableHash(key.span)
        let slice = try bed.backend.outboxRecords(slot: Int(keyHash % 64), after: 0, limit: 100)
        let records = slice.records.filter { $0.key == key }
        #expect(records.map(\.operation) == [.set, .touch, .set, .delete])
        #expect(records.map(\.version) == [stored, touched, other, deleted].map(\.version))
        #expect(records.map(\.expiryMilliseconds) == [expiry, 0, 0, 0])
        #expect(records.map(\.pool) == ["users", "users", "3", "users"])
        let first = try #require(records.first)
        #expect(first.region == "us-east" && first.source.count == 16 && first.epoch == 1)
        #expect(first.keyHash == keyHash && first.slot == Int32(keyHash % 64))
        #expect(first.sequence == 1 && first.firstSequence == 1 && first.reason == "write")
        #expect(first.timeMilliseconds == bed.clock.now && Int(first.position) ?? 0 > 0)
        #expect(first.value == nil && first.clientFlags == nil && first.trace == nil)
    }

    @Test func aRowWithALongValueComesWithoutItAndIsNotTakenForNone() throws {
        let bed = try StoreBed { $0.keepsOutbox = true }
        let long = bed.write(.set, "long", String(repeating: "x", count: 1000))
        let short = bed.write(.set, "short", "v")
        bed.write(.set, "gone", "v")
        bed.write(.delete, "gone")
        let changes = try #require(bed.backend.changes)
        let keys = ["long", "gone", "none", "short"].map { Array($0.utf8) }
        let rows = try changes.rows(keys, limitBytes: 10, valueMax: 999)
        #expect(rows.map { $0?.version } == [long.version, nil, nil, short.version])
        #expect(rows[0]?.value == [] && rows[0]?.partialLength == 1000)
        #expect(rows[3]?.value == Array("v".utf8) && rows[3]?.partialLength == nil)
        let whole = try changes.rows(keys, limitBytes: 10, valueMax: 1000)
        #expect(whole.map { $0?.value.count } == [1000])
    }

    @Test func sequencesAreContiguousAcrossRestartsAndAgreeWithTheRows() throws {
        let bed = try StoreBed { $0.keepsOutbox = true }
        var expected: [String: UInt64] = [:]
        for turn in 0..<4 {
            for index in 0..<300 {
                let key = "k\((index * 17 + turn) % 150)"
                let outcome = index % 5 == 4 ? bed.write(.delete, key) : bed.write(.set, key, "v\(turn).\(index)")
                if outcome.version > 0 { expected[key] = outcome.version }
            }
            try bed.restart()
        }
        var newest: [String: UInt64] = [:]
        for slot in 0..<64 {
            let slice = try bed.backend.outboxRecords(slot: slot, after: 0, limit: .max)
            #expect(slice.records.map { Int($0.sequence) } == Array(1..<slice.records.count + 1))
            #expect(slice.last == UInt64(slice.records.count))
            for record in slice.records {
                #expect(record.slot == Int32(slot))
                let key = String(decoding: record.key, as: UTF8.self)
                #expect(record.version > newest[key] ?? 0)
                newest[key] = record.version
            }
        }
        #expect(newest == expected)
        for (key, version) in expected {
            if let row = bed.row(key) { #expect(row.version == version) }
        }
    }

    @Test func readsARangeOfASlot() throws {
        let bed = try StoreBed { $0.keepsOutbox = true }
        for _ in 0..<10 { bed.write(.set, "a", "v") }
        let slot = Int(stableHash(Array("a".utf8).span) % 64)
        #expect(try bed.backend.outboxRecords(slot: slot, after: 4, limit: 3).records.map(\.sequence) == [5, 6, 7])
        #expect(try bed.backend.outboxRecords(slot: slot, after: 10, limit: 3).records.isEmpty)
        #expect(try bed.backend.outboxRecords(slot: (slot + 1) % 64, after: 0, limit: 3).last == 0)
    }

    @Test func withoutAConsumerTheDiskThatItTakesIsBounded() throws {
        let bed = try StoreBed {
            $0.durability = .async
            $0.outboxBufferBytes = 64 << 10
            $0.outboxTrimRecords = 500
        }
        var largest = 0.0
        for turn in 0..<60 {
            let writes = (0..<500).map {
                SubmittedWrite(token: bed.nextToken(), write: StoreBed.make(.set, "k\($0)", "v\(turn)"))
            }
            bed.backend.write(writes)
            for write in writes { _ = bed.answers.write(write.token) }
            largest = max(largest, bed.figure("outbox_bytes"))
            #expect(bed.figure("outbox_backlog") <= 500 + 64, "what nobody wants is let go, whatever the files hold")
        }
        // 30,000 records of about 90 bytes were written: 2.7 MB, and more in every file that rewrites them.
        #expect(largest < 600_000, "the outbox grew to \(largest) bytes")
        try bed.backend.compact()
        #expect(bed.figure("outbox_dropped") > 25_000)
        #expect(bed.figure("outbox_bytes") < 60_000)
        // What is gone is gone, and the sequence goes on.
        let slot = Int(stableHash(Array("k1".utf8).span) % 64)
        let before = try bed.backend.outboxRecords(slot: slot, after: 0, limit: .max)
        #expect(before.firstKept > 0 && before.records.first.map { UInt64($0.sequence) >= before.firstKept } == true)
        try bed.restart()
        bed.write(.set, "k1", "again")
        let after = try bed.backend.outboxRecords(slot: slot, after: 0, limit: .max)
        #expect(after.last == before.last + 1)
        #expect(after.firstKept == before.firstKept)
    }

    @Test func consumersTrimWhatTheyHave() throws {
        let bed = try StoreBed { $0.keepsOutbox = true }
        for _ in 0..<20 { bed.write(.set, "a", "v") }
        #expect(bed.figure("outbox_backlog") == 20)
        let slot = Int(stableHash(Array("a".utf8).span) % 64)
        bed.backend.trimOutbox(slot: slot, through: 15)
        for _ in 0..<60 where try bed.backend.outboxRecords(slot: slot, after: 0, limit: 1).firstKept < 16 {
            Thread.sleep(forTimeInterval: 0.1)
        }
        #expect(
            try bed.backend.outboxRecords(slot: slot, after: 0, limit: .max).records.map(\.sequence) == [
                16, 17, 18, 19, 20,
            ])
        #expect(bed.figure("outbox_backlog") == 5)
        // The last one stays, so that a restart knows where to go on.
        bed.backend.trimOutbox(slot: slot, through: 999)
        for _ in 0..<60 where try bed.backend.outboxRecords(slot: slot, after: 0, limit: 1).firstKept < 20 {
            Thread.sleep(forTimeInterval: 0.1)
        }
        try bed.backend.compact()
        try bed.restart()
        #expect(bed.figure("outbox_backlog") == 1)
        bed.write(.set, "a", "v")
        #expect(try bed.backend.outboxRecords(slot: slot, after: 0, limit: .max).records.map(\.sequence) == [20, 21])
    }

    @Test func pastItsLimitTheOldestRecordsGo() throws {
        let bed = try StoreBed {
            $0.durability = .async
            $0.keepsOutbox = true
            $0.outboxBufferBytes = 64 << 10
            $0.outboxLimitBytes = 200_000
        }
        for turn in 0..<40 {
            let writes = (0..<500).map {
                SubmittedWrite(token: bed.nextToken(), write: StoreBed.make(.set, "k\($0)", "v\(turn)"))
            }
            bed.backend.write(writes)
            for write in writes { _ = bed.answers.write(write.token) }
        }
        for _ in 0..<100 where bed.figure("outbox_bytes") > 200_000 { Thread.sleep(forTimeInterval: 0.2) }
        #expect(bed.figure("outbox_bytes") <= 200_000)
        for slot in 0..<64 {
            let slice = try bed.backend.outboxRecords(slot: slot, after: 0, limit: .max)
            #expect(slice.firstKept > 1)
            #expect(slice.records.first.map { UInt64($0.sequence) } == slice.firstKept)
            #expect(slice.records.count == Int(slice.last - slice.firstKept + 1))
        }
    }

    @Test func writesGoOnWhileTheOutboxIsRewritten() throws {
        // Holds the rewriting until a write was answered, or for so long that the test has failed.
        let (isHeld, isAnswered) = (Guarded(false), Guarded(false))
        let bed = try StoreBed {
            $0.durability = .async
            $0.keepsOutbox = true
            $0.outboxBufferBytes = 64 << 10
            $0.outboxLimitBytes = 100_000
            $0.willCompact = {
                isHeld.withLock { $0 = true }
                for _ in 0..<1_000 where !isAnswered.withLock({ $0 }) { Thread.sleep(forTimeInterval: 0.01) }
            }
        }
        for turn in 0..<200 where !isHeld.withLock({ $0 }) {
            for number in 0..<100 { bed.write(.set, "k\(number)", "v\(turn)") }
            Thread.sleep(forTimeInterval: 0.02)
        }
        #expect(isHeld.withLock { $0 })
        let began = Clock.monotonicNanoseconds()
        bed.write(.set, "meanwhile", "v")
        #expect(Clock.monotonicNanoseconds() - began < 5_000_000_000)
        isAnswered.withLock { $0 = true }
    }
}
