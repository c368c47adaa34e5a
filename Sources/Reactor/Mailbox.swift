// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization

/// What other threads want of a reactor, in order. Putting costs a short lock, and a system call only when the reactor
/// sleeps.
final class Mailbox: Sendable {
    enum Letter: Sendable {
        case message(ReactorMessage)
        case work(@Sendable (inout ReactorLoop) -> Void)
        case bytes(ConnectionID, [UInt8])
        case finish(ConnectionID, closing: Bool)
        case adopt(
            fd: Int32, listener: Int, tag: UInt64, transport: Transport, security: ListenerConfiguration.Security)
        /// Closes what revoked peers have open.
        case closeRevoked
        case stop(StopMode)
    }

    private struct State {
        var letters: [Letter] = []
        var isOpen = true
    }

    private let state = Guarded(State())
    private let count = Atomic<Int>(0)
    private let sleeping = Atomic<Bool>(false)
    private let wake: WakeEvent
    private let limit: Int

    init(limit: Int) throws(SystemError) {
        wake = try WakeEvent()
        self.limit = limit
    }

    /// To watch, edge-triggered.
    var fd: Int32 { wake.fd }

    /// Adds a letter; false when too many wait or the reactor has ended. A stop and a connection always get in.
    @discardableResult
    func put(_ letter: Letter) -> Bool {
        let isUrgent =
            switch letter {
            case .stop, .adopt, .finish, .closeRevoked: true
            default: false
            }
        let taken = state.withLock { state in
            guard state.isOpen, isUrgent || state.letters.count < limit else { return false }
            state.letters.append(letter)
            return true
        }
        guard taken else { return false }
        count.add(1, ordering: .sequentiallyConsistent)
        // Either the reactor sees the count before it sleeps, or we see here that it sleeps. Whoever resets the flag
        // wakes.
        if sleeping.load(ordering: .sequentiallyConsistent), sleeping.exchange(false, ordering: .sequentiallyConsistent)
        {
            wake.signal()
        }
        return true
    }

    /// Whether letters wait.
    var hasLetters: Bool { count.load(ordering: .relaxed) > 0 }

    /// Says that the reactor is about to sleep; false when it must not, because letters wait.
    func fallAsleep() -> Bool {
        sleeping.store(true, ordering: .sequentiallyConsistent)
        if count.load(ordering: .sequentiallyConsistent) == 0 { return true }
        sleeping.store(false, ordering: .relaxed)
        return false
    }

    /// Says that the reactor is awake.
    func awake() { sleeping.store(false, ordering: .relaxed) }

    /// Swaps the waiting letters with `empty`, whose room is used again.
    func take(into empty: inout [Letter]) {
        precondition(empty.isEmpty)
        state.withLock { swap(&$0.letters, &empty) }
        count.subtract(empty.count, ordering: .sequentiallyConsistent)
    }

    /// Refuses letters from now on.
    func close() { state.withLock { $0.isOpen = false } }
}

/// How a ``ReactorGroup`` ends.
package enum StopMode: Sendable, Equatable {
    /// Executes what arrived, sends what is written, then closes. A connection that was served less than
    /// `idleMilliseconds` ago may go on, but not in the last quarter of the time; what is left after it is closed.
    case graceful(milliseconds: Int, idleMilliseconds: Int = 0)
    /// Closes at once.
    case immediate
}
