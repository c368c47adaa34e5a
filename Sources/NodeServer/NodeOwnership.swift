// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Memory
internal import Platform
internal import Storage
internal import Synchronization
internal import Telemetry

/// Which keys a node of a fleet with one store may serve: keeps its lease, takes over rings, and removes copies of keys
/// that went to others. Safe to use from any thread.
final class NodeOwnership: WriteFence {
    private let authority: any LeaseAuthority
    private let machine: Guarded<OwnershipStateMachine>
    private let current = Guarded(OwnershipView())
    /// Counts the views.
    private let generation = Atomic<UInt64>(0)
    private let leaseUntil = Atomic<UInt64>(0)
    /// Where the thread that asks the authority sleeps, where those do that wait for another view, and where the thread
    /// does that looks copies through.
    private let parking = Parking()
    private let renewed = Parking()
    private let sweeping = Parking()
    private let isStopping = Atomic<Bool>(false)
    private let wantsExchange = Atomic<Bool>(false)
    /// The last view whose strays are all removed.
    private let swept = Guarded<OwnershipView?>(nil)
    private let threads = Guarded<[Thread]>([])
    private let work = Guarded(Work())
    /// What happened.
    let counts = SharedCounterSet<OwnershipCounter>()
    /// Tells settings that all nodes must have alike.
    private let fingerprint: UInt64
    /// Whether the store commits nothing under an old epoch.
    private let isFenced: Bool
    /// Whether requests for keys of others are passed on.
    let forwards: Bool
    /// Why the process ends that another one, which lives, has the name of; nil while it does not.
    private let refused = Guarded<String?>(nil)
    /// Where members are, looked up when a ring comes.
    private let addresses = Guarded<[String: SocketAddress]>([:])

    /// What the threads work on, once the node is made.
    private struct Work {
        var storage: NodeStorage?
        var engine: CacheEngine?
        var clock: NodeClock?
        var log: Log?
    }

    init(_ settings: OwnershipSettings, own: RingMember, store: any SharedStore) {
        authority = store.authority
        isFenced = store.refusesOldEpochs
        forwards = settings.forwards
        fingerprint = settings.fingerprint
        var configuration = settings.configuration
        configuration.isFenced = isFenced
        let machine = OwnershipStateMachine(
            // The lower half tells processes from each other, the upper one where they listen, once that is known.
            name: own.name, token: UInt64(UInt32.random(in: 1...UInt32.max)), configuration: configuration
        ) { settings.place($0) }
        self.machine = Guarded(machine)
    }

    // MARK: The way of a request

    /// What a turn of a reactor goes by.
    struct Turn {
        fileprivate(set) var view = OwnershipView()
        fileprivate var generation = UInt64.max
        /// Whether no copy may be shown.
        fileprivate(set) var isLapsed = true
        /// Whether copies have to be looked at one by one.
        var withholds: Bool { isLapsed || view.isDoubtful }
    }

    /// Takes in what holds now. A load and a reading of the clock, unless the view changed.
    ///
    /// A turn answers what its connection had sent when it began: what was as new as storage then may be shown,
    /// however long the turn takes.
    @inline(__always)
    func begin(_ turn: inout Turn) {
        // The lease first: who sees one sees the rings that it was given under. The other way round, a reactor that
        // pauses between the two would go by an old ring under a new lease.
        turn.isLapsed = Clock.bootNanoseconds() >= leaseUntil.load(ordering: .acquiring)
        if turn.generation != generation.load(ordering: .acquiring) { takeView(&turn) }
    }

    @inline(never)
    private func takeView(_ turn: inout Turn) {
        turn.generation = generation.load(ordering: .acquiring)
        turn.view = current.withLock { $0 }
    }

    // MARK: The way of a write

    var permit: WritePermit {
        let (name, token) = machine.withLock { ($0.name, $0.token) }
        // The lease first, as in a turn.
        let isLeased = self.isLeased
        return WritePermit(name: name, token: token, view: current.withLock { $0 }, isLeased: isLeased)
    }

    func renew(after epoch: UInt64, timeoutNanoseconds: UInt64) {
        let end = Clock.monotonicNanoseconds() + timeoutNanoseconds
        wantsExchange.store(true, ordering: .releasing)
        parking.announce()
        while true {
            let ticket = renewed.ticket
            if current.withLock({ $0.epoch }) != epoch || isStopping.load(ordering: .acquiring) { return }
            let now = Clock.monotonicNanoseconds()
            guard now < end else { return }
            renewed.wait(ticket, timeoutNanoseconds: end - now)
        }
    }

    // MARK: Life

    /// Takes a ring that membership wants.
    func want(_ members: [RingMember]) {
        machine.withLock { $0.want(members) }
        parking.announce()
    }

    /// What is known now, for those who look.
    var view: OwnershipView { current.withLock { $0 } }
    /// Where a member of the ring is, by its `host:port`; nil where that is not known.
    func address(of owner: String) -> SocketAddress? { addresses.withLock { $0[owner] } }

    /// Blocks on DNS.
    private func lookUp(_ members: [RingMember]) {
        guard forwards else { return }
        let known = addresses.withLock { $0 }
        var found: [String: SocketAddress] = [:]
        for member in members {
            let port = UInt16(clamping: member.port)
            let fresh = try? ListeningSocket.resolve(host: member.host, port: port, isDatagram: false).first
            found[member.address] = fresh ?? known[member.address]
        }
        addresses.withLock { $0 = found }
    }

    /// Whether copies may be shown.
    var isLeased: Bool { Clock.bootNanoseconds() < leaseUntil.load(ordering: .acquiring) }

    /// Starts to ask the authority, once the store was started. `listener` is what the node listens on that no other
    /// process can, before it has ended; nil where there is nothing.
    func start(
        _ storage: NodeStorage, _ engine: CacheEngine, _ clock: NodeClock, listener: String?, log: Log?
    ) throws(SystemError) {
        let place = listener.flatMap(Self.place) ?? UInt32.random(in: 0...UInt32.max)
        machine.withLock { $0.listens(atPlace: place) }
        work.withLock { $0 = Work(storage: storage, engine: engine, clock: clock, log: log) }
        let asking = try Thread(name: "martlet-lease") { [self] in ask() }
        threads.withLock { $0 = [asking] }
        let sweeper = try Thread(name: "martlet-strays") { [self] in sweep() }
        threads.withLock { $0.append(sweeper) }
    }

    /// A number for a listener of this boot of this machine, in this namespace of its network: a process that finds it
    /// used before was started in the place of the one that used it. nil where the system does not say.
    private static func place(of listener: String) -> UInt32? {
        guard let boot = try? readFile("/proc/sys/kernel/random/boot_id", limitBytes: 4096), !boot.isEmpty,
            let network = fileStamp("/proc/self/ns/net")
        else { return nil }
        let text = boot + Array(" \(network[2]) \(listener)".utf8)
        return UInt32(truncatingIfNeeded: stableHash(text.span))
    }

    /// Why the process ends; nil where it does so for other reasons.
    var refusal: String? { refused.withLock { $0 } }

    /// Shows no copies any more, and has the store give the name back when it stops. Blocks.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        for place in [parking, renewed, sweeping] { place.announce() }
        let all = threads.exchange([])
        for thread in all { thread.join() }
        guard !all.isEmpty else { return }
        leaseUntil.store(0, ordering: .releasing)
        let (name, token) = machine.withLock { ($0.name, $0.token) }
        authority.releaseAtEnd(name: name, token: token)
    }

    private func ask() {
        let (tier, log) = work.withLock { ($0.storage?.tier, $0.log) }
        var failure: String?
        while !isStopping.load(ordering: .acquiring) {
            let ticket = parking.ticket
            wantsExchange.store(false, ordering: .releasing)
            noteSwept()
            var request = machine.withLock { $0.request }
            request.settings = fingerprint
            let sent = Clock.bootNanoseconds()
            counts.add(.exchanges)
            do throws(StorageFailure) {
                let reply = try authority.exchange(request)
                take(reply, sentAt: sent, tier, log)
                if failure != nil { log?.info("the lease can be renewed again") }
                failure = nil
            } catch {
                counts.add(.failures)
                if failure == nil { log?.warning("the lease cannot be renewed", ["reason": .text(error.reason)]) }
                failure = error.reason
            }
            let pause = machine.withLock { $0.pauseNanoseconds }
            if wantsExchange.load(ordering: .acquiring), failure == nil { continue }
            parking.wait(ticket, timeoutNanoseconds: pause)
        }
    }

    /// Shows everybody what a reply says, and only then counts the lease.
    private func take(_ reply: LeaseReply, sentAt sent: UInt64, _ tier: StorageTier?, _ log: Log?) {
        let now = Clock.bootNanoseconds()
        let (change, isSuperseded, wasRefused) = machine.withLock { machine in
            let wasRefused = machine.refusedSince != nil
            return (machine.replied(reply, at: now), machine.isSuperseded, wasRefused)
        }
        noteRefusal(reply, at: now, isFirst: !wasRefused, log)
        // What was read before the change may be as old as that: neither is it cached, nor does anybody join it who
        // comes behind the change.
        if change.sweeps { tier?.noteFlush() }
        if change.view { show() }
        let until = machine.withLock { machine in
            machine.extendLease(sentAt: sent)
            return machine.leaseUntil
        }
        leaseUntil.store(until, ordering: .releasing)
        if change.sweeps { sweeping.announce() }
        guard change.ring else { return }
        let view = self.view
        lookUp(view.members)
        if isSuperseded {
            log?.error(
                "another process has this node's name: nothing is served until that one falls silent",
                ["setting": "register.name"])
        } else {
            log?.info(
                "the ring changed",
                [
                    "epoch": .of(view.epoch), "members": .of(view.members.count),
                    "is_member": .of(view.isMember ? 1 : 0), "missed": .of(change.gap ? 1 : 0),
                ])
        }
        // Others wait until this node says that it answers by the new ring.
        wantsExchange.store(true, ordering: .releasing)
    }

    /// A process that never had its name, because another one has it: waits until that one's lease is over, and ends
    /// when it is certain that it lives.
    private func noteRefusal(_ reply: LeaseReply, at now: UInt64, isFirst: Bool, _ log: Log?) {
        let (name, isRefused, isOver) = machine.withLock { machine in
            (machine.name, machine.refusedSince != nil, machine.isRefused(at: now))
        }
        guard isRefused, refusal == nil else { return }
        let age = reply.nodes.first { $0.name == name }?.ageMilliseconds ?? 0
        if isFirst {
            log?.warning(
                "another process has this node's name: it is waited for until its lease is over",
                ["name": .text(name), "said_ms_ago": .count(Int(age)), "setting": "register.name"])
        }
        guard isOver else { return }
        let reason =
            "another process that lives has the name \(name) in the ring (it renewed its lease \(age) ms ago); "
            + "each node needs a register.name of its own"
        refused.withLock { $0 = reason }
        log?.error("this node's name is taken", ["reason": .text(reason)])
        ProcessControl.signalSelf(.interrupt)
    }

    /// Shows everybody what the machine knows. Of the asking thread only: nobody may see a ring before reads under way
    /// were told of it.
    private func show() {
        let view = machine.withLock { $0.view }
        current.withLock { $0 = view }
        generation.add(1, ordering: .releasing)
        renewed.announce()
    }

    private func noteSwept() {
        let done = swept.exchange(nil)
        guard let done else { return }
        let wasDoubtful = machine.withLock { machine in
            let wasDoubtful = machine.view.isDoubtful
            machine.swept(by: done)
            return wasDoubtful
        }
        if wasDoubtful { show() }
    }

    // MARK: Copies of keys that went to others

    private func sweep() {
        let (storage, engine, clock) = work.withLock { ($0.storage, $0.engine, $0.clock) }
        guard let storage, let engine, let clock else { return }
        var done = OwnershipView()
        while !isStopping.load(ordering: .acquiring) {
            let ticket = sweeping.ticket
            let view = current.withLock { $0 }
            let isOpened = !isFenced && done.isClosing && !view.isClosing
            guard !view.hasSameRing(as: done) || isOpened else {
                sweeping.wait(ticket, timeoutNanoseconds: 1_000_000_000)
                continue
            }
            for shard in 0..<engine.shardCount {
                if isStopping.load(ordering: .acquiring) { return }
                remove(view, storage, engine, clock, shard: shard)
            }
            done = view
            swept.withLock { $0 = view }
            parking.announce()
        }
    }

    /// Removes what a shard has of others' keys, a bucket under each hold of the lock. Items that move while it is at
    /// it move to buckets that are still to come.
    private func remove(
        _ view: OwnershipView, _ storage: NodeStorage, _ engine: CacheEngine, _ clock: NodeClock, shard: Int
    ) {
        var bucket = 0
        var keys: [[UInt8]] = []
        let now = clock.now()
        while true {
            keys.removeAll(keepingCapacity: true)
            let isThere = engine.forEachItem(shard: shard, bucket: bucket) { item in
                let key = item.bytes.slice(item.keyOffset, item.keyLength).withSpan { [UInt8](copying: $0) }
                if view.isStray(key.span), storage.pools.pool(of: key.span) != nil { keys.append(key) }
            }
            guard isThere else { return }
            for key in keys {
                let hash = stableHash(key.span, seed: engine.hashSeed)
                let span = key.span
                engine.withShard(hash) { shard in
                    if let item = shard.find(hash, span, now: now) { shard.remove(item, hash) }
                }
            }
            counts.add(.swept, UInt64(keys.count))
            bucket += 1
        }
    }
}
