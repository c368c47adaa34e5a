// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Reactor

/// What became of one attempt.
enum CallOutcome: Sendable {
    case reply(CacheReply)
    case failure(CacheError)
}

/// One attempt of a call on its way to a loop.
struct CallSubmission: Sendable {
    /// Names the attempt for ``ClientLetter/cancel(_:)``; nobody else has it.
    var id: UInt64
    var request: CacheRequest
    var node: ServerNode
    /// Monotonic nanoseconds.
    var deadline: UInt64
    var hedges: Bool
    /// Whether it is its call's first: retries are few beside those.
    var isFirst: Bool
    var waiter: CallWaiter
}

/// What else a loop is told.
enum ClientLetter: Sendable {
    /// The attempt's task was cancelled.
    case cancel(UInt64)
    /// Something of the client's is due at that time.
    case alarm(UInt64)
    /// The server is no longer one of ours.
    case retire(ServerNode)
    /// Everything ends.
    case stop
}

/// What waits for a loop: attempts, letters, and parts of tasks that run on its thread. Putting costs a short lock, and
/// wakes the loop only when it may sleep.
final class CallQueue: Sendable {
    /// What was taken at once.
    struct Batch {
        var calls: [CallSubmission] = []
        var letters: [ClientLetter] = []
        var jobs: [UnownedJob] = []

        var isEmpty: Bool { calls.isEmpty && letters.isEmpty && jobs.isEmpty }

        mutating func removeAll() {
            calls.removeAll(keepingCapacity: true)
            letters.removeAll(keepingCapacity: true)
            jobs.removeAll(keepingCapacity: true)
        }
    }

    private struct State {
        var batch = Batch()
        /// Whether the loop will look before it sleeps.
        var isAwake = false
        var isClosed = false
    }

    private let state = Guarded(State())
    private let reactor = Guarded<Reactor?>(nil)

    /// Whom to wake; before anything is put.
    func attach(_ reactor: Reactor) { self.reactor.withLock { $0 = reactor } }

    /// Adds an attempt; false after the end.
    func put(_ call: CallSubmission) -> Bool {
        put { $0.calls.append(call) }
    }

    /// Adds a letter; false after the end.
    @discardableResult
    func put(_ letter: ClientLetter) -> Bool {
        put { $0.letters.append(letter) }
    }

    /// Adds a part of a task; false after the end.
    func put(_ job: UnownedJob) -> Bool {
        put { $0.jobs.append(job) }
    }

    @inline(__always)
    private func put(_ add: (inout Batch) -> Void) -> Bool {
        let (isTaken, mustWake) = state.withLock { state in
            guard !state.isClosed else { return (false, false) }
            add(&state.batch)
            defer { state.isAwake = true }
            return (true, !state.isAwake)
        }
        if mustWake { _ = reactor.withLock { $0?.post(ReactorMessage(kind: 0)) } }
        return isTaken
    }

    /// The loop will look again before it sleeps.
    func noteAwake() { state.withLock { $0.isAwake = true } }

    /// Swaps what waits with `empty`. False when nothing does: from then on whoever puts something wakes the loop.
    func take(into empty: inout Batch) -> Bool {
        state.withLock { state in
            guard !state.batch.isEmpty else {
                state.isAwake = false
                return false
            }
            swap(&state.batch, &empty)
            return true
        }
    }

    /// Refuses everything from now on.
    func close() { state.withLock { $0.isClosed = true } }
}
