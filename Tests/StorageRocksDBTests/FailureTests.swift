// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Platform
import Storage
import Testing

@testable import StorageRocksDB

/// What the store does when something is wrong.
struct FailureTests {
    @Test func aFullQueueAnswersNotSent() throws {
        let bed = try StoreBed {
            $0.waitingWriteLimit = 4
            $0.waitingReadLimit = 3
        }
        bed.answers.gate.lock()
        let first = bed.nextToken()
        bed.backend.write([SubmittedWrite(token: first, write: StoreBed.make(.set, "a", "1"))])
        while bed.figure("writes") < 1 { usleep(1_000) }
        let tokens = (0..<6).map { _ in bed.nextToken() }
        for token in tokens {
            bed.backend.write([SubmittedWrite(token: token, write: StoreBed.make(.set, "k\(token)", "1"))])
        }
        bed.answers.gate.unlock()
        #expect(bed.answers.write(first).version > 0)
        let outcomes = tokens.map { bed.answers.write($0) }
        #expect(outcomes.prefix(4).allSatisfy { $0.version > 0 })
        #expect(outcomes.suffix(2).allSatisfy { $0.failure?.kind == .notSent })
        #expect(bed.read("k\(tokens[5])") == .absent)
        #expect(bed.figure("writes_refused") == 2)
        #expect(bed.answers.repeated == 0)
    }

    @Test func stoppingAnswersEverything() throws {
        let bed = try StoreBed()
        let writes = (0..<5_000).map {
            SubmittedWrite(token: bed.nextToken(), write: StoreBed.make(.set, "k\($0)", "v"))
        }
        for write in writes { bed.backend.write([write]) }
        let reads = (0..<5_000).map { StorageRead(token: bed.nextToken(), key: Array("k\($0)".utf8)) }
        for read in reads { bed.backend.read([read]) }
        let backend = bed.backend
        backend.stop()
        #expect(writes.allSatisfy { bed.answers.writeIfAnswered($0.token).version > 0 })
        #expect(reads.allSatisfy { bed.answers.read($0.token) != nil })
        let late = bed.nextToken()
        backend.write([SubmittedWrite(token: late, write: writes[0].write)])
        #expect(bed.answers.write(late).failure?.kind == .notSent)
        #expect(throws: StorageFailure.self) { try backend.scan(prefix: [], after: [], limit: 1) }
        #expect(backend.health != .ready)
        #expect(bed.answers.repeated == 0)
        try bed.restart()
        #expect(try bed.backend.scan(prefix: [], after: [], limit: .max).count == 5_000)
    }

    @Test func wrongPathsAreRefusedWithTheReason() throws {
        let directory = StoreBed.newDirectory()
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        _ = FileManager.default.createFile(atPath: directory + "/file", contents: Data("x".utf8))
        expectRefusal(directory + "/file", "Not a directory")
        expectRefusal(directory + "/file/below", "Not a directory")
        expectRefusal(directory, "no store: it holds file")
        expectRefusal("", "storage.path is empty")
        expectRefusal("/proc/martlet", "mkdir")
        _ = FileManager.default.createFile(atPath: directory + "/CURRENT", contents: Data("MANIFEST-000001\n".utf8))
        expectRefusal(directory, "a database of another program")
    }

    @Test func aStoreThatIsOpenIsNotOpenedAgain() throws {
        let bed = try StoreBed()
        bed.write(.set, "a", "1")
        expectRefusal(bed.configuration.path, "has the store open")
        #expect(bed.text("a") == "1")
    }

    @Test func aNewerFormatIsRefused() throws {
        let bed = try StoreBed()
        bed.backend.stop()
        try change(bed.configuration.path + "/MARTLET") { $0.replacingOccurrences(of: "format 1", with: "format 2") }
        expectRefusal(bed.configuration.path, "has format 2; this version reads formats up to 1")
        try change(bed.configuration.path + "/MARTLET") { _ in "nonsense" }
        expectRefusal(bed.configuration.path, "the file MARTLET is damaged")
    }

    @Test func damagedFilesAreNoticed() throws {
        let bed = try StoreBed()
        bed.write(.set, "a", "1")
        bed.backend.stop()
        let path = bed.configuration.path
        let manifest = try #require(files(path).first { $0.hasPrefix("MANIFEST") })
        let whole = try Data(contentsOf: URL(fileURLWithPath: path + "/" + manifest))
        try whole.prefix(20).write(to: URL(fileURLWithPath: path + "/" + manifest))
        expectRefusal(path, "the database is damaged")
        try whole.write(to: URL(fileURLWithPath: path + "/" + manifest))
        let current = try Data(contentsOf: URL(fileURLWithPath: path + "/CURRENT"))
        try FileManager.default.removeItem(atPath: path + "/CURRENT")
        // An empty store in place of a damaged one would be the worst answer.
        expectRefusal(path, "CURRENT is missing")
        try current.write(to: URL(fileURLWithPath: path + "/CURRENT"))
        try bed.restart()
        #expect(bed.text("a") == "1")
    }

    @Test func aBitFlippedInAFileIsAnErrorAndNoMiss() throws {
        let bed = try StoreBed()
        for index in 0..<50 { bed.write(.set, "k\(index)", "value of \(index)") }
        try bed.backend.compact()
        bed.backend.stop()
        let path = bed.configuration.path
        var flipped = 0
        for name in files(path) where name.hasSuffix(".sst") {
            var bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path + "/" + name)))
            guard let place = bytes.firstRange(of: Array("value of".utf8)) else { continue }
            bytes[place.lowerBound] ^= 0x10
            try Data(bytes).write(to: URL(fileURLWithPath: path + "/" + name))
            flipped += 1
        }
        try #require(flipped > 0)
        try bed.restart()
        guard case .failed(let failure)? = bed.read("k7") else {
            Issue.record("a damaged block was read")
            return
        }
        #expect(failure.kind == .refused)
        #expect(bed.figure("reads_failed") == 1)
        // A condition cannot be decided, a blind set can.
        #expect(bed.write(.append, "k7", "x").failure?.kind == .refused)
        #expect(bed.write(.set, "k7", "new").version > 0)
        #expect(bed.text("k7") == "new")
    }

    @Test func aLogThatIsDamagedInTheMiddleIsRefused() throws {
        let bed = try StoreBed { $0.keepsOutbox = true }
        for index in 0..<300 { bed.write(.set, "k\(index)", String(repeating: "v", count: 500)) }
        bed.backend.stop()
        let path = bed.configuration.path
        let name = try #require(files(path).last { $0.hasSuffix(".log") })
        let whole = try Data(contentsOf: URL(fileURLWithPath: path + "/" + name))
        try #require(whole.count > 150_000)
        #expect(WriteAheadLog.examine([UInt8](whole)) == nil)
        func put(_ change: (inout Data) -> Void) throws {
            var bytes = whole
            change(&bytes)
            try bytes.write(to: URL(fileURLWithPath: path + "/" + name))
        }
        try put { $0[whole.count / 3] ^= 1 }
        expectRefusal(path, "the log \(name) is damaged at byte")
        // In the last block, where no other block follows.
        try put { $0[whole.count - 2_000] ^= 1 }
        expectRefusal(path, "the log \(name) is damaged at byte")
        // A page that a disk returns as zeros, at the begin of a block.
        try put { $0.replaceSubrange(65_536..<69_632, with: Data(count: 4_096)) }
        expectRefusal(path, "the log \(name) is damaged at byte 65536")
        // Half a record at the end is what an interrupted write leaves.
        try put { $0 = $0.prefix(whole.count - 100) }
        try bed.restart()
        #expect(bed.text("k298") != nil)
        #expect(bed.read("k299") == .absent)
    }

    @Test func aFileThatCannotBeWrittenInTheBackgroundMakesItReadOnly() throws {
        let bed = try StoreBed()
        bed.write(.set, "before", "v")
        // Where the next files would go there are directories; the log goes on as ever.
        for number in 1...400 {
            let name = String(format: "%06d.sst", number)
            let path = bed.configuration.path + "/" + name
            if !FileManager.default.fileExists(atPath: path) {
                try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
            }
        }
        try bed.backend.guests.use { database throws(StorageFailure) in
            #expect(throws: RocksDatabase.Failure.self) { try database.flush(.rows) }
            return
        }
        let deadline = Date().addingTimeInterval(20)
        while bed.backend.health == .ready, Date() < deadline { usleep(50_000) }
        guard case .readOnly(let reason) = bed.backend.health else {
            Issue.record("still \(bed.backend.health)")
            return
        }
        #expect(reason.contains("failed in the background"))
        #expect(bed.figure("background_errors") > 0)
        #expect(bed.text("before") == "v")
    }

    @Test func deletesFindRoomWhereSetsFindNone() throws {
        let bed = try StoreBed { $0.waitingWriteBytes = 4_000 }
        bed.write(.set, "gone", "v")
        bed.answers.gate.lock()
        bed.backend.write([SubmittedWrite(token: bed.nextToken(), write: StoreBed.make(.set, "a", "1"))])
        while bed.figure("writes") < 2 { usleep(1_000) }
        let value = String(repeating: "v", count: 1_500)
        let sets = (0..<4).map { SubmittedWrite(token: bed.nextToken(), write: StoreBed.make(.set, "k\($0)", value)) }
        let delete = SubmittedWrite(token: bed.nextToken(), write: StoreBed.make(.delete, "gone"))
        // In one batch: what finds room goes in.
        bed.backend.write(sets + [delete])
        bed.answers.gate.unlock()
        #expect(bed.answers.write(delete.token).version > 0)
        let outcomes = sets.map { bed.answers.write($0.token) }
        #expect(outcomes.prefix(2).allSatisfy { $0.version > 0 })
        #expect(outcomes.suffix(2).allSatisfy { $0.failure?.kind == .notSent })
        #expect(bed.read("gone") == .absent)
    }

    @Test func aDamagedLogCanBeCut() throws {
        let bed = try StoreBed { $0.keepsOutbox = true }
        for index in 0..<300 { bed.write(.set, "k\(index)", String(repeating: "v", count: 500)) }
        bed.backend.stop()
        let name = try #require(files(bed.configuration.path).last { $0.hasSuffix(".log") })
        let url = URL(fileURLWithPath: bed.configuration.path + "/" + name)
        var bytes = try Data(contentsOf: url)
        bytes[bytes.count / 2] ^= 1
        try bytes.write(to: url)
        try bed.restart { $0.acceptsDamagedLog = true }
        #expect(bed.text("k10") != nil)
        #expect(bed.read("k290") == .absent)
        bed.write(.set, "new", "v")
        // Consumers may have seen more than there is now.
        #expect(try allRecords(bed).map(\.epoch).max() ?? 0 > 1)
        try bed.restart { $0.acceptsDamagedLog = false }
        #expect(bed.text("new") == "v")
    }

    @Test func checksumsAreCRC32C() {
        // The vectors of RFC 3720, B.4.
        let zeros = [UInt8](repeating: 0, count: 32)
        let ones = [UInt8](repeating: 0xff, count: 32)
        #expect(CRC32C.checksum(zeros.span, from: 0, length: 32) == 0x8a91_36aa)
        #expect(CRC32C.checksum(ones.span, from: 0, length: 32) == 0x62a8_ab43)
        let digits = Array("x123456789".utf8)
        #expect(CRC32C.checksum(digits.span, from: 1, length: 9) == 0xe306_9283)
    }

    @Test func aRowWithAWrongChecksumIsAnErrorAndNoMiss() throws {
        let bed = try StoreBed()
        bed.write(.set, "a", "one")
        bed.write(.set, "b", "two")
        // Row a under the key b: whole as far as RocksDB knows.
        try bed.backend.guests.use { database throws(StorageFailure) in
            do throws(RocksDatabase.Failure) {
                let row = try database.value(.rows, Array("a".utf8)) ?? []
                let batch = RocksBatch()
                batch.put(.rows, in: database, key: Array("b".utf8), value: row)
                try database.commit(batch, synced: true)
            } catch { throw StorageFailure(.refused, error.reason) }
        }
        let failure = StorageFailure(.refused, BackendCore.damaged)
        #expect(bed.read("b") == .failed(failure))
        #expect(bed.write(.delete, "b") == .failed(failure))
        #expect(throws: failure) { try bed.backend.scan(prefix: [], after: [], limit: 10) }
        bed.write(.set, "c", "three")
        let page = try bed.backend.scan(prefix: [], after: [], ScanBounds(rows: 10))
        #expect(page.rows.map(\.key) == [Array("a".utf8), Array("c".utf8)], "it is passed over")
        let place = ScanDamage(position: 1, key: Array("b".utf8), isOneRow: true, reason: BackendCore.damaged)
        #expect(page.damage == [place] && page.next == nil)
        #expect(bed.figure("checksum_errors") == 4)
        #expect(bed.text("a") == "one")
        #expect(bed.write(.set, "b", "new").version > 0)
        #expect(bed.text("b") == "new")
    }

    @Test func aFullDiskMakesItReadOnlyAndLosesNothing() throws {
        let mount = StoreBed.newDirectory()
        try FileManager.default.createDirectory(atPath: mount, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: mount) }
        guard run("mount", ["-t", "tmpfs", "-o", "size=24m", "tmpfs", mount]) else {
            try Test.cancel("no right to mount a tmpfs here: root is needed")
        }
        defer { _ = run("umount", [mount]) }
        let bed = try StoreBed {
            $0.path = mount + "/store"
            $0.writeBufferBytes = 4 << 20
        }
        let noise = (0..<20_000).map { _ in UInt8.random(in: 0...255) }
        var acknowledged: [String: UInt64] = [:]
        var failure: StorageFailure?
        for index in 0..<2_000 where failure == nil {
            let outcome = bed.write(.set, "k\(index)") { $0.value = noise }
            if outcome.version > 0 { acknowledged["k\(index)"] = outcome.version } else { failure = outcome.failure }
        }
        #expect(failure != nil)
        #expect(bed.write(.set, "more", "v").failure?.kind == .refused)
        guard case .readOnly(let reason) = bed.backend.health else {
            Issue.record("a store on a full disk is \(bed.backend.health)")
            return
        }
        #expect(reason.contains("writes are refused"))
        for (key, version) in acknowledged { #expect(bed.row(key)?.version == version) }
        bed.backend.stop()
        #expect(run("mount", ["-o", "remount,size=200m", mount]))
        try bed.restart()
        #expect(bed.backend.health == .ready)
        for (key, version) in acknowledged { #expect(bed.row(key)?.version == version) }
        #expect(bed.write(.set, "more", "v").version > 0)
    }

    // MARK: Tools

    private func expectRefusal(_ path: String, _ part: String, at location: SourceLocation = #_sourceLocation) {
        let backend = RocksDBBackend(RocksDBConfiguration(path: path))
        do throws(StorageStartError) {
            try backend.start(Answers())
            backend.stop()
            Issue.record("\(path) was opened", sourceLocation: location)
        } catch {
            #expect(error.description.contains(part), "\(error.description)", sourceLocation: location)
        }
    }

    private func files(_ path: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted()
    }

    private func change(_ path: String, _ edit: (String) -> String) throws {
        try edit(String(contentsOfFile: path, encoding: .utf8)).write(toFile: path, atomically: true, encoding: .utf8)
    }

    private func run(_ program: String, _ arguments: [String]) -> Bool {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [program] + arguments
        process.standardError = FileHandle.nullDevice
        do { try process.run() } catch { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }
}
