// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// Spreads keys over members by the highest hash of both.
struct SimulatedPlacement: KeyPlacement {
    let names: [String]

    func owner(of key: Span<UInt8>) -> Int {
        var (best, index) = (UInt64(0), 0)
        for (place, name) in names.enumerated() {
            let score = stableHash(key, seed: stableHash(Array(name.utf8).span))
            if score > best { (best, index) = (score, place) }
        }
        return index
    }
}

/// A node of a simulated fleet, one process of it: the real tier and the real ``OwnershipStateMachine``, on a simulated
/// store, cache and clock. What NodeServer does around them is done here in the same order.
final class FleetNode: StorageReceiver, @unchecked Sendable {
    // SAFETY (Sendable): as VirtualWorld.
    /// What a command came to.
    enum Answer {
        case done(RecordedOperation.Result)
        /// Another node has the key, or nobody is known to have it.
        case elsewhere(String?)
    }

    let name: String
    let cache: SimulatedCache
    private let world: VirtualWorld
    private let store: FleetStore
    private let session: FleetSession
    private let tier: StorageTier
    private let configuration: OwnershipConfiguration
    private var machine: OwnershipStateMachine
    /// What requests go by, which is shown after reads under way were told.
    private var view = OwnershipView()
    private var pending: [UInt64: (Answer) -> Void] = [:]
    private var tokens: UInt64 = 0
    /// Of `pending`, what the tier was given.
    private var begun: Set<UInt64> = []
    private(set) var isDead = false
    /// Cut off from the authority, and standing still, until these times.
    private var cutUntil: UInt64 = 0
    private var stillUntil: UInt64 = 0
    private var isAsking = false
    /// Told of what happens, for whoever looks into a violation.
    var note: (String) -> Void = { _ in }

    private final class Receiver: StorageReceiver, @unchecked Sendable {
        // SAFETY (Sendable): as VirtualWorld.
        weak var node: FleetNode?
        func deliver(_ answers: [StorageAnswer]) { node?.deliver(answers) }
    }

    init(
        _ name: String, _ world: VirtualWorld, _ store: FleetStore, _ session: FleetSession, _ cache: SimulatedCache,
        tier tierConfiguration: StorageTierConfiguration, ownership: OwnershipConfiguration
    ) {
        self.name = name
        self.world = world
        self.store = store
        self.session = session
        self.cache = cache
        configuration = ownership
        machine = OwnershipStateMachine(
            // All are started in each other's place: the last one has the name, which is what is hard.
            name: name, token: world.random.next() & 0xffff_ffff | 1, configuration: ownership, guards: store.guards
        ) { members in members.isEmpty ? nil : SimulatedPlacement(names: members.map(\.name)) }
        let receiver = Receiver()
        tier = StorageTier(
            backend: session, copies: cache, receivers: [receiver], pools: [StoragePoolPolicy()],
            configuration: tierConfiguration,
            clock: StorageTierClock(
                monotonicNanoseconds: { world.nanoseconds }, unixMilliseconds: { world.unixMilliseconds }))
        receiver.node = self
        session.permit = { [weak self] in
            WritePermit(
                name: name, token: self?.machine.token ?? 0, view: self?.view ?? OwnershipView(),
                isLeased: self.map { !$0.machine.isLapsed(at: world.nanoseconds) } ?? false)
        }
        session.renew = { [weak self] in self?.ask() }
        do throws(StorageStartError) { try tier.start() } catch { preconditionFailure("the simulated store fails") }
        tick()
        ask()
    }

    /// Runs `body` when the process runs: not while it stands still, and never once it is dead.
    private func run(_ body: @escaping () -> Void) {
        if isDead { return }
        guard world.microseconds >= stillUntil else { return world.at(stillUntil) { [weak self] in self?.run(body) } }
        body()
    }

    private func after(_ delay: Int, _ body: @escaping () -> Void) {
        world.after(delay) { [weak self] in self?.run(body) }
    }

    private func tick() {
        after(20_000) { [self] in
            tier.tick(monotonicNanoseconds: world.nanoseconds)
            for hash in cache.takeEvicted() { tier.noteEviction(hash: hash) }
            session.pump()
            tick()
        }
    }

    // MARK: Faults

    /// Nothing goes wrong any more.
    func heal() { session.faults = FleetSession.Faults() }

    func cut(_ microseconds: Int) {
        note("cut off for \(microseconds)")
        cutUntil = world.microseconds + UInt64(microseconds)
    }

    func stand(_ microseconds: Int) {
        note("stands still for \(microseconds)")
        stillUntil = world.microseconds + UInt64(microseconds)
    }

    /// The process is gone: nobody gets an answer any more. What it had not begun with was not done.
    func kill() {
        if isDead { return }
        note("killed")
        isDead = true
        session.close()
        let left = pending
        pending = [:]
        for token in left.keys.sorted() {
            let isBegun = begun.contains(token)
            left[token]?(.done(isBegun ? .unknown : .read(.failed(StorageFailure(.notSent, "the node is gone")))))
        }
    }

    // MARK: The lease

    func want(_ members: [RingMember]) {
        machine.want(members)
        ask()
    }

    /// One exchange with the authority, and the next ones.
    private func ask() {
        guard !isAsking, !isDead else { return }
        isAsking = true
        let (request, sent) = (machine.request, world.nanoseconds)
        let slow = world.random.chance(50) ? Int(configuration.leaseNanoseconds / 1000) : 0
        let (there, back) = (world.random.below(2_000 + slow), world.random.below(2_000 + slow))
        if world.microseconds < cutUntil {
            world.noteFault("exchange lost")
            return next(after: Int(configuration.renewNanoseconds / 1000))
        }
        world.after(there) { [self] in
            let reply = store.exchange(request)
            after(back) { [self] in
                if world.microseconds < cutUntil {
                    world.noteFault("exchange lost")
                } else {
                    take(reply, sent)
                }
                next(after: Int(machine.pauseNanoseconds / 1000))
            }
        }
    }

    private func next(after pause: Int) {
        after(pause) { [self] in
            isAsking = false
            ask()
        }
    }

    private func take(_ reply: LeaseReply, _ sent: UInt64) {
        let change = machine.replied(reply, at: world.nanoseconds)
        if change.sweeps, store.guards.contains(.fills) { tier.noteFlush() }
        if change.view { view = machine.view }
        machine.extendLease(sentAt: sent)
        session.pump()
        if change.view {
            let names = view.members.map(\.name)
            note("epoch \(view.epoch), closing \(view.isClosing), doubtful \(view.isDoubtful), \(names)")
        }
        if change.gap { world.noteFault("rings missed") }
        guard change.sweeps else { return }
        let seen = view
        // Soon, where the other node may have writes answered yet: what is read between is what is dangerous.
        after(world.random.below(store.isFenced ? 150_000 : 15_000)) { [self] in
            for (key, hash) in cache.held where seen.isStray(key.span) { cache.drop(key: key, hash: hash) }
            machine.swept(by: seen)
            view = machine.view
        }
    }

    // MARK: Commands

    /// Executes a command; `done` may be called before this returns.
    func execute(_ action: RecordedOperation.Action, _ key: [UInt8], _ done: @escaping (Answer) -> Void) {
        tokens += 1
        let token = tokens
        pending[token] = done
        run { [self] in
            let hash = stableHash(key.span, seed: 1)
            if store.guards.contains(.owners) {
                switch view.verdict(of: key.span) {
                case .own: break
                case .foreign(let place): return finish(token, .elsewhere(view.members[place].name))
                case .unknown: return finish(token, .elsewhere(nil))
                }
            }
            if machine.isLapsed(at: world.nanoseconds) || !view.isClean(key.span) {
                tier.noteInvalidation(key: key, hash: hash)
            }
            // A turn goes by what held when it began, however long it takes.
            if world.random.chance(30) {
                world.noteFault("slow turn")
                after(world.random.below(300_000)) { [self] in perform(action, key, hash, token) }
            } else {
                perform(action, key, hash, token)
            }
        }
    }

    private func perform(_ action: RecordedOperation.Action, _ key: [UInt8], _ hash: UInt64, _ token: UInt64) {
        let waiter = StorageWaiter(receiver: 0, token: token)
        begun.insert(token)
        switch action {
        case .read:
            if let copy = cache.get(key) { return finish(token, .done(.read(copy))) }
            tier.read(key: key, hash: hash, pool: 0, for: waiter)
        case .write(let write): tier.write(write, hash: hash, for: waiter)
        }
    }

    private func finish(_ token: UInt64, _ answer: Answer) {
        begun.remove(token)
        pending.removeValue(forKey: token)?(answer)
    }

    func deliver(_ answers: [StorageAnswer]) {
        for answer in answers {
            switch answer {
            case .read(let token, let outcome): run { [self] in finish(token, .done(.read(outcome))) }
            case .write(let token, .failed(let failure)) where failure.kind == .notOwner:
                let address = failure.reason.split(separator: " ").last
                let owner = view.members.first { address.map(String.init) == $0.address }?.name
                run { [self] in finish(token, .elsewhere(owner)) }
            case .write(let token, let outcome): run { [self] in finish(token, .done(.write(outcome))) }
            }
        }
    }
}
