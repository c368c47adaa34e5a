// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Platform
import Testing

@testable import Telemetry

/// The lines that `use` makes a log write.
private func lines(
    _ change: (inout Log.Configuration) -> Void = { _ in }, _ use: (Log) -> Void
) throws -> [String] {
    let pipe = Pipe()
    var configuration = Log.Configuration()
    configuration.fd = pipe.fileHandleForWriting.fileDescriptor
    change(&configuration)
    use(Log(configuration))
    try pipe.fileHandleForWriting.close()
    let data = try pipe.fileHandleForReading.readToEnd() ?? Data()
    let text = String(decoding: data, as: UTF8.self)
    #expect(text.isEmpty || text.hasSuffix("\n"))
    return text.split(separator: "\n").map(String.init)
}

private func object(_ line: String) throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
}

@Suite struct LogTests {
    @Test func writesOneJSONObjectALine() throws {
        let written = try lines { log in
            log.info(
                "listening",
                [
                    "address": "127.0.0.1:11211", "count": .count(3), "tls": true, "big": .unsigned(.max),
                    "ratio": .number(0.5), "odd": .text("a\"b\\c\n\u{1}\u{7F}ü"), "bad": .number(.nan),
                ])
        }
        let fields = try object(try #require(written.first))
        #expect(written.count == 1)
        #expect(fields["level"] as? String == "info")
        #expect(fields["msg"] as? String == "listening")
        #expect(fields["address"] as? String == "127.0.0.1:11211")
        #expect(fields["count"] as? Int == 3)
        #expect(fields["tls"] as? Bool == true)
        #expect(fields["big"] as? UInt64 == .max)
        #expect(fields["ratio"] as? Double == 0.5)
        #expect(fields["odd"] as? String == "a\"b\\c\n\u{1}\u{7F}ü")
        #expect(fields["bad"] is NSNull)
        let time = try #require(fields["ts"] as? String)
        #expect(time.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z/) != nil)
    }

    @Test func writesLogfmt() throws {
        let written = try lines({ $0.format = .logfmt }) { log in
            log.warning("port taken", ["port": 9150, "plain": "a/b", "odd": "a b=c", "empty": ""])
        }
        let line = try #require(written.first)
        let rest = try #require(line.split(separator: " ", maxSplits: 1).last)
        #expect(rest == #"level=warning msg="port taken" port=9150 plain=a/b odd="a b=c" empty="""#)
    }

    @Test func dropsWhatIsBelowItsLevel() throws {
        let written = try lines({ $0.level = .warning }) { log in
            log.debug("a")
            log.info("b")
            log.warning("c")
            log.error("d")
            #expect(!log.isEnabled(.info))
            log.setLevel(.debug)
            #expect(log.isEnabled(.debug))
            log.debug("e")
        }
        #expect(try written.map { try object($0)["msg"] as? String } == ["c", "d", "e"])
    }

    @Test func putsThePriorityFirstForTheJournal() throws {
        let written = try lines({
            $0.hasPriorityPrefix = true; $0.level = .debug
        }) { log in
            log.debug("a")
            log.info("a")
            log.warning("a")
            log.error("a")
        }
        #expect(written.map { $0.prefix(3) } == ["<7>", "<6>", "<4>", "<3>"])
    }

    @Test func limitsRepeatsAndTellsHowManyWereLeftOut() throws {
        let written = try lines({
            $0.burst = 3; $0.intervalNanoseconds = 50_000_000
        }) { log in
            for _ in 0..<10 { log.info("again") }
            log.info("another")
            Thread.sleep(forTimeInterval: 0.06)
            log.info("again")
            log.info("again")
        }
        let repeated = try written.map(object).filter { $0["msg"] as? String == "again" }
        #expect(written.count == 6)
        #expect(repeated.map { $0["suppressed"] as? Int } == [nil, nil, nil, 7, nil])
    }

    @Test func forgetsRepeatsRatherThanGrowWithoutBound() throws {
        let written = try lines({
            $0.burst = 1; $0.repeatTableLimit = 2
        }) { log in
            log.info("a")
            log.info("b")
            log.info("a")
            log.info("c")
            log.info("a")
        }
        #expect(try written.map { try object($0)["msg"] as? String } == ["a", "b", "c", "a"])
    }

    @Test func showsKeysOnlyAsHashes() throws {
        let key: [UInt8] = Array("user:secret@example.org".utf8)
        let written = try lines { $0.info("hot key", ["key": .key(key.span)]) }
        let fields = try object(try #require(written.first))
        let shown = try #require(fields["key"] as? String)
        #expect(shown.wholeMatch(of: /[0-9a-f]{16}/) != nil)
        #expect(!written[0].contains("secret"))
    }

    @Test func cutsLongFieldsAndLongLines() throws {
        let written = try lines({
            $0.fieldLimitBytes = 10; $0.lineLimitBytes = 160
        }) { log in
            log.info("long", ["cut": .text(String(repeating: "ü", count: 100)), "short": "1"])
            log.info(
                "wide",
                [
                    "a": .text("0123456789"), "b": .text("0123456789"), "c": .text("0123456789"),
                    "d": .text("0123456789"), "e": .text("0123456789"), "f": .text("0123456789"),
                ])
        }
        #expect(try object(written[0])["cut"] as? String == "üüüüü…")
        #expect(try object(written[0])["short"] as? String == "1")
        #expect(written[1].utf8.count <= 160)
        #expect(try object(written[1])["a"] as? String == "0123456789")
        #expect(try object(written[1])["f"] == nil)
    }

    static let times: [(UInt64, String)] = [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (951_782_399_999_999_999, "2000-02-28T23:59:59.999999Z"),
        (951_782_400_000_000_000, "2000-02-29T00:00:00.000000Z"),
        (1_709_164_800_000_000_000, "2024-02-29T00:00:00.000000Z"),
        (1_735_689_599_000_000_000, "2024-12-31T23:59:59.000000Z"),
        (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000Z"),
    ]

    @Test(arguments: times)
    func spellsTimeAsRFC3339(_ nanoseconds: UInt64, _ text: String) {
        #expect(timestamp(nanoseconds) == text)
    }

    @Test func aReaderThatStandsStillHoldsNobodyUp() throws {
        let pipe = Pipe()
        var configuration = Log.Configuration()
        configuration.fd = pipe.fileHandleForWriting.fileDescriptor
        configuration.burst = 1_000
        let log = Log(configuration)
        let text = String(repeating: "x", count: 900)
        // More than a pipe holds, whatever size the system gave it: it would block for ever.
        for _ in 0..<200 { log.info("much", ["text": .text(text)]) }
        // One read empties enough of it for another line, and does not block: there is something.
        let taken = pipe.fileHandleForReading.availableData
        #expect(taken.count > text.utf8.count)
        log.info("again")
        try pipe.fileHandleForWriting.close()
        let rest = try pipe.fileHandleForReading.readToEnd() ?? Data()
        let last = try #require(String(decoding: rest, as: UTF8.self).split(separator: "\n").last)
        #expect(try object(String(last))["dropped"] as? Int ?? 0 > 50)
    }

    /// A pipe that nobody reads is as a file on a disk that does not answer: a write to it does not return.
    @Test func aWriteThatDoesNotReturnHoldsNobodyUp() throws {
        let pipe = Pipe()
        var configuration = Log.Configuration()
        configuration.fd = pipe.fileHandleForWriting.fileDescriptor
        configuration.burst = 10_000
        configuration.waitingLimitBytes = 100_000
        let log = Log(configuration)
        try log.startWriting()
        let text = String(repeating: "x", count: 900)
        let began = Clock.monotonicNanoseconds()
        for _ in 0..<1_300 { log.info("much", ["text": .text(text)]) }
        // It would wait 10 ms for each line that finds no room, were it to wait at all.
        #expect(Clock.monotonicNanoseconds() - began < 8_000_000_000)
        log.finish(milliseconds: 50)
        #expect(Clock.monotonicNanoseconds() - began < 10_000_000_000, "the end does not wait for ever either")
        let taken = Guarded(Data())
        let reader = try Thread(name: "reader") {
            while true {
                let part = pipe.fileHandleForReading.availableData
                if part.isEmpty { return }
                taken.withLock { $0 += part }
            }
        }
        log.finish(milliseconds: 20_000)
        log.info("again")
        log.finish(milliseconds: 20_000)
        try pipe.fileHandleForWriting.close()
        reader.join()
        let lines = String(decoding: taken.withLock { $0 }, as: UTF8.self).split(separator: "\n").map(String.init)
        #expect(try object(try #require(lines.last))["msg"] as? String == "again")
        let dropped = try lines.reduce(0) { try $0 + (object($1)["dropped"] as? Int ?? 0) }
        #expect(dropped > 100 && lines.count - 1 + dropped == 1_300, "none is missing without being counted")
    }

    @Test func linesOfSeveralThreadsDoNotMix() async throws {
        let pipe = Pipe()
        var configuration = Log.Configuration()
        configuration.fd = pipe.fileHandleForWriting.fileDescriptor
        configuration.burst = 1000
        let log = Log(configuration)
        await withTaskGroup(of: Void.self) { group in
            for thread in 0..<4 {
                group.addTask {
                    for round in 0..<100 { log.info("x", ["thread": .count(thread), "n": .count(round)]) }
                }
            }
        }
        try pipe.fileHandleForWriting.close()
        let data = try #require(try pipe.fileHandleForReading.readToEnd())
        let written = String(decoding: data, as: UTF8.self).split(separator: "\n").map(String.init)
        #expect(written.count == 400)
        for line in written { #expect(try object(line)["msg"] as? String == "x") }
    }
}
