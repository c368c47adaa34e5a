// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Reactor
import Storage
import Testing

@testable import MemcacheProtocol
@testable import NodeServer

/// Replies that wait: order, errors in the middle of a get, and what is kept.
struct ReplyQueueTests {
    private let connection = ConnectionID(rawValue: 7)

    private func parked(_ token: UInt64, isLast: Bool = false) -> ParkedRequest {
        var request = Request()
        request.verb = .get
        if isLast { request.traits.insert(.lastKey) }
        return ParkedRequest(
            .read(pool: 0, acceptsCopy: true), request: request, key: [UInt8(ascii: "k")], hash: token, opaque: [],
            connection: connection, kind: .get, token: token, readyNanoseconds: 0)
    }

    private func answer(_ parked: ParkedRequest, fails: Bool = false) {
        let failure = StorageFailure(.refused, "no")
        parked.take(.read(token: parked.token, fails ? .failed(failure) : .absent))
    }

    /// What a drain writes: `<token>` for a reply, `!` for an error.
    private func drained(_ queue: ReplyQueue) -> String {
        var output = OutputBuffer(capacity: 64)
        queue.drain(into: &output) { parked, output in
            if case .read(_, .failed) = parked.answer {
                output.append("!")
                return false
            }
            output.append("<")
            output.append(decimal: parked.token)
            output.append(">")
            return true
        } release: { _ in
        }
        return output.withSpan { String(decoding: [UInt8](copying: $0), as: UTF8.self) }
    }

    /// Puts a turn's output in the queue: texts, with places for requests between them.
    private func take(_ queue: ReplyQueue, _ parts: [Part]) {
        var output = OutputBuffer(capacity: 64)
        var parks: [Park] = []
        for part in parts {
            switch part {
            case .text(let text): output.append(string: text)
            case .request(let parked):
                parks.append(Park(content: .request(parked), position: output.count, externalCount: 0))
            case .endOfGet: parks.append(Park(content: .endOfGet, position: output.count, externalCount: 0))
            }
        }
        queue.take(&output, from: (0, 0), parks)
        #expect(output.count == 0)
    }

    private enum Part {
        case text(String)
        case request(ParkedRequest)
        case endOfGet
    }

    @Test func keepsTheOrderOfRequests() {
        let queue = ReplyQueue(connection)
        let (first, second) = (parked(1), parked(2))
        take(queue, [.request(first), .text("a"), .request(second), .text("b")])
        answer(second)
        #expect(!queue.isHeadReady)
        #expect(drained(queue) == "")
        answer(first)
        #expect(drained(queue) == "<1>a<2>b")
        #expect(queue.isOver)
    }

    @Test func aFailedKeyEndsItsGetAndNothingElse() {
        let queue = ReplyQueue(connection)
        let (first, second) = (parked(1), parked(2, isLast: true))
        take(queue, [.request(first), .text("hit"), .request(second), .text("next")])
        answer(first, fails: true)
        answer(second)
        #expect(drained(queue) == "!next")
        #expect(queue.isOver)
    }

    @Test func aFailedKeySwallowsKeysThatWereNotExecutedYet() {
        let queue = ReplyQueue(connection)
        let first = parked(1)
        take(queue, [.request(first), .text("hit")])
        answer(first, fails: true)
        #expect(drained(queue) == "!")
        #expect(!queue.isOver, "the rest of the get is still to come")
        let third = parked(3)
        take(queue, [.text("hit"), .request(third), .text("hit END"), .endOfGet, .text("next")])
        answer(third)
        #expect(drained(queue) == "next")
        #expect(queue.isOver)
    }

    @Test func aFailedLastKeySwallowsNothing() {
        let queue = ReplyQueue(connection)
        let only = parked(1, isLast: true)
        take(queue, [.request(only), .text("next")])
        answer(only, fails: true)
        #expect(drained(queue) == "!next")
    }

    @Test func leavesTheRestForLaterBeyondAHighWaterMark() {
        let queue = ReplyQueue(connection)
        let requests = (0..<10).map { parked(UInt64($0)) }
        for request in requests { take(queue, [.request(request), .text(String(repeating: "x", count: 100_000))]) }
        for request in requests { answer(request) }
        var pieces: [Int] = []
        while !queue.isOver { pieces.append(drained(queue).utf8.count) }
        #expect(pieces.reduce(0, +) == 10 * 100_003)
        #expect(pieces.allSatisfy { $0 <= ReplyQueue.highWaterBytes + 200_006 })
    }

    @Test func letsGoOfAnswersThatAreSent() {
        let queue = ReplyQueue(connection)
        weak var sent: ParkedRequest?
        let last = parked(2)
        do {
            let first = parked(1)
            sent = first
            take(queue, [.request(first), .request(last)])
            answer(first)
        }
        #expect(drained(queue) == "<1>")
        #expect(sent == nil)
    }
}

/// A connection's own commands on one key.
struct CommandOrderTests {
    private func command(_ question: ParkedRequest.Question, connection: UInt64 = 1, hash: UInt64 = 9) -> ParkedRequest
    {
        ParkedRequest(
            question, request: Request(), key: [1], hash: hash, opaque: [],
            connection: ConnectionID(rawValue: connection), kind: .get, token: 0, readyNanoseconds: 0)
    }

    private var read: ParkedRequest { command(.read(pool: 0, acceptsCopy: true)) }
    private var write: ParkedRequest { command(.write(StorageWrite(.set, key: [1]))) }

    /// Whether each command may go to the store at once.
    private func enter(_ commands: [ParkedRequest], _ order: inout CommandOrder) -> [Bool] {
        commands.map { order.enter($0) }
    }

    /// Which commands may go once `command` has its answer.
    private func leave(_ command: ParkedRequest, _ order: inout CommandOrder) -> [ObjectIdentifier] {
        order.leave(command).map(ObjectIdentifier.init)
    }

    @Test func writesAndReadsBehindWritesGoAtOnce() {
        var order = CommandOrder()
        let entered = enter([write, write, read, read], &order)
        #expect(entered == [true, true, true, true])
    }

    @Test func aWriteWaitsForTheReadsBeforeItAndNothingPassesIt() {
        var order = CommandOrder()
        let (first, second, third, fourth) = (read, read, write, read)
        let entered = enter([first, second, third, fourth], &order)
        #expect(entered == [true, true, false, false])
        let afterFirst = leave(first, &order)
        let afterSecond = leave(second, &order)
        #expect(afterFirst.isEmpty)
        #expect(afterSecond == [ObjectIdentifier(third), ObjectIdentifier(fourth)])
        _ = leave(third, &order)
        _ = leave(fourth, &order)
        #expect(!order.isWaiting(ConnectionID(rawValue: 1), 9))
    }

    @Test func aCommandOnTheCopyWaitsForEverythingBeforeIt() {
        var order = CommandOrder()
        let (first, second, copy, last) = (write, write, command(.nothing), write)
        let entered = enter([first, second, copy, last], &order)
        #expect(entered == [true, true, false, false])
        let afterFirst = leave(first, &order)
        let afterSecond = leave(second, &order)
        let afterCopy = leave(copy, &order)
        #expect(afterFirst.isEmpty)
        #expect(afterSecond == [ObjectIdentifier(copy)])
        #expect(afterCopy == [ObjectIdentifier(last)])
    }

    @Test func connectionsAndKeysHaveLinesOfTheirOwn() {
        var order = CommandOrder()
        let set = ParkedRequest.Question.write(StorageWrite(.set, key: [1]))
        let entered = enter([read, command(set, connection: 2), command(set, hash: 10)], &order)
        #expect(entered == [true, true, true])
        #expect(order.isWaiting(ConnectionID(rawValue: 1), 9))
        #expect(!order.isWaiting(ConnectionID(rawValue: 3), 9))
    }
}

extension ReplyQueueTests {
    @Test func rowsAreCountedAndTheNewestAreGivenUp() {
        let queue = ReplyQueue(connection)
        let requests = (1...4).map { parked(UInt64($0), isLast: true) }
        take(queue, requests.map { .request($0) })
        for request in requests.dropFirst() {
            let row = StoredRow(
                version: 1, expiryMilliseconds: 0, clientFlags: 0, value: [UInt8](repeating: 7, count: 100))
            request.take(.read(token: request.token, .found(row)))
            queue.noteRow(of: request)
        }
        #expect(queue.rowBytes == 300 && !queue.isHeadReady)
        #expect(queue.giveUpRows(beyond: 300) == 0)
        #expect(queue.giveUpRows(beyond: 150) == 2)
        #expect(queue.rowBytes == 100)
        // Nobody is given up twice, and what is given up says so in its place.
        #expect(queue.giveUpRows(beyond: 100) == 0)
        answer(requests[0])
        #expect(drained(queue) == "<1><2>!!")
        #expect(queue.rowBytes == 0 && queue.isOver)
    }

    /// Only how long the value was is kept of what a set stored; a gat's row is shown, so it is kept.
    @Test func rowsThatNoReplyShowsAreNotKept() {
        func taken(_ verb: Verb) -> ParkedRequest {
            var request = Request()
            request.verb = verb
            let parked = ParkedRequest(
                .write(StorageWrite(.set, key: [107])), request: request, key: [107], hash: 1, opaque: [],
                connection: connection, kind: .set, token: 1, readyNanoseconds: 0)
            parked.take(
                .write(
                    token: 1,
                    .stored(StoredRow(version: 9, expiryMilliseconds: 0, clientFlags: 0, value: [1, 2, 3]))))
            return parked
        }
        for verb: Verb in [.set, .append, .metaSet, .touch] {
            let parked = taken(verb)
            #expect(parked.rowBytes == 0 && parked.storedBytes == 3)
            guard case .write(_, .stored(let row)) = parked.answer else {
                Issue.record("the answer is another")
                continue
            }
            #expect(row.value.isEmpty && row.version == 9)
        }
        let gat = taken(.gat)
        #expect(gat.rowBytes == 3)
        gat.giveUpRow()
        guard case .write(_, .failed(let failure)) = gat.answer else {
            Issue.record("the row is there still")
            return
        }
        #expect(failure.kind == .unknownOutcome && gat.rowBytes == 0)
    }
}
