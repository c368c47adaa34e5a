// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Memory
internal import Platform
internal import Reactor
internal import Synchronization

/// What a `watch` connection wants to see. Source: memcached protocol.txt, "Watchers".
struct WatchTopics: OptionSet, Sendable {
    let rawValue: UInt32

    static var rawCommands: WatchTopics { WatchTopics(rawValue: 1) }
    static var evictions: WatchTopics { WatchTopics(rawValue: 2) }
    static var fetchers: WatchTopics { WatchTopics(rawValue: 4) }
    static var mutations: WatchTopics { WatchTopics(rawValue: 8) }
    static var systemEvents: WatchTopics { WatchTopics(rawValue: 16) }
    static var connectionEvents: WatchTopics { WatchTopics(rawValue: 32) }
    static var deletions: WatchTopics { WatchTopics(rawValue: 64) }
    /// Topics of memcached's proxy: accepted, and silent here.
    static var proxy: WatchTopics { WatchTopics(rawValue: 128) }
}

/// Sends what happens to the connections that watch. Costs a load a turn while nobody does.
///
/// Lines collect in a buffer per watcher and go out every 100 ms. A watcher that does not read loses lines and is told
/// how many, as with memcached.
final class WatchHub: Sendable {
    static var watcherLimit: Int { 20 }

    private struct Watcher {
        let stream: ConnectionStream
        let topics: WatchTopics
        var lines: [UInt8] = []
        var skipped = 0
    }

    /// What `stats` shows of the log.
    struct Totals: Sendable {
        var written: UInt64 = 0
        var skipped: UInt64 = 0
        var sent: UInt64 = 0
        var watchers = 0
    }

    private struct State {
        var watchers: [Watcher] = []
        var nextLine: UInt64 = 1
        var totals = Totals()
    }

    private let bufferBytes: Int
    private let union = Atomic<UInt32>(0)
    private let state = Guarded(State())

    init(bufferBytes: Int) { self.bufferBytes = bufferBytes }

    /// What anybody watches.
    var topics: WatchTopics { WatchTopics(rawValue: union.load(ordering: .relaxed)) }

    var totals: Totals {
        state.withLock { state in
            var totals = state.totals
            totals.watchers = state.watchers.count
            return totals
        }
    }

    /// Whether another watcher may come. (Two that come at the same moment may both.)
    var hasRoom: Bool { state.withLock { $0.watchers.count } < Self.watcherLimit }

    /// Adds a watcher.
    func add(_ stream: ConnectionStream, _ topics: WatchTopics) {
        state.withLock { state in
            state.watchers.append(Watcher(stream: stream, topics: topics))
            updateUnion(state)
        }
    }

    private func updateUnion(_ state: State) {
        union.store(state.watchers.reduce(0) { $0 | $1.topics.rawValue }, ordering: .relaxed)
    }

    /// Sends the lines that wait, and forgets watchers that are gone.
    func flush() {
        guard union.load(ordering: .relaxed) != 0 else { return }
        state.withLock { state in
            for index in state.watchers.indices where !state.watchers[index].lines.isEmpty {
                if state.watchers[index].stream.send(state.watchers[index].lines) {
                    state.totals.sent &+= UInt64(state.watchers[index].lines.count)
                } else {
                    continue
                }
                state.watchers[index].lines.removeAll(keepingCapacity: true)
            }
            state.watchers.removeAll { !$0.stream.isOpen }
            updateUnion(state)
        }
    }

    /// Adds a line to every watcher of `topic`. `body` follows the time and the line's number.
    private func note(_ topic: WatchTopics, _ body: String) {
        let time = Clock.realtimeNanoseconds()
        state.withLock { state in
            let number = state.nextLine
            state.nextLine += 1
            state.totals.written += 1
            let micros = String(time % 1_000_000_000 / 1000)
            let padding = String(repeating: "0", count: 6 - micros.count)
            let line = Array("ts=\(time / 1_000_000_000).\(padding)\(micros) gid=\(number) \(body)\n".utf8)
            for index in state.watchers.indices where !state.watchers[index].topics.isDisjoint(with: topic) {
                append(line, to: &state.watchers[index], &state.totals)
            }
        }
    }

    private func append(_ line: [UInt8], to watcher: inout Watcher, _ totals: inout Totals) {
        if watcher.lines.count + line.count > bufferBytes {
            watcher.skipped += 1
            totals.skipped += 1
            return
        }
        if watcher.skipped > 0 {
            watcher.lines += Array("skipped=\(watcher.skipped)\n".utf8)
            watcher.skipped = 0
        }
        watcher.lines += line
    }

    // MARK: What happens

    @inline(never)
    func noteFetch(_ key: Span<UInt8>, isHit: Bool, _ length: Int = 0, _ fd: Int32 = 0, topics: WatchTopics) {
        guard topics.contains(.fetchers) else { return }
        let status = isHit ? "found" : "not_found"
        note(
            .fetchers,
            "type=item_get key=\(PercentEncoding.encoded(key)) status=\(status) clsid=\(isHit ? 1 : 0) cfd=\(fd) "
                + "size=\(length)")
    }

    @inline(never)
    func noteStore(
        _ key: Span<UInt8>, _ result: StoreResult, _ request: StoreRequest, _ length: Int, _ fd: Int32,
        topics: WatchTopics
    ) {
        guard topics.contains(.mutations) else { return }
        let status =
            switch result.outcome {
            case .stored: "stored"
            case .notStored: "not_stored"
            case .exists: "exists"
            case .notFound: "not_found"
            case .outOfMemory: "no_memory"
            }
        let command =
            switch request.mode {
            case .set: "set"
            case .add: "add"
            case .replace: "replace"
            case .append, .appendOrCreate: "append"
            case .prepend, .prependOrCreate: "prepend"
            case .compareAndSet: "cas"
            }
        note(
            .mutations,
            "type=item_store key=\(PercentEncoding.encoded(key)) status=\(status) cmd=\(command) ttl=\(request.expiry) "
                + "clsid=1 cfd=\(fd) size=\(length)")
    }

    @inline(never)
    func noteDeletion(_ key: Span<UInt8>, isMeta: Bool, _ length: Int, topics: WatchTopics) {
        guard topics.contains(.deletions) else { return }
        note(
            .deletions,
            "type=deleted key=\(PercentEncoding.encoded(key)) cmd=\(isMeta ? "md" : "delete") clsid=1 size=\(length)"
        )
    }

    /// Tells of the engine's evictions since the last call, and whether it is to collect them.
    func noteEvictions(of engine: CacheEngine, now: UInt32) {
        let isWatched = topics.contains(.evictions)
        if engine.evictionLog.isOn != isWatched { engine.evictionLog.isOn = isWatched }
        guard isWatched else { return }
        for eviction in engine.evictionLog.take().evictions {
            let timeToLive = eviction.expiry == 0 ? -1 : Int64(eviction.expiry) - Int64(now)
            note(
                .evictions,
                "type=eviction key=\(PercentEncoding.encoded(eviction.key.span)) "
                    + "fetch=\(eviction.isFetched ? "yes" : "no") ttl=\(timeToLive) la=\(eviction.ageSeconds) "
                    + "clsid=\(eviction.queue) size=\(eviction.valueLength)"
            )
        }
    }

    /// Tells that a crawl has ended, in the words of memcached's crawler; it has no classes here.
    func noteCrawl(examined: Int, reclaimed: UInt64, seconds: UInt32) {
        guard topics.contains(.systemEvents) else { return }
        note(
            .systemEvents,
            "type=lru_crawler crawler=1 lru=all low_mark=0 next_reclaims=0 since_run=0 next_run=0 elapsed=\(seconds) "
                + "examined=\(examined) reclaimed=\(reclaimed)")
    }

    func connectionOpened(_ connection: borrowing Connection) {
        guard topics.contains(.connectionEvents) else { return }
        let peer = connection.peerHostAndPort
        note(
            .connectionEvents,
            "type=conn_new rip=\(peer.host) rport=\(peer.port) transport=\(transport(connection)) cfd=\(connection.fd)")
    }

    func connectionClosed(_ connection: borrowing Connection, _ reason: CloseReason) {
        guard topics.contains(.connectionEvents) else { return }
        let peer = connection.peerHostAndPort
        let text =
            switch reason {
            case .handler, .peer: "normal"
            case .idle: "idle_timeout"
            case .stopping: "shutdown"
            case .error, .slowReader, .inputLimit: "error"
            }
        note(
            .connectionEvents,
            "type=conn_close rip=\(peer.host) rport=\(peer.port) transport=\(transport(connection)) reason=\(text) "
                + "cfd=\(connection.fd)")
    }

    private func transport(_ connection: borrowing Connection) -> String {
        switch connection.transport {
        case .unix: "local"
        case .tcp, .tls: "tcp"
        case .udp: "udp"
        }
    }
}
