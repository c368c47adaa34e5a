// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Overload

/// The place of one reply in a client's output. Tickets of a client are a list in the order of its requests.
struct Ticket: BitwiseCopyable {
    /// The client's connection, as ``ConnectionID/rawValue``.
    var client: UInt64 = 0
    /// The next ticket of the client; -1 for none.
    var next: Int32 = -1
    /// The call whose reply it waits for; -1 when it waits for none, or for several.
    var call: Int32 = -1
    /// The request that a machine handles; -1 for none.
    var routed: Int32 = -1
    /// Its span, as long as it may be recorded; -1 for none. When it came, and what it is, for spans that are begun
    /// only when it is slow or fails.
    var span: Int32 = -1
    var started: UInt64 = 0
    var verb = Verb.get
    /// How many calls are to be answered yet, of a request that goes to every server.
    var remaining: Int32 = 0
    /// What came before its turn: a list of chunks in the client's stash; -1 for none.
    var firstChunk: Int32 = -1
    var lastChunk: Int32 = -1
    /// Of a binary request, for replies that the router makes.
    var opaque: UInt32 = 0
    var opcode: UInt8 = 0
    var form = ProtocolForm.classic
    var failure = RouteFailure.none
    var traits: TicketTraits = []
}

/// Yes-or-no properties of a ``Ticket``.
struct TicketTraits: OptionSet, BitwiseCopyable {
    let rawValue: UInt8
    /// Everything that it has to say is there.
    static var done: TicketTraits { TicketTraits(rawValue: 1) }
    /// A part of a get of several keys, and the `END` behind them.
    static var partOfGet: TicketTraits { TicketTraits(rawValue: 2) }
    static var lastOfGet: TicketTraits { TicketTraits(rawValue: 4) }
    /// Not answered, whatever happens: `noreply`.
    static var silent: TicketTraits { TicketTraits(rawValue: 8) }
    /// A value was begun and is not all there: without the rest the client's connection is of no use.
    static var midValue: TicketTraits { TicketTraits(rawValue: 16) }
    /// A part of a get that a server answered with an error, after which the client gets nothing more of it.
    static var endsWithError: TicketTraits { TicketTraits(rawValue: 32) }
}

/// A command that was sent to a server, or waits to be. Calls of a lane are a list in the order of sending, which is
/// the order of the replies.
struct Call: BitwiseCopyable {
    /// The ticket that waits for the reply; -1 when nobody does any more: what comes is discarded.
    var ticket: Int32 = -1
    /// The next call of the lane; -1 for none.
    var next: Int32 = -1
    /// When it is given up, in monotonic nanoseconds.
    var deadline: UInt64 = 0
    /// When it was made.
    var started: UInt64 = 0
    var shape = ReplyShape.line
    var hides = HideRule.nothing
    /// The opcode that the client used.
    var opcode: UInt8 = 0
    /// Its span, where it is recorded; -1 for none.
    var span: Int32 = -1
    /// The request of a machine that waits for the reply, and its number there; -1 for none.
    var routed: Int32 = -1
    var token: Int32 = 0
    /// How much it matters, and how long it waited until it was sent, in microseconds.
    var requestClass = RequestClass.standard
    var waitedMicroseconds: UInt32 = 0
    /// Whether it only asks whether the server is there.
    var isProbe = false
    /// Whether it is one of several whose answers are counted: of a request that went to every server, or of deletes
    /// that are repeated, whose run `token` is then.
    var isPartOfBroadcast = false
    var isReplay = false
    /// Of a write, and of a read whose reply is kept because its key is hot: the key's hash; 0 for others.
    var hash: UInt64 = 0
    var isHotRead = false
    /// Whether it deletes a copy of a hot key because the key is written.
    var isInvalidation = false
    /// Whether it asks a server for its hot keys.
    var isHotReport = false
}

extension Call {
    /// Whether somebody waits for the reply.
    var isAwaited: Bool { ticket >= 0 || routed >= 0 || isProbe || isReplay }
}

/// Bytes of a client's stash; or of a call, which is `next` then, that waits to be sent.
struct Chunk: BitwiseCopyable {
    var offset = 0
    var length = 0
    var next: Int32 = -1
}

/// A buffer of the reactor's pool.
struct ReplyBuffer: ~Copyable {
    var bytes = OutputBuffer(capacity: 2048)
}

/// What a reactor keeps of a client's connection.
struct ClientState: ~Copyable {
    var id: UInt64 = .max
    var parser = RequestParser()
    /// The list of its tickets; -1 when it has none.
    var first: Int32 = -1
    var last: Int32 = -1
    /// How many there are.
    var count: Int32 = 0
    /// Buffers of the pool: what goes out at the turn's end, and what came before its turn; -1 for none.
    var ready: Int32 = -1
    var stash: Int32 = -1
    /// Bytes of the stash that are still wanted.
    var stashed = 0
    /// Bytes of a value that is coming in, which are reserved.
    var incoming = 0
    /// Replies that were finished since the last turn's end.
    var finished = 0
    /// What a reply of this client has in bytes lately.
    var typicalReply = 64 << 10
    /// A hash of the address that it comes from.
    var address: UInt64 = 0
    /// Bytes of refusals on their way to it, which do not count against quotas.
    var freeBytes = 0
    var traits: ClientTraits = []
    /// Whose requests these are, and whether a login has to come first.
    var identity = ClientIdentity()

    init() {}
}

/// Yes-or-no properties of a ``ClientState``.
struct ClientTraits: OptionSet, BitwiseCopyable {
    let rawValue: UInt8
    /// Listed to be looked at when the turn ends.
    static var dirty: ClientTraits { ClientTraits(rawValue: 1) }
    /// In the middle of a get of several keys.
    static var inGet: ClientTraits { ClientTraits(rawValue: 2) }
    /// A get of several keys has failed and said so: the rest of it is dropped.
    static var skipping: ClientTraits { ClientTraits(rawValue: 4) }
    /// Its input is stopped until some replies are out.
    static var paused: ClientTraits { ClientTraits(rawValue: 8) }
    /// Its output is broken off in the middle of a value.
    static var broken: ClientTraits { ClientTraits(rawValue: 16) }
}
