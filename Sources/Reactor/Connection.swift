// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory
internal import Platform
internal import Synchronization

/// How a peer reaches us.
@usableFromInline
package enum Transport: UInt8, Sendable, BitwiseCopyable {
    case tcp, unix, tls, udp
}

/// One peer's stream, in a slot of its reactor. A handler gets it `inout`, for the length of one call, and steers the
/// reactor through it; the reactor acts when the call returns.
///
/// About 250 bytes; buffers exist only while there is something in them.
@safe @usableFromInline
package struct Connection: ~Copyable {
    /// Names the connection, also for other threads.
    @usableFromInline package let id: ConnectionID
    /// The descriptor's number, for logs and statistics. The reactor owns it.
    @usableFromInline package let fd: Int32
    /// What the listener's configuration calls itself.
    @usableFromInline package let tag: UInt64
    /// The index of the listener in ``ReactorGroup/listeners``; -1 for an adopted descriptor.
    @usableFromInline package let listener: Int
    /// How the peer reaches us.
    @usableFromInline package let transport: Transport
    /// For the handler: what it wants to know about the connection without a table of its own. 0 when opened.
    @usableFromInline package var handlerState: UInt64 = 0

    /// What a connection that only waits for input is watched for when its last read emptied the socket: told of once,
    /// which saves the kernel a second look at each. Everything else is watched level-triggered.
    static var rest: Readiness { [.input, .edge, .peerEnded] }

    /// What was asked for and what is going on.
    @usableFromInline var flags: ConnectionFlags = []
    /// What epoll reports of the descriptor now.
    var interest: Readiness
    /// Input that the handler left, or has not seen yet.
    var kept = KeptInput()
    /// `received` is not called with fewer bytes.
    @usableFromInline var minimumBytes = 1
    /// More unconsumed input than this ends the connection.
    @usableFromInline var inputLimitBytes: Int
    /// Input bytes still to discard.
    @usableFromInline var swallowBytes = 0
    /// How many small reads came in a row while ``ConnectionFlags/sendsMuch`` is set.
    var smallReads: UInt8 = 0
    /// Where the next input goes, when filling.
    @usableFromInline var fillTarget: MemoryBlock?
    /// Bytes of `fillTarget` that are there.
    @usableFromInline var fillCount = 0
    /// Output that the socket did not take yet.
    var backlog: Backlog?
    /// What another thread writes to the peer through.
    var stream: ConnectionStream?
    /// The OpenSSL session.
    var session: OpaquePointer?
    /// What was last published of what it is doing.
    var shownState = ConnectionState.reading
    /// When the reactor gives up waiting (handshake, last bytes), in monotonic nanoseconds; 0 when it does not.
    var deadline: UInt64 = 0
    /// What other threads see of it.
    let status: UnsafeMutablePointer<SlotStatus>

    init(
        id: ConnectionID, fd: Int32, origin: Origin, interest: Readiness, inputLimitBytes: Int,
        status: UnsafeMutablePointer<SlotStatus>
    ) {
        self.id = id
        self.fd = fd
        tag = origin.tag
        listener = origin.listener
        transport = origin.transport
        self.interest = interest
        self.inputLimitBytes = inputLimitBytes
        // SAFETY: the registry keeps the status as long as the reactor lives.
        unsafe self.status = status
    }

    /// Where a connection came from.
    struct Origin {
        var listener: Int
        var tag: UInt64
        var transport: Transport
    }

    /// A small number, dense from 0, that no other open connection of the reactor has: for tables of the handler.
    @inlinable package var slot: Int { @inline(__always) get { id.slot } }

    /// When something of the peer's was last executed, in monotonic nanoseconds.
    package var lastActivityNanoseconds: UInt64 {
        // SAFETY: the registry keeps the status as long as the reactor lives.
        unsafe status.pointee.activity.load(ordering: .relaxed)
    }
}

/// What a handler asked for, and states of a connection.
@usableFromInline
struct ConnectionFlags: OptionSet, BitwiseCopyable {
    @usableFromInline let rawValue: UInt32
    @inlinable init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Close once all output is with the kernel.
    @inlinable static var closeAfterFlush: Self { Self(rawValue: 1 << 0) }
    /// Close at once.
    @inlinable static var closeNow: Self { Self(rawValue: 1 << 1) }
    /// The handler does not want input.
    @inlinable static var paused: Self { Self(rawValue: 1 << 2) }
    /// The handler stopped for fairness.
    @inlinable static var yielded: Self { Self(rawValue: 1 << 3) }
    /// In the queue of connections that go on without an event.
    @inlinable static var queued: Self { Self(rawValue: 1 << 4) }
    /// Replies are outstanding: the peer's end of input does not close.
    @inlinable static var held: Self { Self(rawValue: 1 << 5) }
    /// The peer sent its last byte.
    @inlinable static var inputEnded: Self { Self(rawValue: 1 << 6) }
    /// The TLS handshake is not done.
    @inlinable static var handshaking: Self { Self(rawValue: 1 << 7) }
    /// TLS must write before it can read on.
    @inlinable static var readWantsWrite: Self { Self(rawValue: 1 << 8) }
    /// Our side is shut down; what still arrives is discarded.
    @inlinable static var lingering: Self { Self(rawValue: 1 << 9) }
    /// The handler was told that it opened.
    @inlinable static var opened: Self { Self(rawValue: 1 << 10) }
    /// Input may wait in OpenSSL's buffer, which epoll does not see.
    @inlinable static var hasHiddenInput: Self { Self(rawValue: 1 << 11) }
    /// Something was executed: the idle clock starts again.
    @inlinable static var active: Self { Self(rawValue: 1 << 12) }
    /// Kept input waits that the handler has not seen or not finished with.
    @inlinable static var hasUnseenInput: Self { Self(rawValue: 1 << 13) }
    /// The handler was told that it closed.
    @inlinable static var goodbye: Self { Self(rawValue: 1 << 14) }

    /// Sends more at once than an ``InputGroup`` takes: read by itself.
    @inlinable static var sendsMuch: Self { Self(rawValue: 1 << 15) }

    /// We made the connection, rather than the peer.
    @inlinable static var outgoing: Self { Self(rawValue: 1 << 16) }
    /// It does not stand yet.
    @inlinable static var connecting: Self { Self(rawValue: 1 << 17) }

    /// Any of these keeps a connection's input out of a group.
    @inlinable static var staysAlone: Self {
        [.stopsInput, .inputEnded, .sendsMuch, .readWantsWrite, .hasHiddenInput, .hasUnseenInput, .queued]
    }
    /// Any of these keeps input from the handler for now, and what is in the socket from being read.
    @inlinable static var stopsInput: Self {
        [.closeAfterFlush, .closeNow, .paused, .yielded, .lingering, .handshaking, .connecting]
    }
    /// Any of these wants more than a look at the output after the handler's call.
    @inlinable static var needsCare: Self {
        [
            .closeAfterFlush, .closeNow, .paused, .yielded, .held, .inputEnded, .readWantsWrite, .hasHiddenInput,
            .hasUnseenInput,
        ]
    }
}
