// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// A cache node in virtual time: what NodeServer does with the tier, a cache and answers. One life: after a crash there
/// is a new one.
final class SimulatedNode: StorageReceiver, @unchecked Sendable {
    // SAFETY (Sendable): as VirtualWorld.
    let cache: SimulatedCache
    let tier: StorageTier
    private let world: VirtualWorld
    private var pending: [UInt64: (RecordedOperation.Result) -> Void] = [:]
    private var tokens: UInt64 = 0
    private var isDead = false

    private final class Receiver: StorageReceiver, @unchecked Sendable {
        // SAFETY (Sendable): as VirtualWorld.
        weak var node: SimulatedNode?
        func deliver(_ answers: [StorageAnswer]) { node?.deliver(answers) }
    }

    init(
        _ world: VirtualWorld, store: SimulatedStore, cache: SimulatedCache, configuration: StorageTierConfiguration,
        policy: StoragePoolPolicy, guards: WriteThroughGuards
    ) {
        self.world = world
        self.cache = cache
        let receiver = Receiver()
        tier = StorageTier(
            backend: store, copies: cache, receivers: [receiver], pools: [policy], configuration: configuration,
            guards: guards,
            clock: StorageTierClock(
                monotonicNanoseconds: { world.nanoseconds }, unixMilliseconds: { world.unixMilliseconds }))
        receiver.node = self
        tick()
    }

    private func tick() {
        world.after(20_000) { [weak self] in
            guard let self, !isDead else { return }
            tier.tick(monotonicNanoseconds: world.nanoseconds)
            tellEvictions()
            tick()
        }
    }

    /// Executes a command; `done` may be called before this returns. A connection with unanswered commands on the key
    /// does not take a copy while writes are in flight: the copy is older than those.
    func execute(
        _ action: RecordedOperation.Action, _ key: [UInt8], hasUnanswered: Bool,
        _ done: @escaping (RecordedOperation.Result) -> Void
    ) {
        let hash = stableHash(key.span, seed: 1)
        if case .read = action, !(hasUnanswered && tier.isBusy(hash, key.span)), let copy = cache.get(key) {
            return done(.read(copy))
        }
        tokens += 1
        pending[tokens] = done
        let waiter = StorageWaiter(receiver: 0, token: tokens)
        switch action {
        case .read: tier.read(key: key, hash: hash, pool: 0, for: waiter)
        case .write(let write): tier.write(write, hash: hash, for: waiter)
        }
    }

    func deliver(_ answers: [StorageAnswer]) {
        if isDead { return }
        tellEvictions()
        for answer in answers {
            switch answer {
            case .read(let token, let outcome): pending.removeValue(forKey: token)?(.read(outcome))
            case .write(let token, let outcome): pending.removeValue(forKey: token)?(.write(outcome))
            }
        }
    }

    func tellEvictions() {
        for hash in cache.takeEvicted() { tier.noteEviction(hash: hash) }
    }

    /// flush_all; and every key of the node has another owner from now on, or is this node's again.
    func flush() {
        tier.noteFlush()
        cache.removeAll()
    }

    /// The clock that rows expire by was set.
    func forgetTimedCopies() {
        tier.noteFlush()
        cache.removeTimed()
        tier.noteFlush()
    }

    /// A key is about to be changed elsewhere, or was.
    func invalidate(_ key: [UInt8]) { tier.noteInvalidation(key: key, hash: stableHash(key.span, seed: 1)) }

    /// The process is gone; nobody gets an answer any more.
    func kill() {
        isDead = true
        pending = [:]
    }
}
