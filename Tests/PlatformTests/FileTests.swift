// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Platform
import Testing

@Suite struct FileTests {
    private let directory = NSTemporaryDirectory() + "martlet-\(UUID().uuidString)"

    init() throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    }

    @Test func readsBackWhatItWrote() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let path = directory + "/a"
        for size in [0, 1, 65_536, 65_537, 300_000] {
            let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            try writeFile(path, bytes)
            #expect(try readFile(path, limitBytes: 300_000) == bytes)
        }
        try renameFile(path, to: directory + "/b")
        #expect(throws: SystemError.self) { try readFile(path, limitBytes: 10) }
        removeFile(directory + "/b")
        #expect(!FileManager.default.fileExists(atPath: directory + "/b"))
    }

    /// `/dev/full` is a disk without room: what was swallowed once was a file that is not there.
    @Test func saysThatADiskIsFull() throws {
        for bytes in [[1, 2, 3], [UInt8](repeating: 7, count: 100_000)] {
            do throws(SystemError) {
                try writeFile("/dev/full", bytes)
                Issue.record("a full disk took \(bytes.count) bytes")
            } catch {
                #expect(error.description == "write /dev/full: No space left on device")
            }
        }
        // To people it is said once and for all, or not at all.
        let full = try createFile("/dev/full")
        writeWhole([1], to: full.number)
    }

    @Test func refusesAFileBeyondTheLimit() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let path = directory + "/a"
        try writeFile(path, [1, 2, 3])
        #expect(try readFile(path, limitBytes: 3) == [1, 2, 3])
        #expect(throws: SystemError.self) { try readFile(path, limitBytes: 2) }
        #expect(throws: SystemError.self) { try readFile(directory, limitBytes: 10) }
    }

    @Test func namesTheReasonAlone() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        do throws(SystemError) {
            _ = try readFile(directory + "/none", limitBytes: 1)
            Issue.record("read what is not there")
        } catch {
            #expect(error.reason == "No such file or directory")
            #expect(error.description == "open \(directory)/none: No such file or directory")
        }
    }

    @Test func tellsTheEnvironment() {
        let all = Environment.all()
        #expect(all["PATH"] == Environment.value("PATH"))
        #expect(all["PATH"] != nil)
        #expect(Environment.value("MARTLET_SURELY_NOT_SET") == nil)
    }

    @Test func knowsUsersAndProcesses() {
        #expect(ProcessControl.user("root")?.identifier == 0)
        #expect(ProcessControl.user("nobody-of-that-name") == nil)
        #expect(ProcessControl.isRunning(ProcessControl.identifier))
        #expect(throws: SystemError.self) { try ProcessControl.notifySupervisor(directory + "/none", "READY=1") }
        #expect(throws: SystemError.self) { try ProcessControl.notifySupervisor("", "READY=1") }
        try? FileManager.default.removeItem(atPath: directory)
    }

    @Test func readsAndRaisesTheLimitOfDescriptors() throws {
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try ProcessControl.raiseDescriptorLimit(to: 16)
        #expect(throws: SystemError.self) { try ProcessControl.raiseDescriptorLimit(to: UInt64.max / 2) }
    }
}
