// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Storage
import Testing

@testable import StorageRocksDB

/// Logs behind one another: what lies in a later one tells an interrupted write from a damaged one.
struct WriteAheadLogTests {
    private func logs(_ bed: StoreBed) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: bed.configuration.path)
            .filter { $0.hasSuffix(".log") && !$0.hasPrefix("LOG") }.sorted().map { bed.configuration.path + "/" + $0 }
    }

    /// A closed store with two logs: rows of the first are in files, and its records of the outbox in no file yet.
    private func storeOfTwoLogs() throws -> StoreBed {
        let bed = try StoreBed { $0.keepsOutbox = true }
        for index in 0..<50 { bed.write(.set, "old\(index)", String(repeating: "v", count: 700)) }
        try bed.backend.guests.use { database throws(StorageFailure) in
            do throws(RocksDatabase.Failure) { try database.flush(.rows) } catch {
                throw StorageFailure(.refused, error.reason)
            }
        }
        for index in 0..<50 { bed.write(.set, "new\(index)", String(repeating: "w", count: 700)) }
        bed.backend.stop()
        try #require(try logs(bed).count == 2)
        return bed
    }

    private func change(_ path: String, _ edit: (inout Data) -> Void) throws {
        let url = URL(fileURLWithPath: path)
        var bytes = try Data(contentsOf: url)
        edit(&bytes)
        try bytes.write(to: url)
    }

    private func refusal(_ bed: StoreBed) -> String? {
        do throws(StorageStartError) { try WriteAheadLog.check(bed.configuration.path) } catch {
            return error.description
        }
        return nil
    }

    @Test func theLastRecordOfALogIsMissedInTheNextOne() throws {
        let bed = try storeOfTwoLogs()
        let (old, new) = (try logs(bed)[0], try logs(bed)[1])
        #expect(refusal(bed) == nil)
        let whole = try Data(contentsOf: URL(fileURLWithPath: old))
        let name = URL(fileURLWithPath: old).lastPathComponent
        let next = "(from byte 0 of \(URL(fileURLWithPath: new).lastPathComponent))"
        for (place, bit) in [(whole.count - 3, UInt8(1)), (whole.count - 400, 16)] {
            try change(old) { $0[place] ^= bit }
            #expect(refusal(bed)?.contains("the log \(name) is damaged at byte") == true)
            #expect(refusal(bed)?.contains(next) == true, "\(refusal(bed) ?? "")")
            try change(old) { $0[place] ^= bit }
        }
        // Its end is gone, in the middle of a record and of a record's head.
        for cut in [200, 700] {
            try change(old) { $0 = whole.prefix(whole.count - cut) }
            #expect(refusal(bed)?.contains(next) == true, "\(cut) bytes less")
        }
        try change(old) { $0 = whole }
        try bed.restart()
        #expect(bed.text("old49") != nil && bed.text("new49") != nil)
    }

    /// A process that ends between opening the store and removing the old log leaves one that ends with a write that
    /// was interrupted before.
    @Test(arguments: [3, 100, 711]) func aLogThatAnOpeningHasReadIsNotRefused(_ cut: Int) throws {
        let bed = try StoreBed { $0.keepsOutbox = true }
        for index in 0..<50 { bed.write(.set, "k\(index)", String(repeating: "v", count: 700)) }
        bed.backend.stop()
        let old = try #require(try logs(bed).last)
        try change(old) { $0 = $0.prefix($0.count - cut) }
        let torn = try Data(contentsOf: URL(fileURLWithPath: old))
        for isWritten in [false, true] {
            try bed.restart()
            if isWritten { for index in 0..<20 { bed.write(.set, "later\(index)", "w") } }
            bed.backend.stop()
            let left = try logs(bed)
            try #require(!left.contains(old) && !left.isEmpty)
            try torn.write(to: URL(fileURLWithPath: old))
            #expect(refusal(bed) == nil)
        }
        try bed.restart()
        #expect(bed.text("later19") == "w" && bed.text("k40") != nil)
    }

    @Test func logsOfManyChunksAreReadWhole() throws {
        let bed = try StoreBed {
            $0.keepsOutbox = true
            $0.writeBufferBytes = 64 << 20
        }
        let value = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        for index in 0..<100 { bed.write(.set, "k\(index)") { $0.value = value } }
        bed.backend.stop()
        let log = try #require(try logs(bed).last)
        let length = try #require(fileLength(log))
        try #require(length > 18_000_000, "more than two chunks")
        #expect(refusal(bed) == nil)
        for place in [9_000_000, length - 500_000] {
            try change(log) { $0[place] ^= 1 }
            #expect(refusal(bed)?.contains("is damaged at byte") == true, "byte \(place)")
            try change(log) { $0[place] ^= 1 }
        }
        try change(log) { $0[length - 1_000] ^= 1 }
        #expect(refusal(bed) == nil, "the last record, with nothing behind it")
    }

    private func fileLength(_ path: String) -> Int? {
        (try? FileManager.default.attributesOfItem(atPath: path))?[.size].flatMap { $0 as? Int }
    }
}
