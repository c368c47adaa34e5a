// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Storage
import Testing

@testable import StorageRocksDB

/// Backups that are kept, removed, read through and taken back one by one.
struct BackupTests {
    /// A store with so many backups, of which each has a value of its own.
    private func bed(_ count: Int, keep: Int? = nil) throws -> (bed: StoreBed, backups: String) {
        let bed = try StoreBed()
        let backups = bed.directory + "/backups"
        for number in 1...count {
            bed.write(.set, "a", "\(number)")
            bed.write(.set, "b\(number)") { $0.value = (0..<5_000).map { _ in UInt8.random(in: 0...255) } }
            try bed.backend.backup(to: backups, keep: keep)
        }
        return (bed, backups)
    }

    private func restored(_ bed: StoreBed, _ backups: String, _ number: UInt32?) throws -> String? {
        let path = bed.directory + "/restored-\(number ?? 0)"
        try RocksDBBackend.restore(from: backups, number: number, to: path)
        return try StoreBed { $0.path = path }.text("a")
    }

    private func reason(_ body: () throws(StorageFailure) -> Void) -> String {
        do throws(StorageFailure) { try body() } catch { return error.reason }
        return "nothing"
    }

    @Test func allAreKeptAndEachCanBeTakenBack() throws {
        let (bed, backups) = try bed(3)
        let all = try RocksDBBackend.backups(in: backups)
        #expect(all.map(\.number) == [1, 2, 3])
        #expect(all.allSatisfy { abs(Double($0.unixSeconds) - Date().timeIntervalSince1970) < 100 && $0.bytes > 5_000 })
        #expect(try restored(bed, backups, 1) == "1")
        #expect(try restored(bed, backups, 2) == "2")
        #expect(try restored(bed, backups, nil) == "3")
        let said = reason { () throws(StorageFailure) in
            try RocksDBBackend.restore(from: backups, number: 9, to: bed.directory + "/none")
        }
        #expect(said == "there is no backup 9 in \(backups); there are: 1, 2, 3")
        #expect(!FileManager.default.fileExists(atPath: bed.directory + "/none"))
    }

    @Test func theOldestGoWithTheirFiles() throws {
        let (bed, backups) = try bed(5, keep: 2)
        #expect(try RocksDBBackend.backups(in: backups).map(\.number) == [4, 5])
        let names = try FileManager.default.contentsOfDirectory(atPath: backups + "/private")
        #expect(Set(names) == ["4", "5"])
        #expect(try restored(bed, backups, 4) == "4")
        #expect(try restored(bed, backups, 5) == "5")
        try bed.backend.backup(to: backups, keep: 1)
        #expect(try RocksDBBackend.backups(in: backups).map(\.number) == [6])
    }

    @Test func aWholeOneIsReadThrough() throws {
        let (bed, backups) = try bed(2)
        defer { bed.backend.stop() }
        let (backup, bytes) = try RocksDBBackend.verifyBackup(in: backups)
        #expect(backup.number == 2 && bytes > 10_000)
        #expect(UInt64(bytes) == backup.bytes)
        #expect(try RocksDBBackend.verifyBackup(in: backups, number: 1).backup.number == 1)
    }

    /// One bit, and the length is as it was.
    @Test func damageIsFound() throws {
        let (bed, backups) = try bed(2)
        let shared = backups + "/shared_checksum"
        let first = try #require(FileManager.default.contentsOfDirectory(atPath: shared).sorted().first)
        let url = URL(fileURLWithPath: shared + "/" + first)
        let whole = try Data(contentsOf: url)
        var bytes = whole
        bytes[bytes.count / 2] ^= 1
        try bytes.write(to: url)
        func said(_ number: UInt32?) -> String {
            reason { () throws(StorageFailure) in _ = try RocksDBBackend.verifyBackup(in: backups, number: number) }
        }
        #expect(said(1).contains("shared_checksum/\(first) is damaged: its checksum is wrong"))
        #expect(said(nil).contains("is damaged"), "the file is shared")
        let refusal = reason { () throws(StorageFailure) in
            try RocksDBBackend.restore(from: backups, number: 1, to: bed.directory + "/damaged")
        }
        #expect(refusal != "nothing", "nor is it taken back")
        try whole.dropLast(10).write(to: url)
        #expect(said(1) != "nothing")
        try FileManager.default.removeItem(at: url)
        #expect(said(1) != "nothing")
        try whole.write(to: url)
        #expect(said(1) == "nothing")
    }

    @Test func directoriesWithoutBackupsAreLeftAlone() throws {
        let bed = try StoreBed()
        let empty = bed.directory + "/empty"
        try FileManager.default.createDirectory(atPath: empty, withIntermediateDirectories: true)
        #expect(try RocksDBBackend.backups(in: empty).isEmpty)
        #expect(try FileManager.default.contentsOfDirectory(atPath: empty).isEmpty, "nothing is made in it")
        let said = reason { () throws(StorageFailure) in _ = try RocksDBBackend.verifyBackup(in: empty) }
        #expect(said == "there are no backups in \(empty)")
        let nowhere = bed.directory + "/nowhere"
        #expect(reason { () throws(StorageFailure) in _ = try RocksDBBackend.backups(in: nowhere) } != "nothing")
        #expect(!FileManager.default.fileExists(atPath: nowhere))
    }
}
