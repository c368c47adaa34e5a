// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
public import Synchronization
package import Telemetry

/// One event-loop thread as other threads see it, and its handler: where to post to, what it counts, what time it is.
@usableFromInline
package final class Reactor: Sendable {
    /// Its number, from 0.
    @usableFromInline package let index: Int
    /// What it counts; written by its thread only.
    package let counters = CounterSet<ReactorCounter>()
    /// What others want of it.
    let mailbox: Mailbox
    /// Its connections, for statistics.
    let registry: ConnectionRegistry
    /// What it waits with; for its thread, and for adding descriptors before it runs.
    let poller: Poller
    /// When it wakes at the latest.
    let timer: WakeTimer
    @usableFromInline let ready = Atomic<UInt64>(0)
    @usableFromInline let arrival = Atomic<UInt64>(0)
    @usableFromInline let now = Atomic<UInt64>(0)

    init(index: Int, messageLimit: Int) throws(SystemError) {
        self.index = index
        mailbox = try Mailbox(limit: messageLimit)
        registry = ConnectionRegistry()
        poller = try Poller(capacity: Self.eventLimit)
        timer = try WakeTimer()
    }

    /// Events that one turn takes.
    static let eventLimit = 256

    /// When epoll last returned, in monotonic nanoseconds: the events of this turn were ready then.
    @inlinable package var readyNanoseconds: UInt64 { @inline(__always) get { ready.load(ordering: .relaxed) } }

    /// Since when input of this turn may have waited, in monotonic nanoseconds: since epoll returned, if the thread
    /// slept until then, else since the turn before began.
    @inlinable package var arrivalNanoseconds: UInt64 { @inline(__always) get { arrival.load(ordering: .relaxed) } }

    /// The time that the turn works with, in monotonic nanoseconds: read after epoll returned and again between a
    /// turn's events and its posted work. Costs a load.
    @inlinable package var nowNanoseconds: UInt64 { @inline(__always) get { now.load(ordering: .relaxed) } }

    /// Brings `message` to the handler. From any thread; does not block. False when too much waits, or after the end.
    @discardableResult
    package func post(_ message: ReactorMessage) -> Bool { mailbox.put(.message(message)) }

    /// Runs `work` on the reactor's thread, between turns. From any thread; does not block. False when too much waits,
    /// or after the end.
    @discardableResult
    package func post(_ work: @escaping @Sendable (inout ReactorLoop) -> Void) -> Bool { mailbox.put(.work(work)) }

    /// Sends `bytes` to a connection after what was written to it so far. From any thread; does not block. Bytes for a
    /// connection that is gone are dropped; for streams of them use ``Connection/makeStream(of:limitBytes:)``.
    @discardableResult
    package func send(_ bytes: [UInt8], to connection: ConnectionID) -> Bool {
        precondition(connection.reactor == index, "a connection of another reactor")
        return mailbox.put(.bytes(connection, bytes))
    }
}
