// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// The store and the authority of a simulated fleet: rows, rings and names, each exchange and each commit at one
/// moment, which is the order that a database's lock gives them.
final class FleetStore {
    private struct Entry {
        var row: StoredRow?
        var version: UInt64
    }

    private struct Lease {
        var token: UInt64
        var adopted: UInt64
        var seenMilliseconds: Int64
    }

    let world: VirtualWorld
    let guards: OwnershipGuards
    private var entries: [[UInt8]: Entry] = [:]
    private var clock = HybridLogicalClock(persistedMark: 0)
    private var rings: [(epoch: UInt64, members: [RingMember])] = []
    private var leases: [String: Lease] = [:]
    /// Changes of the ring.
    private(set) var changes = 0

    init(_ world: VirtualWorld, _ guards: OwnershipGuards) {
        self.world = world
        self.guards = guards
    }

    /// The members of the newest ring.
    var members: [RingMember] { rings.last?.members ?? [] }
    private var newest: UInt64 { rings.last?.epoch ?? 0 }

    // MARK: The authority

    func exchange(_ request: LeaseRequest) -> LeaseReply {
        let now = world.unixMilliseconds
        var hadPredecessor = false
        if request.joins {
            let known = leases[request.name]?.token ?? 0
            hadPredecessor = known != 0 && known != request.token
            leases[request.name] = Lease(token: request.token, adopted: 0, seenMilliseconds: now)
        }
        if let members = request.proposal, request.adopted == newest {
            rings.append((newest + 1, members))
            if rings.count > 24 { rings.removeFirst() }
            changes += 1
        }
        let isHolder = leases[request.name]?.token == request.token
        if isHolder {
            // Without the guard a node counts as having heard before it has.
            let adopted = guards.contains(.adoption) ? request.adopted : newest
            leases[request.name] = Lease(token: request.token, adopted: adopted, seenMilliseconds: now)
        }
        let first = rings.contains { $0.epoch == request.adopted } ? request.adopted : 0
        return LeaseReply(
            isHolder: isHolder, hadPredecessor: hadPredecessor, rings: rings.filter { $0.epoch >= first },
            nodes: leases.keys.sorted().compactMap { name in
                leases[name].map { (name, $0.adopted, now - $0.seenMilliseconds) }
            })
    }

    func release(_ name: String, _ token: UInt64) {
        if leases[name]?.token == token { leases[name] = Lease(token: 0, adopted: .max, seenMilliseconds: 0) }
    }

    // MARK: Rows

    func read(_ key: [UInt8]) -> ReadOutcome { live(key).map { .found($0) } ?? .absent }

    private func live(_ key: [UInt8]) -> StoredRow? {
        guard let row = entries[key]?.row, row.isLive(at: world.unixMilliseconds) else { return nil }
        return row
    }

    /// Commits writes as one transaction; nil when the permit is not good any more, and none was done. What changes
    /// nothing needs no permit.
    func commit(_ writes: [StorageWrite], _ permit: WritePermit) -> [WriteOutcome]? {
        let isGood = permit.epoch == newest && leases[permit.name]?.token == permit.token
        if !isGood, guards.contains(.fences) {
            var refusals: [WriteOutcome] = []
            for write in writes {
                guard case .refuse(let outcome) = WriteEvaluation.decide(write, live: live(write.key)) else {
                    return nil
                }
                refusals.append(outcome)
            }
            return refusals
        }
        return writes.map { commit($0) }
    }

    private func commit(_ write: StorageWrite) -> WriteOutcome {
        let stored = entries[write.key]
        let decision = WriteEvaluation.decide(write, live: live(write.key))
        if case .refuse(let outcome) = decision { return outcome }
        let version = clock.next(after: stored?.version ?? 0, unixMilliseconds: world.unixMilliseconds)
        if let mark = clock.mustPersistBefore(version) { clock.notePersisted(mark) }
        guard case .put(var row) = decision else {
            entries[write.key] = Entry(row: nil, version: version)
            return .deleted(version: version)
        }
        row.version = version
        entries[write.key] = Entry(row: row, version: version)
        return .stored(row)
    }
}

/// One node's way to the fleet's store: one writer, whose transactions follow each other, and reads beside it.
final class FleetSession: StorageBackend, @unchecked Sendable {
    // SAFETY (Sendable): as VirtualWorld.
    /// How often what goes wrong, in a thousand; times in microseconds.
    struct Faults {
        var unknown = 0
        var slow = 0
        var readError = 0
        var delayMax = 1500
        var slowMax = 120_000
        /// Of reads, which may take longer than two rings last.
        var slowReadMax = 500_000
    }

    private let world: VirtualWorld
    private let store: FleetStore
    var faults: Faults
    /// What the node may write now, and how it hears that the permit is old.
    var permit: () -> WritePermit = { WritePermit(name: "", token: 0, view: OwnershipView()) }
    var renew: () -> Void = {}
    /// Told of writes whose outcome was unknown and is not any more.
    var noteSealed: (StorageWrite, WriteOutcome?) -> Void = { _, _ in }
    private var sink: (any StorageSink)?
    private var fenced: FencedWrites
    private var fresh: [FencedWrite] = []
    private var isBusy = false
    private var isClosed = false
    private var lastAnswer: UInt64 = 0
    private let waitNanoseconds: UInt64

    init(_ world: VirtualWorld, _ store: FleetStore, _ faults: Faults, waitMilliseconds: UInt64) {
        self.world = world
        self.store = store
        self.faults = faults
        fenced = FencedWrites(guards: store.guards)
        waitNanoseconds = waitMilliseconds * 1_000_000
    }

    func start(_ sink: any StorageSink) throws(StorageStartError) { self.sink = sink }
    var health: StorageHealth { .ready }
    func statistics() -> [StorageStatistic] { [] }
    func stop() { close() }
    func scan(
        prefix: [UInt8], after key: [UInt8], _ bounds: ScanBounds
    ) throws(StorageFailure) -> ScanPage { ScanPage() }

    /// The process is gone: nothing is answered any more. What was sent may yet be committed.
    func close() {
        isClosed = true
        sink = nil
    }

    private func delay(slowMax: Int? = nil) -> Int {
        if world.random.chance(faults.slow) {
            world.noteFault("slow store")
            return world.random.below(slowMax ?? faults.slowMax)
        }
        return world.random.below(faults.delayMax)
    }

    func read(_ reads: [StorageRead]) {
        for read in reads {
            let fails = world.random.chance(faults.readError)
            world.after(delay()) { [self] in
                let outcome = fails ? .failed(StorageFailure(.refused, "simulated")) : store.read(read.key)
                world.after(delay(slowMax: faults.slowReadMax)) { [self] in
                    sink?.readsCompleted([(read.token, outcome)])
                }
            }
        }
    }

    func write(_ writes: [SubmittedWrite]) {
        fresh += writes.map { FencedWrite($0, sinceNanoseconds: world.nanoseconds) }
        pump()
    }

    /// Begins the next transaction, if there is none under way and something may be written.
    func pump() {
        guard !isBusy, !isClosed else { return }
        let permit = permit()
        let admission = fenced.admit(fresh, permit)
        fresh = []
        answer(admission.refused, after: 0)
        let oldest = world.nanoseconds > waitNanoseconds ? world.nanoseconds - waitNanoseconds : 0
        let overdue = fenced.takeOverdue(since: oldest)
        answer(overdue.map { ($0.token, .failed(StorageFailure(.notSent, "overdue"))) }, after: 0)
        guard !admission.ready.isEmpty else {
            if !fenced.held.isEmpty { world.after(2_000) { [weak self] in self?.pump() } }
            return
        }
        isBusy = true
        let isLost = world.random.chance(faults.unknown)
        world.after(delay()) { [self] in
            if isLost { return lose(admission.ready, permit) }
            guard let outcomes = store.commit(admission.ready.map(\.submitted.write), permit) else {
                world.noteFault("fenced")
                fenced.putBack(admission.ready)
                renew()
                return world.after(3_000) { [self] in finish() }
            }
            let answers = zip(admission.ready, outcomes).map { ($0.submitted.token, $1) }
            answer(answers, after: delay())
            finish()
        }
    }

    private func finish() {
        isBusy = false
        pump()
    }

    private func answer(_ results: [(token: UInt64, outcome: WriteOutcome)], after pause: Int) {
        if results.isEmpty { return }
        // In the order of what was done.
        lastAnswer = max(lastAnswer, world.microseconds + UInt64(pause))
        world.at(lastAnswer) { [weak self] in self?.sink?.writesCompleted(results) }
    }

    /// A transaction whose answer is lost: it is done later, or never. The writer goes on when that is known.
    private func lose(_ writes: [FencedWrite], _ permit: WritePermit) {
        world.noteFault("unknown outcome")
        let failure = WriteOutcome.failed(StorageFailure(.unknownOutcome, "simulated"))
        answer(writes.map { ($0.submitted.token, failure) }, after: 0)
        let happens = world.random.chance(600)
        world.after(world.random.below(faults.slowMax)) { [self] in
            let list = writes.map(\.submitted.write)
            let outcomes = happens ? store.commit(list, permit) : nil
            world.at(max(lastAnswer, world.microseconds) + 1_000 + UInt64(world.random.below(20_000))) { [self] in
                for (index, write) in list.enumerated() { noteSealed(write, outcomes?[index]) }
                sink?.unknownOutcomesSettled()
                finish()
            }
        }
    }
}
