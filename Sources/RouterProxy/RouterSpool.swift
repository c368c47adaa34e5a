// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Platform
internal import Reactor
internal import Spool
internal import Synchronization
internal import Telemetry

/// Deletes that servers missed: kept on disk until the servers have done them; and which servers are not read from
/// meanwhile. One for all reactors, with threads that write the disk and etcd.
///
/// A delete that failed counts from the moment it is added: no reactor reads from the server before its client is
/// answered, and until it was repeated. A server of a fleet in etcd is marked there before the client is answered, and
/// servers that other routers marked are not read from either.
final class RouterSpool: Sendable {
    /// Grows whenever ``withheld`` may have changed. Reactors look at it before each batch of requests.
    let epoch = Atomic<UInt64>(1)
    let settings: SpoolSettings
    let counters = SpoolCounters()
    let log: Log?
    let state = Guarded(State())
    /// Where the threads wait for something to do.
    let writing = Parking()
    let marking = Parking()
    let threads = Guarded<[Thread]>([])

    /// A delete that failed, and which part of which request waits to hear that it is kept.
    struct Missed: Sendable {
        let server: String
        let key: [UInt8]
        let reactor: Int
        let routed: Int
        let generation: Int
        let token: Int
    }

    /// What became of a ``Missed``.
    struct Outcome: Sendable {
        let missed: Missed
        let isKept: Bool
    }

    /// Keys that a server is to delete now.
    struct Replay: Sendable {
        let server: String
        let keys: [[UInt8]]
    }

    /// What is known of a server that missed deletes.
    struct Entry {
        /// Deletes that are not repeated yet: on disk, and on their way there.
        var pending = 0
        var onDisk = 0
        /// Whether a batch is being repeated, and when the next may be. Nanoseconds.
        var isReplaying = false
        var nextReplay: UInt64 = 0
        /// Whether all routers can see our mark, whether it may be there, and what waits for it.
        var isMarked = false
        var mayBeMarked = false
        var awaitingMark: [Missed] = []
    }

    struct State {
        var entries: [String: Entry] = [:]
        var queue: [Missed] = []
        /// What was repeated, and is yet to be taken off the disk.
        var done: [Replay] = []
        /// By reactor: what it is yet to be told.
        var outcomes: [[Outcome]] = []
        var replays: [Replay] = []
        var reactors: [Reactor] = []
        /// By the prefix of members: marks beside them, and the servers that others marked there.
        var marks: [String: RepairMarks] = [:]
        var marked: [String: Set<String>] = [:]
        /// By server: the prefix of its members.
        var places: [String: String] = [:]
        /// This router's name in marks; empty until the directory is open.
        var identifier = ""
        var bytes = 0
        var isStopped = false
    }

    /// The kind of a reactor's message that says: look here.
    static var messageKind: UInt32 { 1 }
    /// Deletes on their way to the disk at most, and how many are repeated at a time.
    static var queueLimit: Int { 100_000 }
    static var batch: Int { 256 }
    /// How long a server is left alone after deletes could not be repeated.
    static var pauseNanoseconds: UInt64 { 200_000_000 }

    init(_ settings: SpoolSettings, log: Log?) {
        self.settings = settings
        self.log = log
    }

    /// Whether deletes are kept at all.
    var keeps: Bool { settings.directory != nil }

    // MARK: For reactors

    /// Servers that are not to be read from.
    var withheld: Set<String> {
        state.withLock { state in
            let own = Set(state.entries.filter { $0.value.pending > 0 }.keys)
            return state.marked.values.reduce(into: own) { $0.formUnion($1) }
        }
    }

    /// Takes a delete that failed. False when too many are on their way already; otherwise the reactor hears what
    /// became of it.
    func add(_ missed: Missed) -> Bool {
        let isTaken = state.withLock { state in
            guard state.queue.count < Self.queueLimit, !state.isStopped else { return false }
            state.queue.append(missed)
            state.entries[missed.server, default: Entry()].pending += 1
            if state.entries[missed.server]?.pending == 1 { epoch.add(1, ordering: .releasing) }
            return true
        }
        if isTaken { writing.announce() } else { counters.refused.add(1, ordering: .relaxed) }
        return isTaken
    }

    /// What a reactor is yet to be told.
    func takeOutcomes(reactor: Int) -> [Outcome] {
        state.withLock { state in
            guard reactor < state.outcomes.count else { return [] }
            defer { state.outcomes[reactor] = [] }
            return state.outcomes[reactor]
        }
    }

    /// What the first reactor is to have servers do.
    func takeReplays() -> [Replay] {
        state.withLock { state in
            defer { state.replays = [] }
            return state.replays
        }
    }

    /// Whether a server did all of a replay.
    func replayed(_ replay: Replay, succeeded: Bool) {
        if succeeded { counters.replayed.add(UInt64(replay.keys.count), ordering: .relaxed) }
        state.withLock { state in
            if succeeded {
                state.done.append(replay)
            } else {
                state.entries[replay.server]?.isReplaying = false
                state.entries[replay.server]?.nextReplay = Clock.monotonicNanoseconds() &+ Self.pauseNanoseconds
            }
        }
        writing.announce()
    }

    // MARK: For statistics

    /// Deletes that servers have still to do, by server.
    var pending: [String: Int] { state.withLock { $0.entries.mapValues(\.pending).filter { $0.value > 0 } } }

    /// Servers that other routers marked.
    var markedByOthers: Set<String> { state.withLock { $0.marked.values.reduce(into: []) { $0.formUnion($1) } } }

    /// Bytes on disk.
    var bytes: Int { state.withLock { $0.bytes } }
}

/// What a ``RouterSpool`` counts: deletes.
final class SpoolCounters: Sendable {
    /// Kept, refused because there was no room or the disk or etcd did not take them, and repeated.
    let kept = Atomic<UInt64>(0)
    let refused = Atomic<UInt64>(0)
    let replayed = Atomic<UInt64>(0)
}
