// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import Testing

@testable import StoragePostgres

struct QuestionDeskTests {
    @Test func anAnswerThatComesTooLateIsNotTheNextQuestions() throws {
        let desk = QuestionDesk<String, String>()
        let first = Atomic<UInt64>(0)
        // Nobody answers in time; who goes round has seen the question.
        let nothing = desk.ask("slot 3", timeoutNanoseconds: 20_000_000) {
            first.store(desk.waiting?.number ?? 0, ordering: .relaxed)
        }
        #expect(nothing == nil && desk.waiting == nil)
        let answer = desk.ask("slot 9", timeoutNanoseconds: 5_000_000_000) {
            desk.answer(first.load(ordering: .relaxed), "records of slot 3")
            if let (number, question) = desk.waiting { desk.answer(number, "records of \(question)") }
        }
        #expect(answer == "records of slot 9")
    }

    @Test func whoWaitsIsAnsweredWhenItIsClosedAndWhoAsksLaterIsToo() throws {
        let desk = QuestionDesk<Int, String>()
        let answers = Guarded<[String?]>([])
        let threads = try (0..<3).map { number in
            try Thread(name: "asks") {
                let answer = desk.ask(number, timeoutNanoseconds: 60_000_000_000) {}
                answers.withLock { $0.append(answer) }
            }
        }
        while desk.waiting == nil { Thread.sleep(microseconds: 1_000) }
        let took = ContinuousClock().measure {
            desk.close("over")
            for thread in threads { thread.join() }
        }
        #expect(took < .seconds(20), "\(took)")
        #expect(answers.withLock { $0 } == ["over", "over", "over"])
        #expect(desk.ask(3, timeoutNanoseconds: 0) {} == "over" && desk.waiting == nil)
    }

    @Test func anotherThreadAnswers() throws {
        let desk = QuestionDesk<Int, Int>()
        let isOver = Atomic<Bool>(false)
        let thread = try Thread(name: "desk") {
            while !isOver.load(ordering: .relaxed) {
                if let (number, question) = desk.waiting { desk.answer(number, question * 2) }
            }
        }
        for number in 0..<1_000 {
            let answer = desk.ask(number, timeoutNanoseconds: 5_000_000_000) {}
            #expect(answer == number * 2)
        }
        isOver.store(true, ordering: .relaxed)
        thread.join()
    }

    /// The stream's thread, the admin server's and the monitor's ask, each when it likes.
    @Test func eachOfSeveralThreadsGetsItsOwnAnswer() throws {
        let desk = QuestionDesk<Int, Int>()
        let isOver = Atomic<Bool>(false)
        let answering = try Thread(name: "desk") {
            while !isOver.load(ordering: .relaxed) {
                if let (number, question) = desk.waiting { desk.answer(number, question * 2) }
            }
        }
        let wrong = Atomic<Int>(0)
        let asking = try (0..<4).map { who in
            try Thread(name: "asks-\(who)") {
                for number in 0..<500 {
                    let question = who * 1_000 + number
                    if desk.ask(question, timeoutNanoseconds: 20_000_000_000, wake: {}) != question * 2 {
                        wrong.add(1, ordering: .relaxed)
                    }
                }
            }
        }
        for thread in asking { thread.join() }
        isOver.store(true, ordering: .relaxed)
        answering.join()
        #expect(wrong.load(ordering: .relaxed) == 0)
        #expect(desk.waiting == nil)
    }
}

struct PublishedStateTests {
    private func state(_ epoch: String, _ slots: String) -> PublishedState? {
        PublishedState([Array(epoch.utf8), Array(slots.utf8)])
    }

    @Test func readsWhatTheDatabaseSays() throws {
        let found = try #require(state("3", "5:12:4,63:7:0"))
        #expect(found.epoch == 3 && found.last[5] == 12 && found.kept[5] == 4 && found.last[63] == 7)
        #expect(state("3", "64:1:1") == nil && state("x", "5:12:4") == nil && PublishedState([nil, nil]) == nil)
    }

    @Test func aDatabaseThatWentBackIsNoticed() throws {
        let earlier = try #require(state("3", "5:12:4,6:9:0"))
        #expect(try #require(state("3", "5:11:4,6:90:0")).isBehind(earlier))
        #expect(try !#require(state("3", "5:12:9,6:10:0")).isBehind(earlier))
        #expect(try !#require(state("4", "5:0:0,6:0:0")).isBehind(earlier))
    }

    /// It has grown again past what was known before anybody looked.
    @Test func anotherRecordInTheLastOnesPlaceIsNoticed() {
        let mark = PublishedMark(place: 40, slot: 5, sequence: 12, version: 99)
        let row = ["5", "12", "99"].map { Array($0.utf8) as [UInt8]? }
        #expect(!mark.isReplaced(by: [row]))
        #expect(!mark.isReplaced(by: []))
        #expect(mark.isReplaced(by: [["5", "12", "98"].map { Array($0.utf8) as [UInt8]? }]))
    }
}
