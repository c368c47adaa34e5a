// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Overload

/// Every limit of the router, and what it may do.
package struct RouterLimits: Sendable, Equatable {
    /// Bytes of a value that a client stores, at most.
    package var valueBytes = 16 << 20
    /// Replies that a client may have outstanding before its input waits.
    package var clientRequests = 1024
    /// Bytes that those replies will probably have: fewer are outstanding where they are large.
    package var clientReplyBytes = 8 << 20
    /// Bytes of all values that are coming in and not all there: a value that finds no room is refused.
    package var incomingBytes = 256 << 20
    /// Bytes that all requests with more than one server keep, of clients' values and of servers' replies.
    package var routedBytes = 256 << 20
    /// Bytes of replies that wait for a client's earlier ones; beyond, the client is closed.
    package var stashBytes = 64 << 20
    /// Commands in flight to one server, of one reactor; beyond, requests are refused as busy.
    package var laneRequests = 16_384
    /// How servers are spared that have too much to do. Its limit at most is ``laneRequests``.
    package var backend = BackendGuard.Configuration()
    /// Bytes that wait to be sent to one server, of one reactor; beyond, requests are refused as busy.
    package var laneBytes = 32 << 20
    /// The wait after a connection that failed once.
    package var reconnectMinimumNanoseconds: UInt64 = 50_000_000
    /// The longest wait after connections that failed.
    package var reconnectMaximumNanoseconds: UInt64 = 2_000_000_000
    /// How much longer than a request may take a server may say nothing before its connection is given up.
    package var stuckNanoseconds: UInt64 = 3_000_000_000
    /// Whether `flush_all` is passed on, to every server.
    package var allowsFlush = false

    /// Requests of a client in one turn before the others have theirs.
    let requestsPerTurn = 1024
    /// Unconsumed input of a client: the longest `get` line.
    let inputBytes = 64 << 20
    /// Keys of one `get` line to a server.
    let keysPerLine = 128
    /// Values up to this many bytes are passed on when they are whole, larger ones as they come.
    let wholeReplyBytes = 64 << 10
    /// Memory that a buffer keeps for its next use.
    let keptBufferBytes = 64 << 10

    /// The defaults.
    package init() {}
}
