// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import COpenSSL
package import Memory
package import Platform

/// A connection of ours to a server, or one of a tool that it took, for one thread: connects, speaks TLS where it is
/// told to, reads and writes without waiting.
@safe
package struct OutboundStream: ~Copyable {
    // SAFETY (type): the session is this connection's from `init` to `deinit`, and one thread's; buffers give the bytes
    // that they say.

    /// What came of a read.
    package enum Reading: Equatable, Sendable {
        /// So many bytes were read.
        case bytes(Int)
        /// Nothing waits.
        case nothing
        /// The server closed.
        case ended
        /// The connection is broken.
        case failed
    }

    /// How a connection that stands is on its way to being one that requests may be sent on.
    package enum Securing: Equatable, Sendable {
        /// It is: with TLS, or without.
        case ready
        /// Its handshake goes on when there is input, or room for output.
        case needsInput, needsOutput
        /// There is no trust, with the reason.
        case failed(String)
    }

    private let socket: OutboundSocket
    private let session: OpaquePointer?

    /// Starts to connect to `address`, to speak TLS if there is a context. Watch ``fd`` for output, then ask for
    /// ``connectFailure()``, then let ``secure()`` go on until it is ready.
    package init(to address: SocketAddress, tls: TLSClientContext? = nil) throws(SystemError) {
        let opened = try OutboundSocket(connectingTo: address)
        var made: OpaquePointer?
        if let tls {
            unsafe made = tls.makeSession(opened.fd)
            guard unsafe made != nil else { throw SystemError("SSL_new", code: 12) }
        }
        socket = consume opened
        unsafe session = made
    }

    /// Takes over a connection that was accepted: nobody else closes it from here on.
    package init(adopting number: Int32) {
        socket = OutboundSocket(adopting: number)
        unsafe session = nil
    }

    deinit { if let session = unsafe session { unsafe TLSSession.free(session) } }

    /// Whether the connection was there at once.
    package var isConnectedAtOnce: Bool { socket.isConnectedAtOnce }

    /// The descriptor, to be watched.
    package var fd: Int32 { socket.fd }

    /// Why connecting failed; nil when it did not.
    package func connectFailure() -> SystemError? { socket.failure() }

    /// Goes on with the handshake of a connection that stands.
    package func secure() -> Securing {
        guard let session = unsafe session else { return .ready }
        switch unsafe TLSSession.handshake(session) {
        case .done: return .ready
        case .wantsRead: return .needsInput
        case .wantsWrite: return .needsOutput
        case .failed(let reason): return .failed(reason ?? "the handshake failed")
        }
    }

    /// Whether bytes that arrived wait inside of TLS, where watching ``fd`` does not show them.
    package var hasHiddenInput: Bool {
        guard let session = unsafe session else { return false }
        return unsafe TLSSession.hasHiddenInput(session)
    }

    /// Reads what waits, up to the room that `input` has for at least `minimum` bytes.
    package func receive(into input: inout InputBuffer, minimum: Int) -> Reading {
        let fd = socket.fd
        // SAFETY: the buffer gives `room` writable bytes.
        let got: Int
        if let session = unsafe session {
            got = unsafe input.receive(minimum: minimum) { target, room in
                unsafe TLSSession.read(session, target, room)
            }
            if got == TLSSession.wantsWrite { return .nothing }
        } else {
            got = unsafe input.receive(minimum: minimum) { target, room in unsafe StreamSocket.read(fd, target, room) }
        }
        if got > 0 { return .bytes(got) }
        return got == 0 ? .ended : got == StreamSocket.wouldBlock ? .nothing : .failed
    }

    /// Writes what `output` holds from its byte `start` on: how many bytes the socket took, which may be none; nil when
    /// the connection is broken. After none, the same bytes must come again.
    package func send(_ output: borrowing OutputBuffer, from start: Int) -> Int? {
        let fd = socket.fd
        let sent = unsafe output.withUnsafeBytes(from: start) { bytes in
            // SAFETY: the bytes are the buffer's own and live during the call.
            guard let base = bytes.baseAddress, bytes.count > 0 else { return 0 }
            if let session = unsafe session { return unsafe TLSSession.write(session, base, bytes.count) }
            return unsafe StreamSocket.write(fd, base, bytes.count)
        }
        if sent >= 0 { return sent }
        return sent == StreamSocket.wouldBlock ? 0 : nil
    }
}
