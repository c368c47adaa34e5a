// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Invalidation
internal import Platform

/// A question what nodes have cached.
package struct StreamLook: Sendable, Equatable {
    /// Of whoever asks: answers have it too.
    package var number: UInt64
    /// The keys.
    package var keys: [[UInt8]]
    /// The node that is asked, and asked for what it remembers; nil is all of them.
    package var replica: String?

    /// A question.
    package init(_ number: UInt64, keys: [[UInt8]], replica: String? = nil) {
        (self.number, self.keys, self.replica) = (number, keys, replica)
    }
}

/// What came of a question.
package enum StreamLookEvent: Sendable, Equatable {
    /// It went to these nodes.
    case asked(UInt64, [String])
    /// A node answered, with a report for each key.
    case answered(UInt64, String, [CopyReport])
}

/// Questions on their way to the stream's thread, and answers on their way back. Safe to use from any thread.
final class LookDesk: Sendable {
    private struct State {
        var looks: [StreamLook] = []
        var events: [StreamLookEvent] = []
        var wake: (@Sendable () -> Void)?
    }

    /// Questions, and answers, that wait at most; what comes then is dropped, which is as no answer.
    private static var waitingMax: Int { 4096 }

    private let state = Guarded(State())

    /// Has `wake` called when answers came; it must not block.
    func setWake(_ wake: (@Sendable () -> Void)?) { state.withLock { $0.wake = wake } }

    /// Puts a question.
    func put(_ look: StreamLook) {
        state.withLock { state in
            if state.looks.count < Self.waitingMax { state.looks.append(look) }
        }
    }

    /// Puts an answer.
    func put(_ event: StreamLookEvent) {
        let wake = state.withLock { state in
            if state.events.count < Self.waitingMax { state.events.append(event) }
            return state.wake
        }
        wake?()
    }

    /// Takes all questions.
    func takeLooks() -> [StreamLook] {
        state.withLock { state in
            defer { state.looks = [] }
            return state.looks
        }
    }

    /// Takes all answers.
    func takeEvents() -> [StreamLookEvent] {
        state.withLock { state in
            defer { state.events = [] }
            return state.events
        }
    }
}
