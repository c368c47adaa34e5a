// Martlet
// SPDX-License-Identifier: Apache-2.0

import MemcacheProtocol
import Memory
import Storage
import Testing

@testable import StorageRegion

@Suite struct RegionReplyTests {
    private func answer(_ reply: String, to question: RegionRequest.Question) -> RegionReply.Answer? {
        var request = RegionRequest(token: 1, question: question, sinceNanoseconds: 0)
        request.askedMilliseconds = 1_000_000
        let bytes = Array(reply.utf8)
        guard case .unit(let unit) = ReplyParser.next(in: bytes.span, at: 0) else { return nil }
        var reader = RegionReply(home: "us-east")
        reader.answeredMilliseconds = 1_000_200
        return reader.answer(unit, bytes.span, to: request)
    }

    private func read(_ reply: String) -> ReadOutcome? {
        guard case .read(let outcome) = answer(reply, to: .read([107])) else { return nil }
        return outcome
    }

    private func write(
        _ operation: StorageWrite.Operation, _ reply: String, _ change: (inout StorageWrite) -> Void = { _ in }
    ) -> WriteOutcome? {
        var write = StorageWrite(operation, key: [107])
        write.value = Array("abc".utf8)
        change(&write)
        guard case .write(let outcome) = answer(reply, to: .write(write)) else { return nil }
        return outcome
    }

    @Test func aRowIsReadWithTheTimeItMayBeGone() throws {
        guard case .found(let row) = read("VA 2 c77 f9 t60\r\nhi\r\n") else { throw Missing() }
        #expect(row.version == 77 && row.clientFlags == 9 && row.value == Array("hi".utf8))
        // Surely gone 60 s after the reply; perhaps 1.2 s before that.
        #expect(row.expiryMilliseconds == 1_060_200 && row.expiryUncertaintyMilliseconds == 1200)
        guard case .found(let lasting) = read("VA 2 c77 f9 t-1\r\nhi\r\n") else { throw Missing() }
        #expect(lasting.expiryMilliseconds == 0)
        guard case .found(let ending) = read("VA 2 c77 f0 t0\r\nhi\r\n") else { throw Missing() }
        #expect(ending.isLive(at: 1_000_200), "it was live when home looked")
        #expect(read("EN\r\n") == .absent)
        #expect(read("VA 2 f9 t60\r\nhi\r\n") == nil, "a row without a version is none")
        #expect(read("HD c1\r\n") == nil)
    }

    @Test func aStaleCopyOfHomeIsNoAnswer() throws {
        guard case .failed(let failure) = read("VA 2 c77 f9 t-1 X\r\nhi\r\n") else { throw Missing() }
        #expect(failure.reason.contains("stale copy only"))
        // Marked by md I: the row is what it was.
        guard case .found = read("VA 2 c77 f9 t-1 W X\r\nhi\r\n"), case .found = read("VA 2 c77 f9 t-1 Z X\r\nhi\r\n")
        else { throw Missing() }
    }

    @Test func storedRowsHaveTheVersionOfHome() throws {
        guard case .stored(let row) = write(.set, "HD c5 s3\r\n", { $0.clientFlags = 8 }) else { throw Missing() }
        #expect(row == StoredRow(version: 5, expiryMilliseconds: 0, clientFlags: 8, value: Array("abc".utf8)))
        guard case .stored(let timed) = write(.add, "HD c5 s3\r\n", { $0.expiryMilliseconds = 1_010_005 }) else {
            throw Missing()
        }
        #expect(timed.expiryMilliseconds == 1_010_200 && timed.expiryUncertaintyMilliseconds == 1200)
        guard case .stored(let past) = write(.set, "HD c5 s3\r\n", { $0.expiryMilliseconds = 1 }) else {
            throw Missing()
        }
        #expect(!past.isLive(at: 1_000_000))
        #expect(write(.set, "HD\r\n") == nil, "without a version, nobody can say what was stored")
        #expect(write(.add, "NS\r\n") == .notStored)
        #expect(write(.set, "EX\r\n") == .exists)
        #expect(write(.set, "NF\r\n") == .notFound)
        #expect(write(.set, "EN\r\n") == nil)
    }

    @Test func whatWasJoinedIsNotKnownWhole() throws {
        for operation in [StorageWrite.Operation.append, .prepend, .appendOrCreate, .prependOrCreate] {
            guard case .stored(let row) = write(operation, "HD c5 s12\r\n") else { throw Missing() }
            #expect(row.version == 5 && row.partialLength == 12 && row.valueLength == 12)
        }
    }

    @Test func countersTellTheirNumber() throws {
        guard case .stored(let row) = write(.increment, "VA 2 c5\r\n42\r\n") else { throw Missing() }
        #expect(row.value == Array("42".utf8) && row.partialLength == 2 && row.earlierExpiryMilliseconds == nil)
        let timed = write(.decrement, "VA 1 c5 t7\r\n4\r\n") { $0.tellsEarlierExpiry = true }
        guard case .stored(let row) = timed else { throw Missing() }
        #expect(row.earlierExpiryMilliseconds == 1_007_200)
        let fresh = write(.decrement, "VA 1 c5 t7\r\n4\r\n") {
            $0.tellsEarlierExpiry = true
            $0.initial = 4
            $0.initialExpiryMilliseconds = 1_007_005
        }
        guard case .stored(let made) = fresh else { throw Missing() }
        #expect(made.earlierExpiryMilliseconds == nil)
        #expect(write(.increment, "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n") == .notNumeric)
        #expect(write(.increment, "NF\r\n") == .notFound)
    }

    @Test func deletesAndTouches() throws {
        #expect(write(.delete, "HD\r\n") == .deleted(version: 0))
        #expect(write(.delete, "NF\r\n") == .notFound)
        guard case .stored(let row) = write(.touch, "VA 2 c6 f1 t100\r\nhi\r\n") else { throw Missing() }
        #expect(row.version == 6 && row.partialLength == nil && row.value == Array("hi".utf8))
        #expect(write(.touch, "EN\r\n") == .notFound)
        #expect(write(.touch, "HD\r\n") == nil)
    }

    @Test(arguments: [
        ("SERVER_ERROR outcome unknown", StorageFailure.Kind.unknownOutcome), ("SERVER_ERROR timeout", .unknownOutcome),
        ("SERVER_ERROR remote error", .unknownOutcome), ("SERVER_ERROR something new", .unknownOutcome),
        ("SERVER_ERROR storage: the disk is full", .refused), ("CLIENT_ERROR bad command line format", .refused),
        ("ERROR", .refused), ("SERVER_ERROR 307 busy", .notSent), ("SERVER_ERROR connection error", .notSent),
        ("SERVER_ERROR unavailable", .notSent), ("SERVER_ERROR 302 try again 4 a:1", .notSent),
    ])
    func errorsSayWhetherAnythingWasDone(reply: String, kind: StorageFailure.Kind) throws {
        guard case .failed(let failure) = write(.set, reply + "\r\n") else { throw Missing() }
        #expect(failure.kind == kind)
        // What stands behind a colon is not told to clients.
        #expect(failure.reason.contains("us-east") && !failure.reason.contains(":\u{20}"))
        guard case .failed = read(reply + "\r\n") else { throw Missing() }
    }

    @Test func valuesThatHomeDoesNotTakeAreTooLarge() {
        #expect(write(.append, "SERVER_ERROR object too large for cache\r\n") == .tooLarge)
    }

    private struct Missing: Error {}
}
