// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Overload
internal import Platform
internal import Reactor
internal import Routing

/// One reactor's connection to one server, for one protocol: the calls in flight, and what waits to be sent.
struct Lane: ~Copyable {
    enum State: UInt8, BitwiseCopyable {
        /// No connection; the next request makes one.
        case idle
        case connecting
        case open
        /// The last attempt failed; no other before ``Lane/retryAt``.
        case waiting
    }

    var state = State.idle
    /// The connection, as ``ConnectionID/rawValue``.
    var connection: UInt64 = .max
    /// What goes out when the turn ends.
    var pending = OutputBuffer(capacity: 256)
    /// Bytes that the socket has not taken, when last looked at.
    var unsent = 0
    /// Calls whose replies are to come: the list, its first that somebody still waits for, and how many.
    var first: Int32 = -1
    var last: Int32 = -1
    var firstLive: Int32 = -1
    var outstanding = 0
    /// Bytes of a large value that are still to come.
    var streamLeft = 0
    /// Whether they are passed on.
    var streams = false
    var isDirty = false
    var isBinary = false
    /// What is known of how much the server can take.
    var gate = BackendGuard()
    /// What waits until there is room with the server: bytes of commands, of which the chunks that ``waiting`` names
    /// are wanted, so many in all. The room is made when it is first needed.
    var waiting: WaitingRoom?
    var waitingCount = 0
    var waitingBytes = OutputBuffer(capacity: 64)
    var waitingLength = 0
    /// The chunk of a command that is being written and has to wait, and where it begins in what goes out; -1 for none.
    var sealedChunk: Int32 = -1
    var sealStart = 0
    /// Whether the reply that is being read says that the server is too busy.
    var isRefusal = false
    /// Whether it says that the server failed.
    var isFailure = false
    /// The server's number in spans; -1 where nothing is traced.
    var tracePeer: Int32 = -1
    /// Whether the server says whose a key is that is not its own, and is told that it is understood.
    var followsOwners = false
    /// Whether the server is not to be read from: it missed deletes.
    var withholdsReads = false
    /// Whether the server does not tell its hot keys, or was asked for them and has not answered.
    var tellsNoRates = false
    var awaitsRates = false
    /// The call whose `get` line is open, and how many keys it has; -1 for none.
    var openCall: Int32 = -1
    var openKeys = 0
    var openVerb = Verb.get
    var openExptime: Int64 = 0
    /// When connecting is given up, and when it may be tried again, in monotonic nanoseconds.
    var connectDeadline: UInt64 = 0
    var retryAt: UInt64 = 0
    /// How many attempts failed in a row.
    var failures = 0
    /// How long a reply and a connection may take.
    var requestNanoseconds: UInt64 = 0
    var connectNanoseconds: UInt64 = 0
    /// Whether the server is no longer in the configuration.
    var isLeaving = false
    /// When the server was last heard of.
    var lastInput: UInt64 = 0
    /// The server's number in the plan; -1 when it has none any more.
    var destination: Int32 = -1
    /// The server, and what this reactor counts of it.
    var backend = Backend.nobody
    var meter = Backend.nobody.meters[0]

    init() {}
}

/// A server as all reactors share it: where it is and how it is reached. What each reactor counts of it is in its
/// ``BackendMeter``.
final class Backend: Sendable {
    /// As the configuration spells it.
    let name: String
    let destination: RouterDestination
    let tls: TLSClientContext?
    /// By reactor.
    let meters: [BackendMeter]
    /// Where it is now: names are looked up when the program starts, and again when a connection fails.
    private let addresses: Guarded<[SocketAddress]>

    init(
        _ destination: RouterDestination, tls: TLSClientContext?, addresses: [SocketAddress], reactors: Int,
        isTraced: Bool
    ) {
        name = destination.name
        self.destination = destination
        self.tls = tls
        self.addresses = Guarded(addresses)
        meters = (0..<reactors).map { _ in BackendMeter(isTraced: isTraced) }
    }

    /// What a lane has before it is given a server.
    static let nobody = Backend(
        RouterDestination(host: "", port: 0), tls: nil, addresses: [], reactors: 1, isTraced: false)

    /// One of its addresses: another one after each failure.
    func address(attempt: Int) -> SocketAddress? {
        addresses.withLock { $0.isEmpty ? nil : $0[attempt % $0.count] }
    }

    /// Replaces the addresses, when a name was looked up again.
    func setAddresses(_ list: [SocketAddress]) { addresses.withLock { $0 = list } }
}

/// Where a server is and what holds for it.
package struct RouterDestination: Sendable, Hashable {
    /// A host name, an address, or with port 0 the path of a unix socket.
    package var host: String
    /// TCP port; 0 with a unix socket.
    package var port: UInt16
    /// Whether it is spoken to over TLS.
    package var usesTLS = false
    /// How long a reply may take.
    package var requestTimeoutMilliseconds = 1000
    /// How long a connection may take to stand.
    package var connectTimeoutMilliseconds = 1000

    /// A server at `host` and `port`.
    package init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// A destination of routes.
    init(_ destination: Destination) {
        self.init(host: destination.host, port: UInt16(clamping: destination.port))
        usesTLS = destination.usesTLS
        requestTimeoutMilliseconds = destination.requestTimeoutMilliseconds
        connectTimeoutMilliseconds = destination.connectTimeoutMilliseconds
    }

    /// As a person would write it.
    package var name: String {
        port == 0 ? host : host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
}
