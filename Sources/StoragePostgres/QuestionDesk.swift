// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// Where another thread puts a question to one that goes round, and waits for its answer. Safe to use from any thread;
/// one asks at a time. An answer that comes too late is nobody's: it is not taken for the next question's.
final class QuestionDesk<Question: Sendable, Answer: Sendable>: Sendable {
    private struct State {
        var number: UInt64 = 0
        var question: Question?
        var answer: Answer?
    }

    private let state = Guarded(State())
    private let parking = Parking()

    /// Puts a question, calls `wake`, and waits; nil when there is no answer in time. Blocks.
    func ask(_ question: Question, timeoutNanoseconds: UInt64, wake: () -> Void) -> Answer? {
        state.withLock { ($0.number, $0.question, $0.answer) = ($0.number + 1, question, nil) }
        wake()
        let end = Clock.monotonicNanoseconds() + timeoutNanoseconds
        while true {
            let ticket = parking.ticket
            if let answer = state.withLock({ $0.answer }) { return answer }
            let now = Clock.monotonicNanoseconds()
            guard now < end else {
                state.withLock { $0.question = nil }
                return nil
            }
            parking.wait(ticket, timeoutNanoseconds: min(end - now, 100_000_000))
        }
    }

    /// The question that waits, with its number.
    var waiting: (number: UInt64, question: Question)? {
        state.withLock { state in state.question.map { (state.number, $0) } }
    }

    /// Answers the question of a number, if it still waits.
    func answer(_ number: UInt64, _ answer: Answer) {
        state.withLock { state in
            guard state.number == number, state.question != nil else { return }
            (state.question, state.answer) = (nil, answer)
        }
        parking.announce()
    }
}
