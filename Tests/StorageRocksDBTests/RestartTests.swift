// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Storage
import StorageRocksDB
import Testing

/// What is there after the store was closed and opened again.
struct RestartTests {
    @Test func keepsValuesFlagsVersionsAndExpiries() throws {
        let bed = try StoreBed()
        var rows: [String: StoredRow] = [:]
        for index in 0..<200 {
            rows["k\(index)"] =
                bed.write(.set, "k\(index)", String(repeating: "v", count: index)) {
                    $0.clientFlags = UInt32(index * 7)
                    $0.expiryMilliseconds = index % 3 == 0 ? 0 : bed.clock.now + Int64(index) * 1_000
                }.row
        }
        let gone = bed.write(.delete, "k0")
        try bed.restart()
        #expect(bed.read("k0") == .absent)
        for (key, row) in rows where key != "k0" { #expect(bed.row(key) == row) }
        #expect(bed.write(.add, "k0", "new").version > gone.version)
        #expect(bed.write(.set, "k5", "cas") { $0.compare = rows["k5"]?.version ?? 0 }.version > 0)
    }

    @Test func versionsGrowThoughTheClockGoesBack() throws {
        let bed = try StoreBed()
        var last = bed.write(.set, "a", "1").version
        for step in 0..<6 {
            bed.clock.now -= 3_600_000
            let key = step % 2 == 0 ? "a" : "fresh\(step)"
            let version = bed.write(.set, key, "x").version
            #expect(version > last)
            last = version
            try bed.restart { $0.durability = RocksDBConfiguration.Durability.allCases[step % 3] }
            let after = bed.write(.set, "b\(step)", "y").version
            #expect(after > last)
            last = after
        }
        bed.clock.now += 30 * 3_600_000
        #expect(bed.write(.set, "a", "2").version >> 16 == UInt64(bed.clock.now))
    }

    @Test func aCopyOpensAsAStoreOfItsOwn() throws {
        let bed = try StoreBed()
        let first = bed.write(.set, "a", "one")
        try bed.backend.checkpoint(to: bed.directory + "/checkpoint")
        try bed.backend.backup(to: bed.directory + "/backups", keep: nil)
        bed.write(.set, "a", "two")
        bed.write(.set, "b", "new")
        try bed.backend.backup(to: bed.directory + "/backups", keep: nil)
        bed.write(.set, "b", "newer")
        try RocksDBBackend.restore(from: bed.directory + "/backups", to: bed.directory + "/restored")
        for (path, a, b) in [("checkpoint", "one", nil), ("restored", "two", "new")] as [(String, String, String?)] {
            let copy = try StoreBed { $0.path = bed.directory + "/" + path }
            #expect(copy.text("a") == a)
            #expect(copy.text("b") == b)
            #expect(copy.write(.set, "a", "three").version > first.version)
            // What came after the copy is gone, so the stream cannot go on where it was.
            #expect(try epoch(of: copy) == copy.clock.now)
        }
        #expect(try epoch(of: bed) == 1)
        #expect(bed.text("b") == "newer")
    }

    /// Whoever followed one of them would take the numbers of the other for his.
    @Test func noTwoRestoredCopiesHaveAnEpochInCommon() throws {
        let bed = try StoreBed()
        bed.write(.set, "a", "one")
        try bed.backend.backup(to: bed.directory + "/backups", keep: nil)
        var epochs: Set<Int64> = [1]
        // The live store, whose process is cut off in `async`, goes on in an epoch that the backup knows nothing of.
        epochs.insert(2)
        for turn in 0..<3 {
            try RocksDBBackend.restore(from: bed.directory + "/backups", to: bed.directory + "/restored\(turn)")
            let copy = try StoreBed {
                $0.path = bed.directory + "/restored\(turn)"
                $0.now = { 1_800_000_000_000 + Int64(turn) * 1_000 }
            }
            copy.write(.set, "a", "two")
            let epoch = try #require(try epoch(of: copy))
            #expect(epochs.insert(epoch).inserted, "epoch \(epoch) came before")
        }
    }

    @Test func refusesToCopyOverSomething() throws {
        let bed = try StoreBed()
        bed.write(.set, "a", "one")
        #expect(throws: StorageFailure.self) { try bed.backend.checkpoint(to: bed.configuration.path) }
        try bed.backend.backup(to: bed.directory + "/backups", keep: nil)
        #expect(throws: StorageFailure.self) {
            try RocksDBBackend.restore(from: bed.directory + "/backups", to: bed.configuration.path)
        }
        #expect(throws: StorageFailure.self) {
            try RocksDBBackend.restore(from: bed.directory + "/nothing", to: bed.directory + "/restored")
        }
        #expect(bed.text("a") == "one")
    }

    private func epoch(of bed: StoreBed) throws -> Int64? {
        for slot in 0..<64 {
            if let record = try bed.backend.outboxRecords(slot: slot, after: 0, limit: 100_000).records.last {
                guard record.timeMilliseconds > 0 else { continue }
                let newest = try allRecords(bed).max { $0.version < $1.version }
                return newest?.epoch
            }
        }
        return nil
    }
}

/// All records of the outbox.
func allRecords(_ bed: StoreBed) throws -> [OutboxRecord] {
    try (0..<64).flatMap { try bed.backend.outboxRecords(slot: $0, after: 0, limit: .max).records }
}
