// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// The store of a node whose region may become home, or stop being it: the region's own database while it is, the
/// home region otherwise. One at a time takes reads and writes; between two of them everything is refused, with nothing
/// done.
///
/// Order: ``choose(_:)``, `start`, ``choose(_:)`` again whenever another region is home, `stop`.
package final class SwitchedBackend: StorageBackend, FollowedStore, CertifiedStore, HomedStore {
    /// Where rows are.
    package enum Choice: Sendable, Equatable {
        /// In the region's own database.
        case own
        /// In the home region of this name.
        case home(String)
    }

    /// The region's own database; nil where it has none.
    package let homeDatabase: (any HomeDatabase)?
    private let make: @Sendable (Choice) -> (any StorageBackend)?
    private let state: Guarded<State>

    private struct State {
        var choice: Choice
        var current: (any StorageBackend)?
        var sink: (any StorageSink)?
        var isStopped = false
        /// Calls that are handing something to the store: it is not stopped before they have.
        var handing = 0
        /// Why there is none.
        var reason = "the store is not open yet"
    }

    /// A store that begins as `choice` unless it is told otherwise before its start. `make` gives what a choice needs;
    /// nil where it cannot be.
    package init(
        database: (any HomeDatabase)?, _ choice: Choice,
        make: @escaping @Sendable (Choice) -> (any StorageBackend)?
    ) {
        homeDatabase = database
        self.make = make
        state = Guarded(State(choice: choice))
    }

    /// Where rows are now; nil between two of them.
    package var current: (any StorageBackend)? { state.withLock { $0.current } }

    /// What was chosen last, and whether it is open.
    package var chosen: (choice: Choice, isOpen: Bool) { state.withLock { ($0.choice, $0.current != nil) } }

    /// Opens the store that was chosen.
    package func start(_ sink: any StorageSink) throws(StorageStartError) {
        let choice = state.withLock { state in
            state.sink = sink
            return state.choice
        }
        try open(choice, sink, isFirst: true)
    }

    /// Goes over to another store. Before the start it only says which one is opened then. Blocks: for what the store
    /// before has under way, and while the next one is opened. When that fails, everything is refused until it is
    /// chosen again.
    package func choose(_ choice: Choice) throws(StorageStartError) {
        let (sink, old) = state.withLock { state -> ((any StorageSink)?, (any StorageBackend)?) in
            if state.choice == choice, state.current != nil || state.sink == nil { return (nil, nil) }
            state.choice = choice
            state.reason = "the home region is changing"
            defer { state.current = nil }
            return (state.isStopped ? nil : state.sink, state.current)
        }
        guard let sink else { return }
        if let old {
            awaitHanding()
            old.stop()
            // What it left open cannot change any more what is read from now on: that is another store.
            sink.unknownOutcomesSettled()
        }
        try open(choice, sink, isFirst: false)
    }

    private func open(_ choice: Choice, _ sink: any StorageSink, isFirst: Bool) throws(StorageStartError) {
        do throws(StorageStartError) {
            guard let backend = make(choice) else {
                throw StorageStartError("this region is not home any more, and cannot reach the one that is")
            }
            try backend.start(sink)
            // The tier asks once; later, what may still be written has to be over first.
            if !isFirst, backend.mayHaveEarlierWrites {
                backend.stop()
                throw StorageStartError("sessions of this node's earlier process are still there")
            }
            let isStopped = state.withLock { state in
                if !state.isStopped { state.current = backend }
                return state.isStopped
            }
            if isStopped { backend.stop() }
        } catch {
            state.withLock { $0.reason = error.description }
            throw error
        }
    }

    /// As the store says that was opened first.
    package var mayHaveEarlierWrites: Bool { current?.mayHaveEarlierWrites ?? false }

    /// Runs `body` with the store, if there is one, which is not stopped meanwhile; else with nil, and why.
    private func hand(_ body: ((any StorageBackend)?, (any StorageSink)?, String) -> Void) {
        let (current, sink, reason) = state.withLock { state in
            if state.current != nil { state.handing += 1 }
            return (state.current, state.sink, state.reason)
        }
        body(current, sink, reason)
        if current != nil { state.withLock { $0.handing -= 1 } }
    }

    /// Waits until nobody hands anything to a store that is not there any more.
    private func awaitHanding() {
        while state.withLock({ $0.handing > 0 }) { Thread.sleep(microseconds: 100) }
    }

    /// Reads where the store is.
    package func read(_ reads: [StorageRead]) {
        hand { current, sink, reason in
            if let current { return current.read(reads) }
            sink?.readsCompleted(reads.map { ($0.token, .failed(StorageFailure(.notSent, reason))) })
        }
    }

    /// Writes there.
    package func write(_ writes: [SubmittedWrite]) {
        hand { current, sink, reason in
            if let current { return current.write(writes) }
            sink?.writesCompleted(writes.map { ($0.token, .failed(StorageFailure(.notSent, reason))) })
        }
    }

    /// The store's; unavailable between two of them.
    package var health: StorageHealth {
        let (current, reason) = state.withLock { ($0.current, $0.reason) }
        return current?.health ?? .unavailable(reason)
    }

    /// The store's.
    package func statistics() -> [StorageStatistic] { current?.statistics() ?? [] }

    /// The store's.
    package var notice: String? { current?.notice }

    /// Lists rows of the store. Blocks.
    package func scan(
        prefix: [UInt8], after key: [UInt8], _ bounds: ScanBounds
    ) throws(StorageFailure) -> ScanPage {
        let (current, reason) = state.withLock { ($0.current, $0.reason) }
        guard let current else { throw StorageFailure(.notSent, reason) }
        return try current.scan(prefix: prefix, after: key, bounds)
    }

    /// Ends the store. Blocks.
    package func stop() {
        let old = state.withLock { state in
            state.isStopped = true
            state.reason = "the store is stopped"
            defer { state.current = nil }
            return state.current
        }
        awaitHanding()
        old?.stop()
    }

    /// The store's.
    package var identity: String? { current?.identity }

    /// The store's stream; nil while the home region is the store.
    package var changes: (any ChangeSource)? { (current as? any FollowedStore)?.changes }

    /// Reads the certificates' files again, where the store has some.
    package func reloadCertificates() -> String? { (current as? any CertifiedStore)?.reloadCertificates() }
}
