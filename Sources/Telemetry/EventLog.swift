// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// What an event is about: the field `event` of its line.
package enum EventKind: String, CaseIterable, Sendable {
    /// Who is in the fleet.
    case membership
    /// Which ring, lease or stream counts.
    case epoch
    /// Requests that were refused for overload.
    case shedding
    /// Servers behind a router, and the store behind a node.
    case health
    /// What the program was told.
    case configuration
    /// Its start, its leaving and its end.
    case lifecycle

    /// The messages of the log that are events, by what they are about.
    package static let messages: [String: EventKind] = {
        let lists: [EventKind: [String]] = [
            .membership: [
                "members changed", "members", "routing to other members", "no members were found yet",
                "members cannot be used, and stay as they are", "the members are not looked up", "registration",
                "leaving the members", "warming up: the node fetches its share of the keys", "warmed up",
            ],
            .epoch: [
                "the ring changed", "the lease cannot be renewed", "the lease can be renewed again",
                "this node's name is taken", "stream: following", "stream: there is no connection home",
                "stream: slots are quarantined",
                "another process has this node's name: nothing is served until that one falls silent",
                "another process has this node's name: it is waited for until its lease is over",
                "promotion", "this region is home", "another region is home", "turned",
                "another region is to be home: writes are refused", "the promotion came to nothing: writes go on",
                "the database is fenced: another region was to be home",
                "changes of this region are not at the new home", "kafka: this node publishes the stream",
                "kafka: another node publishes the stream",
            ],
            .shedding: ["shedding began", "shedding ended", "over quota"],
            .health: [
                "a server is taken out", "a server is used again", "storage fails", "storage is ready",
                "deletes are to be repeated", "all missed deletes were repeated",
                "stream: the clocks differ by too much",
            ],
            .configuration: [
                "reloaded", "reload failed", "some changed settings wait for a restart",
                "the configuration is wrong: the last good one is used",
            ],
            .lifecycle: [
                "listening", "stopping", "stopping gracefully", "draining", "the cache begins empty",
                "items restored", "items saved", "items not saved", "the node ends",
            ],
        ]
        var kinds: [String: EventKind] = [:]
        for (kind, messages) in lists { for message in messages { kinds[message] = kind } }
        return kinds
    }()
}

/// The last events of a process, for its admin port: bounded, and not limited in rate as lines of the log are. Safe to
/// use from any thread.
package final class EventLog: Sendable {
    /// Events that are kept at most.
    package static let limit = 256

    private struct State {
        var lines: [String] = []
        /// The place of the oldest, once there is no more room.
        var first = 0
        var total: UInt64 = 0
    }

    private let state = Guarded(State())

    /// A log without events.
    package init() {}

    /// Adds an event, as a JSON object.
    func add(_ object: String) {
        state.withLock { state in
            state.total += 1
            if state.lines.count < Self.limit {
                state.lines.append(object)
            } else {
                state.lines[state.first] = object
                state.first = (state.first + 1) % Self.limit
            }
        }
    }

    /// The last events as JSON objects, the oldest first; at most `count`.
    package func last(_ count: Int = EventLog.limit) -> [String] {
        state.withLock { state in
            let ordered = Array(state.lines[state.first...] + state.lines[..<state.first])
            return Array(ordered.suffix(count))
        }
    }

    /// How many there were since the start.
    package var total: UInt64 { state.withLock { $0.total } }
}
