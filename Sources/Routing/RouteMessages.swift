// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A client's request, as routes look at it.
package struct RouteRequest: Sendable {
    /// The caller's number: comes back in tickets.
    package var id: UInt64
    /// What is asked for.
    package var operation: RouteOperation
    /// Whose request it is, so that nobody takes all of a limit; 0 for nobody's.
    package var sender: UInt64
    /// The expiry as the client wrote it: 0 is for ever.
    package var exptime: Int64
    /// Client flags of a value to store.
    package var flags: UInt32
    /// What a `cas` compares, or the lease of a `leaseSet`.
    package var casToken: UInt64
    /// Whether it is a read whose replies come without the value.
    package var isValueless: Bool
    /// Of a `get` of a hot key: the copy to read, 1 for the first; 0 for what the key's owner has.
    package var copy = 0
    /// How long a copy that is made lives. Seconds.
    package var copyTTL = 1

    /// A request.
    package init(
        id: UInt64 = 0, _ operation: RouteOperation, sender: UInt64 = 0, exptime: Int64 = 0, flags: UInt32 = 0,
        casToken: UInt64 = 0, isValueless: Bool = false
    ) {
        self.id = id
        self.operation = operation
        self.sender = sender
        self.exptime = exptime
        self.flags = flags
        self.casToken = casToken
        self.isValueless = isValueless
    }
}

/// A request to one destination.
package struct SubRequest: Sendable, Equatable {
    /// What it is for.
    package enum Kind: UInt8, Sendable {
        /// Ordinary ones, those after an error or a miss, copies of requests for others, reads that are asked a second
        /// time, and copies of hot keys that are made.
        case normal, failover, shadow, hedge, fill
    }

    /// The key to send.
    package enum Key: Sendable, Equatable {
        /// The client's from that byte on.
        case request(from: Int)
        /// Another one.
        case bytes([UInt8])
    }

    /// The value to send.
    package enum Value: Sendable, Equatable {
        /// The client's.
        case request
        /// A part of the client's.
        case slice(Range<Int>)
        /// That of the reply with this token.
        case reply(Int)
        /// Another one.
        case bytes([UInt8])
    }

    /// Its number: 0, 1, 2, …; to be given back with its reply.
    package let token: Int
    /// A number of ``RoutePlan/destinations``.
    package let destination: Int
    /// A number of ``RoutePlan/pools``.
    package let pool: Int
    /// What to ask for.
    package let operation: RouteOperation
    /// Whether it is the client's own request, but for the key and the expiry: its other parts can be sent as they are.
    package let isSame: Bool
    /// The key to send.
    package let key: Key
    /// The expiry to send; nil for the client's.
    package let exptime: Int64?
    /// The value to send, of operations that have one.
    package let value: Value
    /// The flags to send; nil for the client's.
    package let flags: UInt32?
    /// The token to send; nil for the client's.
    package let casToken: UInt64?
    /// What it is for.
    package let kind: Kind
    /// Whether nobody waits for it. Its reply is to be given all the same.
    package let isDetached: Bool
}

/// What came of a ``SubRequest``.
package struct RouteReply: Sendable {
    /// How it ended.
    package var result: RouteResult
    /// Flags of the value.
    package var flags: UInt32
    /// The value's version; of a `leaseGet`, the lease.
    package var casToken: UInt64
    /// Seconds that are left, of a `metaGet`: below 0 for ever; nil when it is not known.
    package var exptime: Int64?
    /// Whether a `leaseGet` got the lease.
    package var hasLease: Bool

    /// A reply.
    package init(
        _ result: RouteResult, flags: UInt32 = 0, casToken: UInt64 = 0, exptime: Int64? = nil, hasLease: Bool = false
    ) {
        self.result = result
        self.flags = flags
        self.casToken = casToken
        self.exptime = exptime
        self.hasLease = hasLease
    }
}

/// What the client is answered.
package struct FinalReply: Sendable, Equatable {
    /// Where it comes from.
    package enum Source: Sendable, Equatable {
        /// The reply with this token, whose operation may be another than the client's.
        case token(Int)
        /// The values of these replies, one behind the other.
        case pieces([Int])
        /// No server: the result, and a text of an error.
        case made(String?)
    }

    /// How it ended.
    package let result: RouteResult
    /// Where its value comes from.
    package let source: Source
    /// Flags to write; nil for those of the source.
    package let flags: UInt32?
    /// The token to write; nil for that of the source.
    package let casToken: UInt64?
    /// Whether the client has the lease.
    package let hasLease: Bool
}

/// What a machine wants done, in this order.
package enum RouteAction: Sendable, Equatable {
    /// Send a request.
    case send(SubRequest)
    /// Call ``RouteMachine/wake(_:engine:clock:actions:)`` with the token at that time of the monotonic clock.
    case wait(token: Int, untilNanoseconds: UInt64)
    /// Answer the client. Once for each request.
    case reply(FinalReply)
}
