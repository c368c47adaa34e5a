// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Memory

/// A protocol's side of a reactor: one instance per reactor thread, called only on that thread, never concurrently.
///
/// What is written to `output` goes out when the call returns, in one system call where the socket takes it. No call
/// may block. Every call but `received` and `datagram` has a default that does nothing.
package protocol ReactorHandler: AnyObject {
    /// The reactor's thread runs; comes before anything else.
    func started(_ loop: inout ReactorLoop)

    /// A peer connected (over TLS: and shook hands).
    func opened(_ connection: inout Connection, _ output: inout OutputBuffer)

    /// Input waits: every byte that arrived and was not consumed yet, at least one. Returns how many bytes are done
    /// with. The rest is kept and offered again, longer, when more arrives; so a handler consumes all whole requests,
    /// or calls ``Connection/yield()``. `input` is valid during the call only.
    func received(_ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer) -> Int

    /// Inputs that `received` is called with next, one after another: a chance to have the memory that their requests
    /// will need on its way. Nothing may be executed, and some of it may not come to be offered.
    func foresee(_ inputs: borrowing InputGroup)

    /// A fill that ``Connection/fill(_:count:)`` asked for is complete.
    func filled(_ connection: inout Connection, _ output: inout OutputBuffer)

    /// Output that the socket had not taken is all sent; input goes on.
    func drained(_ connection: inout Connection, _ output: inout OutputBuffer)

    /// The peer ended its input while the connection is held.
    func inputEnded(_ connection: inout Connection, _ output: inout OutputBuffer)

    /// The peer's certificate was not accepted, or is revoked by now, for this reason; the connection is about to be
    /// closed. It may never have been `opened`.
    func distrusted(_ connection: inout Connection, _ reason: String)

    /// The connection is gone: the last call with it, once for each `opened`. A fill under way is over. Of one that
    /// ``ReactorLoop/connect(to:tag:tls:)`` began it comes even if that never led to `opened`.
    func closed(_ connection: inout Connection, _ reason: CloseReason)

    /// External bytes of an `OutputBuffer` were sent or dropped: their owner may have them back.
    func released(_ token: UInt64)

    /// About every 100 ms and at most once a turn. `now` is the turn's time in monotonic nanoseconds.
    func tick(_ loop: inout ReactorLoop, now: UInt64)

    /// Everything that was ready has been served, and the loop is about to wait: for what concerns other connections
    /// than the one that was served, all at once.
    func turnEnded(_ loop: inout ReactorLoop)

    /// A message that `Reactor.post` brought.
    func message(_ message: ReactorMessage, _ loop: inout ReactorLoop)

    /// One request datagram, without its 8-byte frame header. The reply is framed and cut into datagrams by the
    /// reactor.
    func datagram(_ datagram: borrowing Datagram, _ input: Span<UInt8>, _ output: inout OutputBuffer)

    /// The reactor stops; every connection is closed. Comes after everything else, on the same thread.
    func stopped()
}

extension ReactorHandler {
    package func started(_ loop: inout ReactorLoop) {}
    package func opened(_ connection: inout Connection, _ output: inout OutputBuffer) {}
    package func foresee(_ inputs: borrowing InputGroup) {}
    package func filled(_ connection: inout Connection, _ output: inout OutputBuffer) {}
    package func drained(_ connection: inout Connection, _ output: inout OutputBuffer) {}
    package func inputEnded(_ connection: inout Connection, _ output: inout OutputBuffer) {}
    package func distrusted(_ connection: inout Connection, _ reason: String) {}
    package func closed(_ connection: inout Connection, _ reason: CloseReason) {}
    package func released(_ token: UInt64) {}
    package func tick(_ loop: inout ReactorLoop, now: UInt64) {}
    package func turnEnded(_ loop: inout ReactorLoop) {}
    package func message(_ message: ReactorMessage, _ loop: inout ReactorLoop) {}
    package func datagram(_ datagram: borrowing Datagram, _ input: Span<UInt8>, _ output: inout OutputBuffer) {}
    package func stopped() {}
}

/// Why a connection ended.
package enum CloseReason: UInt8, Sendable {
    /// The handler asked for it.
    case handler
    /// The peer closed or ended its input.
    case peer
    /// A read or write failed.
    case error
    /// It was idle longer than the timeout.
    case idle
    /// It did not read its replies: more output waited than the limit.
    case slowReader
    /// It sent more than the limit without a whole request.
    case inputLimit
    /// The reactor stops.
    case stopping
}

/// A small message from another thread to a handler. What the numbers mean is between the two.
package struct ReactorMessage: Sendable, BitwiseCopyable {
    /// What it is about.
    package var kind: UInt32
    /// The connection it is about, if any.
    package var connection: ConnectionID
    /// Anything that fits.
    package var value: UInt64

    /// A message about a connection, or about none.
    package init(kind: UInt32, connection: ConnectionID = ConnectionID(rawValue: .max), value: UInt64 = 0) {
        self.kind = kind
        self.connection = connection
        self.value = value
    }
}
