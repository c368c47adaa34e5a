// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization

/// A way for other threads to write to a connection, with a bound on what the peer has not read: for `watch` and dumps.
///
/// Bytes go out in the order of the calls of one thread, after what the handler wrote. May be used by one thread at a
/// time or by several.
package final class ConnectionStream: Sendable {
    /// The connection it writes to.
    package let connection: ConnectionID
    /// The most bytes that wait for the peer.
    package let limitBytes: Int
    private let reactor: Reactor
    private let posted = Atomic<Int>(0)
    private let unsent = Atomic<Int>(0)
    private let open = Atomic<Bool>(true)
    private let parking = Parking()

    init(connection: ConnectionID, reactor: Reactor, limitBytes: Int) {
        self.connection = connection
        self.reactor = reactor
        self.limitBytes = limitBytes
    }

    /// Whether the connection is still there.
    package var isOpen: Bool { open.load(ordering: .acquiring) }

    /// Bytes that wait for the peer.
    package var queuedBytes: Int {
        posted.load(ordering: .sequentiallyConsistent) + unsent.load(ordering: .sequentiallyConsistent)
    }

    /// Queues `bytes`. False, and nothing queued, when the peer is gone or does not read: with `bytes` more than the
    /// limit would wait. One piece may be larger than the limit when nothing waits. Does not block.
    package func send(_ bytes: [UInt8]) -> Bool {
        guard isOpen else { return false }
        let queued = queuedBytes
        guard queued == 0 || queued + bytes.count <= limitBytes else { return false }
        posted.add(bytes.count, ordering: .sequentiallyConsistent)
        guard reactor.mailbox.put(.bytes(connection, bytes)) else {
            posted.subtract(bytes.count, ordering: .sequentiallyConsistent)
            return false
        }
        return true
    }

    /// Queues `bytes`, waiting for the peer to read. False when the peer is gone or did not make room in time.
    package func send(_ bytes: [UInt8], waitingNanoseconds: UInt64) -> Bool {
        let deadline = Clock.monotonicNanoseconds() &+ waitingNanoseconds
        while true {
            let ticket = parking.ticket
            if send(bytes) { return true }
            let now = Clock.monotonicNanoseconds()
            guard isOpen, now < deadline else { return false }
            parking.wait(ticket, timeoutNanoseconds: deadline - now)
        }
    }

    /// Ends the stream after what was sent: closes the connection, or lets the handler read on from it.
    package func finish(closing: Bool) {
        reactor.mailbox.put(.finish(connection, closing: closing))
    }

    /// The reactor dealt with `count` bytes of its mailbox: they are with the kernel, or counted by ``waits(_:)``.
    func arrived(_ count: Int) {
        posted.subtract(count, ordering: .sequentiallyConsistent)
        announceRoom()
    }

    /// `count` bytes wait for the socket.
    func waits(_ count: Int) {
        unsent.store(count, ordering: .sequentiallyConsistent)
        announceRoom()
    }

    private func announceRoom() {
        if queuedBytes <= limitBytes / 2 { parking.announce() }
    }

    /// The connection is gone.
    func end() {
        open.store(false, ordering: .releasing)
        parking.announce()
    }
}

extension Connection {
    /// Makes this connection writable for other threads. The handler usually pauses reading as well. One at a time.
    package mutating func makeStream(of reactor: Reactor, limitBytes: Int) -> ConnectionStream {
        precondition(stream == nil, "a second stream on a connection")
        let stream = ConnectionStream(connection: id, reactor: reactor, limitBytes: limitBytes)
        self.stream = stream
        return stream
    }
}
