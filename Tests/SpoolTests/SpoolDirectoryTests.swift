// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Testing

@testable import Spool

private func key(_ number: Int) -> [UInt8] { Array("key-\(number)".utf8) }

/// A directory of a test's own.
private func place(_ name: String = #function) -> String {
    "/tmp/martlet-spool-\(ProcessControl.identifier)-\(name.prefix { $0 != "(" })-\(UInt32.random(in: 0...UInt32.max))"
}

private func open(_ path: String, _ change: (inout SpoolConfiguration) -> Void = { _ in }) throws -> SpoolDirectory {
    var configuration = SpoolConfiguration(directory: path)
    configuration.isSynced = false
    change(&configuration)
    return try SpoolDirectory(configuration)
}

/// Takes everything of a server out.
private func drain(_ spool: SpoolDirectory, _ server: String, limit: Int = 7) throws -> [[UInt8]] {
    var all: [[UInt8]] = []
    while spool.count(server) > 0 {
        all += try spool.next(server, limit: limit)
        spool.advance(server)
    }
    return all
}

/// The paths of a server's segments, the oldest first.
private func segments(_ path: String, _ server: String) throws -> [String] {
    let folder = path + "/" + SpoolLog.name(of: server)
    return try directoryEntries(folder).sorted().map { folder + "/" + $0 }
}

@Suite struct SpoolDirectoryTests {
    @Test func givesKeysOfEachServerInOrder() throws {
        let spool = try open(place())
        for number in 0..<100 {
            try spool.append([key(number)], of: number % 2 == 0 ? "a:1" : "[::1]:2", seconds: 5)
        }
        #expect(spool.counts == ["a:1": 50, "[::1]:2": 50])
        #expect(try spool.next("a:1", limit: 3) == [key(0), key(2), key(4)])
        #expect(try spool.next("a:1", limit: 2) == [key(0), key(2)], "nothing was replayed yet")
        spool.advance("a:1")
        #expect(spool.count("a:1") == 48)
        #expect(try drain(spool, "a:1") == stride(from: 4, to: 100, by: 2).map(key))
        #expect(try drain(spool, "[::1]:2") == stride(from: 1, to: 100, by: 2).map(key))
        #expect(spool.counts.isEmpty && spool.bytes == 0)
        try spool.append([key(7)], of: "a:1", seconds: 5)
        #expect(try drain(spool, "a:1") == [key(7)])
    }

    @Test func refusesSegmentsOfALaterVersionAndLeavesThemAlone() throws {
        let path = place()
        do {
            let spool = try open(path)
            try spool.append([key(1), key(2)], of: "a:1", seconds: 5)
        }
        let file = try #require(try segments(path, "a:1").first)
        let bytes = try readFile(file, limitBytes: 1 << 20)
        let later = Array("martlet spool 2\n".utf8) + bytes[16...]
        try writeFile(file, later)
        let error = #expect(throws: SystemError.self) { try open(path) }
        #expect(error?.code == SystemError.notSupportedCode)
        #expect(try readFile(file, limitBytes: 1 << 20) == later)
        try writeFile(file, bytes)
        #expect(try drain(open(path), "a:1") == [key(1), key(2)])
    }

    @Test func keepsKeysFromProcessToProcess() throws {
        let path = place()
        var identifier = ""
        for round in 0..<3 {
            let spool = try open(path)
            if round > 0 { #expect(spool.identifier == identifier) }
            identifier = spool.identifier
            #expect(spool.count("a:1") == round * 10)
            try spool.append((0..<10).map { key(round * 10 + $0) }, of: "a:1", seconds: 1)
        }
        let spool = try open(path)
        #expect(try segments(path, "a:1").count == 3)
        #expect(try drain(spool, "a:1") == (0..<30).map(key))
        #expect(try segments(path, "a:1").isEmpty)
    }

    @Test func removesSegmentsThatWereReplayed() throws {
        let path = place()
        let spool = try open(path) { $0.segmentBytes = 100 }
        for number in 0..<40 { try spool.append([key(number)], of: "a", seconds: 1) }
        let full = try segments(path, "a").count
        #expect(full >= 8)
        for _ in 0..<5 {
            _ = try spool.next("a", limit: 4)
            spool.advance("a")
        }
        #expect(try segments(path, "a").count < full)
        #expect(try drain(spool, "a").last == key(39))
    }

    /// Whatever a crash left of the last record, the ones before it are there and nothing else is.
    @Test func toleratesATornTail() throws {
        let path = place()
        do {
            let spool = try open(path)
            try spool.append((0..<3).map(key), of: "a", seconds: 1)
        }
        let file = try #require(try segments(path, "a").first)
        let whole = try readFile(file, limitBytes: 1 << 20)
        for length in 0..<whole.count {
            removeFile(file)
            let torn = try OpenFile(appending: file, keeping: 0)
            try torn.append(Array(whole[..<length]))
            let records = (length - 16) / 21
            let spool = try open(path)
            #expect(try drain(spool, "a") == (0..<max(records, 0)).map(key), "cut to \(length) bytes")
        }
        for place in 16..<whole.count {
            removeFile(file)
            var damaged = whole
            damaged[place] ^= 0x40
            let written = try OpenFile(appending: file, keeping: 0)
            try written.append(damaged)
            let spool = try open(path)
            #expect(try drain(spool, "a") == (0..<(place - 16) / 21).map(key), "damaged at \(place)")
        }
    }

    @Test func refusesWhatIsBeyondTheLimit() throws {
        let spool = try open(place()) { $0.limitBytes = 200 }
        var taken = 0
        #expect(throws: SpoolDirectory.Refusal.full) {
            for number in 0..<100 {
                try spool.append([key(number)], of: "a", seconds: 1)
                taken += 1
            }
        }
        #expect(taken > 3 && spool.bytes <= 216)
        #expect(try drain(spool, "a") == (0..<taken).map(key))
        try spool.append([key(0)], of: "a", seconds: 1)
        #expect(throws: SpoolDirectory.Refusal.full) { try spool.append([[]], of: "a", seconds: 1) }
    }

    @Test func aWriteThatFailsLeavesTheOthers() throws {
        let path = place()
        let spool = try open(path)
        try spool.append([key(0)], of: "a", seconds: 1)
        // Where the segment was there is a directory now: it can be neither opened nor written.
        let file = try #require(try segments(path, "a").first)
        try renameFile(file, to: file + ".aside")
        try makeDirectory(file)
        #expect(throws: SpoolDirectory.Refusal.self) { try spool.append([key(1)], of: "a", seconds: 1) }
        #expect(spool.count("a") == 1)
        try spool.append([key(2)], of: "b", seconds: 1)
        #expect(try drain(spool, "b") == [key(2)])
    }

    @Test(arguments: ["127.0.0.1:11211", "[::1]:5", "/run/m.sock", "a%b", "..", ".x", "ü:1"])
    func namesOfServersAreDirectories(_ server: String) {
        let name = SpoolLog.name(of: server)
        #expect(!name.contains("/") && name != "." && name != "..")
        #expect(SpoolLog.server(of: name) == server)
    }

    @Test func otherNamesAreLeftAlone() { #expect(SpoolLog.server(of: "lost+found") == nil) }
}
