// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Synchronization
internal import Telemetry

/// What one reactor counts of one server.
final class BackendMeter: Sendable {
    let counters = CounterSet<BackendCounter>()
    /// From a request's arrival to its reply's.
    let latency = LatencyHistogram()
    /// The last traced request of each of its buckets.
    let exemplars: ExemplarCells
    /// A ``Lane/State`` of the text connection, for statistics.
    let state = Atomic<UInt8>(0)

    init(isTraced: Bool) { exemplars = ExemplarCells(isOn: isTraced) }
}

/// What is counted of a server.
enum BackendCounter: Int, CounterIndex {
    /// Commands sent, and replies that came in time.
    case requests, replies
    /// Replies that are errors of the server.
    case errorReplies
    /// Requests that were given up, by why.
    case timeouts, lost, connectTimeouts, connectErrors, unavailable, busy
    /// Of those that were busy: not sent because the server would probably refuse them, and given up while they waited
    /// for room with it. And replies in which the server says that it is too busy.
    case throttled, expired, refusals
    /// Commands that wait for room with the server, and how many may be with it, by connection.
    case waiting, waitingBinary, limit, limitBinary
    /// Replies that came too late and were discarded.
    case lateReplies
    /// How often the server was taken out for its part of errors, and whether it is taken out now, for whatever.
    case circuitOpens, ejected
    /// Connections that came to stand, attempts that failed, connections that broke.
    case connects, connectFailures, disconnects
    /// Commands whose replies are to come.
    case outstanding, outstandingBinary
    /// Bytes from and to the server.
    case bytesRead, bytesWritten
}

/// What one reactor counts of its clients' requests.
final class RouterMeter: Sendable {
    let counters = CounterSet<RouterCounter>()
}

/// What is counted of clients' requests.
enum RouterCounter: Int, CounterIndex {
    case gets, sets, deletes, arithmetics, touches, metas, others
    /// Parts of gets of several keys.
    case fragments
    /// Requests that a machine handled, rather than one server.
    case routed
    /// Commands that were sent again because another server owned their key.
    case moved
    /// Reads that were asked of a second server because the first dawdled, those that it answered first, and those that
    /// were not asked because servers are busy or too many were.
    case hedges, hedgeWins, hedgesWithheld
    /// Requests refused for their form or because the router does not pass them on.
    case refused
    /// Gets that were answered with what another one had read; and keys that are hot now.
    case hotHits, hotKeys
    /// Gets of hot keys that went to a copy, and copies that were made.
    case hotSpread, hotFills
    /// Values and replies refused because there was no room for them.
    case overflowed
    /// Bytes of replies that had to wait for earlier ones.
    case stashedBytes
}
