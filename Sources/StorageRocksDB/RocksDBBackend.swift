// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
package import Storage

/// The embedded store: RocksDB in this process.
///
/// One thread commits, a few read; each is told by the queues. A write is answered after it and its record in the
/// outbox are committed together, and synced as the configuration says. See docs/decisions/0008-write-ahead-log.md for
/// what survives what.
package final class RocksDBBackend: StorageBackend, FollowedStore {
    let configuration: RocksDBConfiguration
    let core: BackendCore
    private let running = Guarded<Running?>(nil)
    /// See ``contentMark``.
    private let content = Guarded<String?>(nil)
    private let name = Guarded<String?>(nil)
    /// Calls that are using the database outside of its threads.
    let guests = Guests()

    /// What runs between start and stop.
    private struct Running {
        var database: RocksDatabase
        var state: StoreState
        var committer: Thread
        var readers: [Thread]
        var door: Thread
    }

    /// The store that `configuration` describes; nothing is opened before ``start(_:)``.
    package init(_ configuration: RocksDBConfiguration) {
        self.configuration = configuration
        core = BackendCore(configuration)
    }

    deinit { stop() }

    /// Opens the store and starts its threads. Once.
    package func start(_ sink: any StorageSink) throws(StorageStartError) {
        precondition(running.withLock { $0 == nil }, "a store is started once")
        let (database, state) = try open()
        let mark = Self.mark(database, state)
        content.withLock { $0 = mark }
        name.withLock { $0 = "\(state.identity)-\(state.epoch)" }
        core.setSink(sink)
        let core = self.core
        core.changes?.open(guests, state) { [weak core] in core?.noteFailedRead($0, $1) }
        do throws(SystemError) {
            let committer = try Thread(name: "store-commit") {
                var committer = Committer(core: core, database: database, state: state)
                committer.run()
            }
            var readers: [Thread] = []
            for index in 0..<configuration.readerThreads {
                readers.append(
                    try Thread(name: "store-read-\(index)") {
                        var reader = ReaderLoop(core: core, database: database, index: index)
                        reader.run()
                    })
            }
            let door = try Thread(name: "store-door") { core.door.run(core) }
            let all = Running(database: database, state: state, committer: committer, readers: readers, door: door)
            running.withLock { $0 = all }
        } catch {
            core.writes.close()
            core.reads.close()
            throw StorageStartError("storage: a thread cannot be started: \(error)")
        }
        guests.open(database)
        core.health = .ready
        core.check(database)
    }

    /// Looks rows up. What finds no room among ``RocksDBConfiguration/waitingReadLimit`` is answered `notSent`.
    package func read(_ reads: [StorageRead]) {
        if reads.isEmpty { return }
        let now = Clock.monotonicNanoseconds()
        let rest = core.reads.offer(reads.map { Waiting(element: $0, sinceNanoseconds: now) })
        if rest.isEmpty { return }
        if core.reads.isClosed {
            core.sink?.readsCompleted(rest.map { ($0.element.token, .failed(RocksDBBackend.stopped)) })
        } else {
            core.refuse(reads: rest.map(\.element.token))
        }
    }

    /// Commits changes. What finds no room among ``RocksDBConfiguration/waitingWriteLimit`` is answered `notSent`.
    package func write(_ writes: [SubmittedWrite]) {
        if writes.isEmpty { return }
        let now = Clock.monotonicNanoseconds()
        let rest = core.writes.offer(writes.map { Waiting(element: $0, sinceNanoseconds: now) })
        if rest.isEmpty { return }
        if core.writes.isClosed {
            core.sink?.writesCompleted(rest.map { ($0.element.token, .failed(RocksDBBackend.stopped)) })
        } else {
            core.refuse(writes: rest.map(\.element.token))
        }
    }

    /// The outbox, for those who follow it.
    package var changes: (any ChangeSource)? { core.changes }

    static let stopped = StorageFailure(.notSent, "the store is stopped")

    /// Whether the store can be used. A failed commit or a failed write of a file makes it read-only until the next
    /// start; a disk that does not answer, until it does.
    package var health: StorageHealth { core.healthNow }

    /// Answers what was submitted, syncs and closes. What comes later is answered `notSent` at once, by the call
    /// itself. May be called more than once. Blocks.
    package func stop() {
        let all = running.exchange(nil)
        guard let all else { return }
        core.writes.close()
        all.committer.join()
        core.reads.close()
        for reader in all.readers { reader.join() }
        core.door.end()
        all.door.join()
        core.door.answerRefused(core.sink)
        guests.close()
        let isWhole = core.health == .ready
        core.health = .unavailable("the store is stopped")
        let mark = Self.mark(all.database, all.state)
        content.withLock { $0 = nil }
        if isWhole, (try? all.database.syncLog()) != nil {
            content.withLock { $0 = mark }
            all.database.close()
            let marker = StoreMarker(durability: configuration.durability, state: .closed)
            try? marker.write(configuration.path)
        } else {
            all.database.close()
        }
    }
}

extension RocksDBBackend {
    /// The store's name, its epoch, which a restored backup or a cut log changes, and its last write.
    private static func mark(_ database: RocksDatabase, _ state: StoreState) -> String {
        "\(state.identity) \(state.epoch) \(database.lastSequence)"
    }

    /// As of the start, or of a clean stop. Nobody else can write to the store's directory meanwhile without changing
    /// it.
    package var contentMark: String? { content.withLock { $0 } }

    /// With its epoch, which a restored backup and a cut log change.
    package var identity: String? { name.withLock { $0 } }
}

/// Calls from outside of the backend's threads that use the database: it is closed after the last one returned.
final class Guests: Sendable {
    private let state = Guarded<(database: RocksDatabase?, count: Int)>((nil, 0))
    private let parking = Parking()

    /// Lets calls in.
    func open(_ database: RocksDatabase) { state.withLock { $0.database = database } }

    /// Runs `body` with the database, unless it is closed.
    func use<R>(_ body: (RocksDatabase) throws(StorageFailure) -> R) throws(StorageFailure) -> R {
        let database = state.withLock { state -> RocksDatabase? in
            if state.database != nil { state.count += 1 }
            return state.database
        }
        guard let database else { throw RocksDBBackend.stopped }
        defer {
            state.withLock { $0.count -= 1 }
            parking.announce()
        }
        return try body(database)
    }

    /// Lets nobody in any more, and waits until all are out. Rewrites of files that they began are given up.
    func close() {
        let database = state.withLock { state in
            defer { state.database = nil }
            return state.database
        }
        database?.endCompactions()
        while true {
            let ticket = parking.ticket
            if state.withLock({ $0.count }) == 0 { return }
            parking.wait(ticket, timeoutNanoseconds: BackendCore.checkNanoseconds)
        }
    }
}
