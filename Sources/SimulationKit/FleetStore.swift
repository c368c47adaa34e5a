// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// The store and the authority of a simulated fleet: rows, rings and names, each exchange and each commit at one
/// moment, which is the order that a database's lock gives them.
final class FleetStore {
    private struct Lease {
        var token: UInt64
        var adopted: UInt64
        var seenMilliseconds: Int64
    }

    let world: VirtualWorld
    let guards: OwnershipGuards
    /// Whether nothing is committed under an old epoch, as in a database that is the authority, too; or whether the
    /// authority is another place, as for the nodes of a replica region.
    let isFenced: Bool
    /// What was committed of each key, in order; nil for a deletion.
    private(set) var commits: [[UInt8]: [(version: UInt64, row: StoredRow?)]] = [:]
    private var rows: SimulatedRows
    private var rings: [(epoch: UInt64, members: [RingMember])] = []
    private var leases: [String: Lease] = [:]
    /// Changes of the ring.
    private(set) var changes = 0

    init(_ world: VirtualWorld, _ guards: OwnershipGuards, isFenced: Bool) {
        self.world = world
        self.guards = guards
        self.isFenced = isFenced
        rows = SimulatedRows(world)
    }

    /// The members of the newest ring.
    var members: [RingMember] { rings.last?.members ?? [] }
    private var newest: UInt64 { rings.last?.epoch ?? 0 }

    // MARK: The authority

    func exchange(_ request: LeaseRequest) -> LeaseReply {
        let now = world.unixMilliseconds
        var hadPredecessor = false
        if request.joins {
            let known = leases[request.name] ?? Lease(token: 0, adopted: 0, seenMilliseconds: now)
            hadPredecessor = known.token != 0
            if request.takesName(from: known.token, ageMilliseconds: now - known.seenMilliseconds) {
                leases[request.name] = Lease(token: request.token, adopted: 0, seenMilliseconds: now)
            }
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

    func read(_ key: [UInt8]) -> ReadOutcome { rows.read(key) }

    /// Commits writes as one transaction; nil when the permit is not good any more, and none was done. What changes
    /// nothing needs no permit.
    func commit(_ writes: [StorageWrite], _ permit: WritePermit) -> [WriteOutcome]? {
        let isGood = permit.epoch == newest && leases[permit.name]?.token == permit.token
        if !isGood, isFenced, guards.contains(.fences) {
            var refusals: [WriteOutcome] = []
            for write in writes {
                guard case .refuse(let outcome) = WriteEvaluation.decide(write, live: rows.live(write.key)) else {
                    return nil
                }
                refusals.append(outcome)
            }
            return refusals
        }
        return writes.map { write in
            let outcome = rows.commit(write)
            switch outcome {
            case .stored(let row): commits[write.key, default: []].append((row.version, row))
            case .deleted(let version): commits[write.key, default: []].append((version, nil))
            default: break
            }
            return outcome
        }
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
    /// Told of every write whose fate is sealed, with what became of it, nil for nothing: it will not happen any more,
    /// and what it did is in every answer.
    var noteSealed: (StorageWrite, WriteOutcome?) -> Void = { _, _ in }
    private var sink: (any StorageSink)?
    private var fenced: FencedWrites
    private var fresh: [FencedWrite] = []
    private var isBusy = false
    private var isClosed = false
    /// Whether it will look by itself whether what is held may be written.
    private var isPolling = false
    private var lastAnswer: UInt64 = 0
    private let waitNanoseconds: UInt64

    init(_ world: VirtualWorld, _ store: FleetStore, _ faults: Faults, waitMilliseconds: UInt64) {
        self.world = world
        self.store = store
        self.faults = faults
        fenced = FencedWrites(needsLease: !store.isFenced, guards: store.guards)
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
        for write in fenced.held + fresh { noteSealed(write.submitted.write, nil) }
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
        let waiting = fenced.held + fresh
        let admission = fenced.admit(fresh, permit)
        fresh = []
        let refused = admission.refused.compactMap { refusal in
            waiting.first { $0.submitted.token == refusal.token }.map { ($0.submitted, refusal.outcome) }
        }
        answer(refused, after: 0)
        let oldest = world.nanoseconds > waitNanoseconds ? world.nanoseconds - waitNanoseconds : 0
        let overdue = fenced.takeOverdue(since: oldest)
        answer(overdue.map { ($0, .failed(StorageFailure(.notSent, "overdue"))) }, after: 0)
        guard !admission.ready.isEmpty else { return poll() }
        isBusy = true
        let isLost = world.random.chance(faults.unknown)
        world.after(delay()) { [self] in
            if isLost { return lose(admission.ready, permit) }
            guard let outcomes = store.commit(admission.ready.map(\.submitted.write), permit) else {
                return putBack(admission.ready)
            }
            answer(zip(admission.ready, outcomes).map { ($0.submitted, $1) }, after: delay())
            finish()
        }
    }

    private func poll() {
        guard !fenced.held.isEmpty, !isPolling else { return }
        isPolling = true
        world.after(2_000) { [self] in
            isPolling = false
            pump()
        }
    }

    /// The store refused the permit.
    private func putBack(_ writes: [FencedWrite]) {
        world.noteFault("fenced")
        if isClosed { return writes.forEach { noteSealed($0.submitted.write, nil) } }
        fenced.putBack(writes)
        renew()
        world.after(3_000) { [self] in finish() }
    }

    private func finish() {
        isBusy = false
        pump()
    }

    private func answer(_ results: [(write: SubmittedWrite, outcome: WriteOutcome)], after pause: Int) {
        if results.isEmpty { return }
        // In the order of what was done.
        lastAnswer = max(lastAnswer, world.microseconds + UInt64(pause))
        world.at(lastAnswer) { [self] in
            let judged = results.map { ($0.write.token, judge($0.write.write, $0.outcome)) }
            sink?.writesCompleted(judged)
            if !store.isFenced { sink?.unknownOutcomesSettled() }
            for (submitted, outcome) in results where Self.isFinal(outcome) { noteSealed(submitted.write, outcome) }
        }
    }

    /// What is answered for a write: without a fence, that it was done only where the node holds its key now.
    private func judge(_ write: StorageWrite, _ outcome: WriteOutcome) -> WriteOutcome {
        if case .failed = outcome { return outcome }
        guard !store.isFenced, store.guards.contains(.answers), !permit().holds(write.key.span) else { return outcome }
        world.noteFault("disowned")
        return .failed(StorageFailure(.unknownOutcome, "simulated"))
    }

    /// Whether nothing more becomes of a write: a client that is sent to the owner asks there.
    private static func isFinal(_ outcome: WriteOutcome) -> Bool {
        guard case .failed(let failure) = outcome else { return true }
        return failure.kind != .unknownOutcome && failure.kind != .notOwner
    }

    /// A transaction whose answer is lost: it is done later, or never. The writer goes on when that is known.
    private func lose(_ writes: [FencedWrite], _ permit: WritePermit) {
        world.noteFault("unknown outcome")
        let failure = WriteOutcome.failed(StorageFailure(.unknownOutcome, "simulated"))
        answer(writes.map { ($0.submitted, failure) }, after: 0)
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
