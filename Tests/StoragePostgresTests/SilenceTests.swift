// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Storage
import Testing

@testable import StoragePostgres

/// A server that says nothing, which is worse than one that is not there: nobody may wait for it in vain, and what was
/// not sent to it is known not to be done.
@Suite(.serialized, .enabled(if: TestServer.isInstalled, "Debian's postgresql-15 is not installed"))
struct SilenceTests {
    /// Connections are accepted by the kernel, and nobody answers.
    @Test func nothingWaitsBehindAThreadThatConnects() throws {
        let bed = try SQLBed {
            $0.connectTimeoutMilliseconds = 4_000
            $0.waitingMilliseconds = 1_000
        }
        bed.write(.set, "k", "0")
        let sessions = try bed.server.sessions()
        try bed.server.signal(SIGSTOP)
        defer { try? bed.server.signal(SIGCONT) }
        for session in sessions { kill(session, SIGTERM) }
        usleep(500_000)
        let began = Date()
        var (first, later) = (0.0, 0.0)
        var count = 0
        while -began.timeIntervalSinceNow < 13 {
            let asked = Date()
            if count % 2 == 0 {
                #expect(bed.write(.set, "k", "1").failure?.kind == .notSent)
            } else {
                guard case .failed? = bed.read("k") else {
                    Issue.record("a read was answered without a server")
                    return
                }
            }
            let seconds = -asked.timeIntervalSinceNow
            // Until the first attempt to connect has failed, what waits may yet be done.
            if asked.timeIntervalSince(began) < 6 { first = max(first, seconds) } else { later = max(later, seconds) }
            count += 1
            usleep(20_000)
        }
        print("\(count) answers; the slowest took \(first) s at first, then \(later) s")
        #expect(first < 2.5)
        #expect(later < 0.5)
        try bed.server.signal(SIGCONT)
        #expect(bed.awaitHealth(.ready))
        #expect(bed.figure("writes_unknown") == 0)
        #expect(bed.text("k") == "0")
        #expect(bed.write(.set, "k", "2").version > 0)
        #expect(bed.answers.repeated == 0)
    }

    /// One that has lost its session, and is about to find out that it gets none, does not hold up reads.
    @Test func oneReaderThatCannotConnectSpeaksForTheOthers() {
        var configuration = PostgresConfiguration(url: "host=a")
        (configuration.writers, configuration.readers) = (1, 3)
        let core = SQLCore(configuration)
        #expect(core.outageOfReaders == nil)
        core.note(1, down: nil)
        core.note(2, down: "gone", hasFailed: true)
        #expect(core.outageOfReaders == nil, "one of them has a connection")
        core.note(1, down: "lost")
        #expect(core.outageOfReaders == "gone")
    }

    /// Sessions that take what is sent, and answer nothing.
    @Test func whatWaitsBehindAnUnansweredStatementIsRefused() throws {
        let bed = try SQLBed {
            ($0.writers, $0.readers) = (1, 1)
            ($0.waitingWriteLimit, $0.waitingReadLimit) = (3, 3)
            $0.statementTimeoutMilliseconds = 20_000
            $0.waitingMilliseconds = 1_000
        }
        bed.write(.set, "k", "0")
        let sessions = try bed.server.sessions()
        for session in sessions { kill(session, SIGSTOP) }
        defer { for session in sessions { kill(session, SIGCONT) } }
        func submit() -> (write: UInt64, read: UInt64) {
            let tokens = (bed.nextToken(), bed.nextToken())
            bed.backend.write([SubmittedWrite(token: tokens.0, write: SQLBed.make(.append, "k", "1"))])
            bed.backend.read([StorageRead(token: tokens.1, key: Array("k".utf8))])
            return tokens
        }
        let sent = submit()
        usleep(300_000)
        let asked = Date()
        let waiting = (0..<3).map { _ in submit() }
        let refused = submit()
        #expect(bed.answers.write(refused.write).failure?.kind == .notSent)
        #expect(bed.answers.read(refused.read) == .failed(StorageFailure(.notSent, "too many wait for storage")))
        #expect(-asked.timeIntervalSinceNow < 0.8, "what finds no room is told so at once")
        for tokens in waiting {
            let failure = StorageFailure(.notSent, "the database takes too long")
            #expect(bed.answers.write(tokens.write) == .failed(failure))
            #expect(bed.answers.read(tokens.read) == .failed(failure))
        }
        #expect((0.9..<3).contains(-asked.timeIntervalSinceNow))
        for session in sessions { kill(session, SIGCONT) }
        #expect(bed.answers.write(sent.write).version > 0)
        #expect(bed.answers.read(sent.read) != nil)
        #expect(bed.text("k") == "01")
        #expect(bed.figure("refused") == 8)
        #expect(bed.answers.repeated == 0)
    }
}
