// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// Where other threads put questions to one that goes round, and wait for their answers. Safe to use from any thread.
/// An answer that comes too late is nobody's: it is not taken for another question's.
final class QuestionDesk<Question: Sendable, Answer: Sendable>: Sendable {
    private struct State {
        var number: UInt64 = 0
        /// Oldest first: as many as there are threads that ask.
        var questions: [(number: UInt64, question: Question)] = []
        var answers: [UInt64: Answer] = [:]
        /// What whoever asks is told once nobody goes round any more.
        var last: Answer?
    }

    private let state = Guarded(State())
    private let parking = Parking()

    /// Puts a question, calls `wake`, and waits; nil when there is no answer in time. Blocks.
    func ask(_ question: Question, timeoutNanoseconds: UInt64, wake: () -> Void) -> Answer? {
        let number: UInt64? = state.withLock { state in
            guard state.last == nil else { return nil }
            state.number += 1
            state.questions.append((state.number, question))
            return state.number
        }
        guard let number else { return state.withLock { $0.last } }
        wake()
        let end = Clock.monotonicNanoseconds() + timeoutNanoseconds
        while true {
            let ticket = parking.ticket
            if let answer = state.withLock({ $0.answers.removeValue(forKey: number) }) { return answer }
            let now = Clock.monotonicNanoseconds()
            guard now < end else {
                // It may have come just now.
                return state.withLock { state in
                    state.questions.removeAll { $0.number == number }
                    return state.answers.removeValue(forKey: number)
                }
            }
            parking.wait(ticket, timeoutNanoseconds: min(end - now, 100_000_000))
        }
    }

    /// The question that waits longest, with its number.
    var waiting: (number: UInt64, question: Question)? { state.withLock { $0.questions.first } }

    /// Answers the question of a number, if it still waits.
    func answer(_ number: UInt64, _ answer: Answer) {
        state.withLock { state in
            guard let place = state.questions.firstIndex(where: { $0.number == number }) else { return }
            state.questions.remove(at: place)
            state.answers[number] = answer
        }
        parking.announce()
    }

    /// Nobody goes round any more: what waits is answered, and whatever is asked from now on.
    func close(_ answer: Answer) {
        state.withLock { state in
            state.last = answer
            for (number, _) in state.questions { state.answers[number] = answer }
            state.questions = []
        }
        parking.announce()
    }
}
