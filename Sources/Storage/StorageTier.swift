// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Synchronization

/// The storage tier of a node: commands that need storage go in, answers come out to receivers, and the cached copies
/// follow (docs/contract.md). Safe to call from any thread; nothing but ``start()`` and ``stop()`` blocks.
///
/// Keys are spread over stripes, each a lock and a ``WriteThroughStateMachine``. A stripe's lock is held for decisions
/// and cache steps; the backend and the receivers are called outside of it. What a stripe sends passes through its
/// queue, which one thread at a time empties, so that the order of writes that was decided under the lock is the order
/// in which the backend gets them. An answer may be delivered before the call that asked for it returns.
///
/// What a connection owes, so that its commands take effect in their order: it reads a key with a write of its own
/// unanswered through ``read(key:hash:pool:acceptsCopy:for:)`` where ``isBusy(_:_:)`` says so; and it asks nothing of a
/// key while a read of its own of that key is unanswered, as that read may show whatever comes after it. The caller
/// holds no lock that its ``CachedCopies`` take.
package final class StorageTier: StorageSink {
    private let backend: any StorageBackend
    private let copies: any CachedCopies
    private let receivers: [any StorageReceiver]
    private let clock: StorageTierClock
    private let untakenBytesMax: Int
    private let isStopping = Atomic<Bool>(false)
    private let poolCount: Int
    private let mask: UInt64
    // Each stripe is touched under its own lock only.
    private let stripes: FixedArray<Stripe>

    private struct Stripe: ~Copyable {
        /// First, in what alignment leaves free: at the address of a variable that is modified, the thread sanitizer
        /// notes a write, and there must not be the lock.
        let number: UInt32
        let lock = Lock()
        var state: State

        init(_ number: Int, _ machine: consuming WriteThroughStateMachine) {
            self.number = UInt32(number)
            state = State(machine)
        }
    }

    /// What one lock guards.
    private struct State: ~Copyable {
        var machine: WriteThroughStateMachine
        /// Decided, and not yet given to the backend.
        var reads: [StorageRead] = []
        var writes: [SubmittedWrite] = []
        /// Somebody is giving this stripe's queue to the backend, and goes on until it is empty.
        var isSending = false

        init(_ machine: consuming WriteThroughStateMachine) { self.machine = machine }
    }

    /// A tier that is not started. `pools` is by a pool's number, `receivers` by ``StorageWaiter/receiver``.
    /// `guards` and `clock` are for tests.
    package init(
        backend: any StorageBackend, copies: any CachedCopies, receivers: [any StorageReceiver],
        pools: [StoragePoolPolicy], configuration: StorageTierConfiguration, guards: WriteThroughGuards = .all,
        clock: StorageTierClock = .system
    ) {
        let count = configuration.stripes
        precondition(count > 0 && count <= 4096 && count & (count - 1) == 0, "stripes are a power of two up to 4,096")
        let buckets = configuration.bucketsPerStripe
        precondition(buckets > 0 && buckets & (buckets - 1) == 0, "buckets are a power of two")
        precondition(!pools.isEmpty, "a tier has at least one pool")
        self.backend = backend
        self.copies = copies
        self.receivers = receivers
        self.clock = clock
        untakenBytesMax = configuration.untakenBytesMax
        poolCount = pools.count
        mask = UInt64(count - 1)
        stripes = FixedArray(count: count) { index in
            Stripe(
                index,
                WriteThroughStateMachine(
                    stripe: index, configuration: configuration, pools: pools, isUnsettled: true, guards: guards))
        }
    }

    // MARK: Life

    /// Opens the backend. Blocks. Where writes of an earlier process may still take effect, nothing is cached until the
    /// backend says that they are settled.
    package func start() throws(StorageStartError) {
        try backend.start(self)
        if !backend.mayHaveEarlierWrites { unknownOutcomesSettled() }
    }

    /// Refuses new work, answers what is under way, stops the backend. Blocks.
    package func stop() {
        for index in 0..<stripes.count { step(index) { machine, _, _ in machine.stopAccepting() } }
        // Nobody takes answers any more.
        isStopping.store(true, ordering: .relaxed)
        backend.stop()
        for index in 0..<stripes.count { step(index) { machine, _, actions in machine.abandon(&actions) } }
    }

    // MARK: Commands

    /// A cache miss (or an expired or uncached copy): the answer comes to the waiter. `hash` is the engine's key hash.
    ///
    /// The cache is asked again, under the lock that fills come under: of a herd, those who missed before the fill and
    /// come here after it need no read of their own. `acceptsCopy` is false for what only storage can tell.
    package func read(key: [UInt8], hash: UInt64, pool: Int, acceptsCopy: Bool = true, for waiter: StorageWaiter) {
        precondition(pool >= 0 && pool < poolCount, "no such pool")
        step(stripe(hash)) { machine, now, actions in
            if acceptsCopy, !machine.isBusy(hash, key.span), let copy = copies.current(key: key, hash: hash) {
                machine.statistics.readsFromCopies += 1
                return actions.answer(waiter, copy)
            }
            machine.read(key, hash: hash, pool: pool, for: waiter, at: now, into: &actions)
        }
    }

    /// A copy that is behind its time was shown: a newer one is fetched, unless that is under way. Nobody is answered.
    package func refresh(key: [UInt8], hash: UInt64, pool: Int) {
        precondition(pool >= 0 && pool < poolCount, "no such pool")
        step(stripe(hash)) { machine, now, actions in
            machine.refresh(key, hash: hash, pool: pool, at: now, into: &actions)
        }
    }

    /// A write; the answer comes after commit and cache step. `write.pool` is the pool.
    package func write(_ write: StorageWrite, hash: UInt64, for waiter: StorageWaiter) {
        precondition(Int(write.pool) < poolCount, "no such pool")
        step(stripe(hash)) { machine, now, actions in
            machine.write(write, hash: hash, for: waiter, at: now, into: &actions)
        }
    }

    /// Whether writes to the key are in flight: a connection with unanswered commands of its own must then read through
    /// ``read(key:hash:pool:acceptsCopy:for:)`` rather than from the cache. Cheap: one short lock, no allocation.
    package func isBusy(_ hash: UInt64, _ key: Span<UInt8>) -> Bool {
        Self.withStripe(of: stripes, stripe(hash)) { $0.machine.isBusy(hash, key) }
    }

    // MARK: Events

    /// The cache is about to be flushed: fills under way must not install. To be called before the cache is emptied, so
    /// that no fill gets in between.
    package func noteFlush() {
        for index in 0..<stripes.count { step(index) { machine, _, _ in machine.flush() } }
    }

    /// The rows are another database's from now on: copies of those before go, and nothing that was read or written
    /// before is cached.
    package func rowsReplaced() {
        noteFlush()
        copies.removeAll()
        noteFlush()
    }

    /// A stream said that there is no row any more that is not newer than `version`: as ``noteFlush()``, and reads that
    /// are sent later and find older rows are not cached for a while, either.
    package func noteEmptied(version: UInt64) {
        for index in 0..<stripes.count { step(index) { machine, now, _ in machine.flush(toldOf: version, at: now) } }
    }

    /// Something outside invalidated a key or changed it: the copy is dropped, and fills under way must not install.
    package func noteInvalidation(key: [UInt8], hash: UInt64) {
        step(stripe(hash)) { machine, _, actions in machine.invalidate(key, hash: hash, into: &actions) }
    }

    /// A stream said that a key has `version` in storage: a copy that is older goes, or is replaced by `row` where that
    /// came with it, and fills under way must not install. Without a copy, nothing is cached: a read may have shown a
    /// newer row. Reads that are sent later and find what is older are not cached for a while, either.
    /// `isUnconditional` is for changes whose version says nothing. False when the copy is as new.
    @discardableResult
    package func noteChange(
        key: [UInt8], hash: UInt64, version: UInt64, isUnconditional: Bool, isDeletion: Bool = false, row: StoredRow?,
        pool: Int
    ) -> Bool {
        var isNew = false
        step(stripe(hash)) { machine, now, actions in
            let copy = copies.version(key: key, hash: hash)
            if !isUnconditional, let copy, copy >= version {
                // It may be evicted, and read again from a store that lags.
                machine.noteTold(hash, version: version, isDeletion: isDeletion, at: now)
                return
            }
            isNew = true
            machine.change(
                key, hash: hash, version: isUnconditional ? .max : version, isDeletion: isDeletion,
                row: copy == nil ? nil : row, pool: pool, at: now, into: &actions)
        }
        return isNew
    }

    /// The cache evicted a key. Nothing depends on it; a test shows that nothing does.
    package func noteEviction(hash: UInt64) { step(stripe(hash)) { machine, _, _ in machine.noteEviction(hash) } }

    /// Called about every 100 ms by a thread of the node: answers whoever waited too long.
    package func tick(monotonicNanoseconds: UInt64) {
        let unix = clock.unixMilliseconds()
        let now = StorageTime(monotonicNanoseconds: monotonicNanoseconds, unixMilliseconds: unix)
        for index in 0..<stripes.count { step(index) { machine, _, actions in machine.tick(at: now, into: &actions) } }
    }

    /// What is known of the store's health; cheap.
    package var health: StorageHealth { backend.health }

    // MARK: Answers of the backend

    /// The backend's answers to reads.
    package func readsCompleted(_ results: [(token: UInt64, outcome: ReadOutcome)]) {
        completed(reads: results, timing: nil)
    }

    /// The same of a batch, with its times.
    package func readsCompleted(_ results: [(token: UInt64, outcome: ReadOutcome)], timing: StorageTiming) {
        completed(reads: results, timing: timing)
    }

    private func completed(reads results: [(token: UInt64, outcome: ReadOutcome)], timing: StorageTiming?) {
        var answers: [(receiver: UInt32, answer: StorageAnswer)] = []
        for (token, outcome) in results {
            decide(stripe(token), &answers) { machine, now, actions in
                machine.readCompleted(token, outcome, at: now, into: &actions)
            }
        }
        for (token, _) in results { send(stripe(token)) }
        deliver(answers, timing: timing)
    }

    /// The backend's answers to writes.
    package func writesCompleted(_ results: [(token: UInt64, outcome: WriteOutcome)]) {
        completed(writes: results, timing: nil)
    }

    /// The same of a batch, with its times.
    package func writesCompleted(_ results: [(token: UInt64, outcome: WriteOutcome)], timing: StorageTiming) {
        completed(writes: results, timing: timing)
    }

    private func completed(writes results: [(token: UInt64, outcome: WriteOutcome)], timing: StorageTiming?) {
        var answers: [(receiver: UInt32, answer: StorageAnswer)] = []
        for (token, outcome) in results {
            decide(stripe(token), &answers) { machine, now, actions in
                machine.writeCompleted(token, outcome, at: now, into: &actions)
            }
        }
        for (token, _) in results { send(stripe(token)) }
        deliver(answers, timing: timing)
    }

    /// Lets receivers that are behind take their rows before the backend reads more: what is on its way has a bound,
    /// however many ask. A receiver that takes nothing for a second is waited for no longer, each time.
    package func waitForRoom() {
        for _ in 0..<1000 {
            let untaken = receivers.reduce(0) { $0 + $1.untakenBytes }
            if untaken <= untakenBytesMax || isStopping.load(ordering: .relaxed) { return }
            Thread.sleep(microseconds: 1000)
        }
    }

    /// Every unknown outcome so far is settled: their keys may be cached again.
    package func unknownOutcomesSettled() {
        for index in 0..<stripes.count { step(index) { machine, _, actions in machine.settle(&actions) } }
    }

    // MARK: Shell

    /// Of a key's hash, or of a token, which has its stripe in the same bits.
    private func stripe(_ number: UInt64) -> Int { Int(truncatingIfNeeded: number & mask) }

    /// One decision, and all that follows from it.
    private func step(
        _ index: Int, _ body: (inout WriteThroughStateMachine, StorageTime, inout StorageActions) -> Void
    ) {
        var answers: [(receiver: UInt32, answer: StorageAnswer)] = []
        decide(index, &answers, body)
        send(index)
        deliver(answers)
    }

    /// Decides under the stripe's lock, does the cache steps there, and queues what is to be sent.
    private func decide(
        _ index: Int, _ answers: inout [(receiver: UInt32, answer: StorageAnswer)],
        _ body: (inout WriteThroughStateMachine, StorageTime, inout StorageActions) -> Void
    ) {
        let now = StorageTime(
            monotonicNanoseconds: clock.monotonicNanoseconds(), unixMilliseconds: clock.unixMilliseconds())
        var actions = StorageActions()
        Self.withStripe(of: stripes, index) { state in
            body(&state.machine, now, &actions)
            for step in actions.cacheSteps { apply(step) }
            if !actions.reads.isEmpty { state.reads += actions.reads }
            if !actions.writes.isEmpty { state.writes += actions.writes }
        }
        answers += actions.answers
    }

    private func apply(_ step: CacheStep) {
        switch step {
        case .install(let row, let key, let hash, let pool): copies.install(row, key: key, hash: hash, pool: pool)
        case .installAbsent(let key, let hash, let pool): copies.installAbsent(key: key, hash: hash, pool: pool)
        case .drop(let key, let hash): copies.drop(key: key, hash: hash)
        case .forgetRow(let key, let hash): copies.forgetRow(key: key, hash: hash)
        case .dropOlder(let version, let key, let hash):
            // That there is no row is older too: whoever was answered saw that there is one.
            if (copies.version(key: key, hash: hash) ?? 0) < version { copies.drop(key: key, hash: hash) }
        }
    }

    /// The array is a parameter, so that modifying an element is no access to the tier's property.
    private static func withStripe<R>(
        of stripes: borrowing FixedArray<Stripe>, _ index: Int, _ body: (inout State) -> R
    ) -> R {
        stripes[index].lock.lock()
        defer { stripes[index].lock.unlock() }
        return body(&stripes[index].state)
    }

    /// Gives a stripe's queue to the backend, unless somebody is at it: that one sees what was added.
    private func send(_ index: Int) {
        var isSender = false
        while true {
            let (reads, writes) = Self.withStripe(of: stripes, index) { state -> ([StorageRead], [SubmittedWrite]) in
                if state.isSending && !isSender { return ([], []) }
                let queued = (state.reads, state.writes)
                state.reads = []
                state.writes = []
                isSender = !queued.0.isEmpty || !queued.1.isEmpty
                state.isSending = isSender
                return queued
            }
            if !isSender { return }
            if !writes.isEmpty { backend.write(writes) }
            if !reads.isEmpty { backend.read(reads) }
        }
    }

    /// Delivers answers, one call for each receiver.
    private func deliver(_ answers: [(receiver: UInt32, answer: StorageAnswer)], timing: StorageTiming? = nil) {
        if answers.isEmpty { return }
        if answers.count == 1 {
            return receivers[Int(answers[0].receiver)].deliver([answers[0].answer], timing: timing)
        }
        var grouped = [[StorageAnswer]](repeating: [], count: receivers.count)
        for (receiver, answer) in answers { grouped[Int(receiver)].append(answer) }
        for (index, group) in grouped.enumerated() where !group.isEmpty {
            receivers[index].deliver(group, timing: timing)
        }
    }

    // MARK: Figures

    /// The tier's own figures, then the backend's.
    package func statistics() -> [StorageStatistic] {
        var total = WriteThroughStatistics()
        var inFlight = (reads: 0, writes: 0, uncertainKeys: 0)
        for index in 0..<stripes.count {
            let own = Self.withStripe(of: stripes, index) { state in
                total.add(state.machine.statistics)
                return state.machine.inFlight
            }
            inFlight.reads += own.reads
            inFlight.writes += own.writes
            inFlight.uncertainKeys += own.uncertainKeys
        }
        return total.listed(inFlight) + backend.statistics()
    }
}

/// The clocks that a tier reads. Simulations bring their own.
package struct StorageTierClock: Sendable {
    /// For time limits.
    package var monotonicNanoseconds: @Sendable () -> UInt64
    /// For expiry.
    package var unixMilliseconds: @Sendable () -> Int64

    /// Clocks that are read by calling these, from any thread.
    package init(
        monotonicNanoseconds: @escaping @Sendable () -> UInt64, unixMilliseconds: @escaping @Sendable () -> Int64
    ) {
        self.monotonicNanoseconds = monotonicNanoseconds
        self.unixMilliseconds = unixMilliseconds
    }

    /// The kernel's clocks.
    package static let system = StorageTierClock(
        monotonicNanoseconds: { Clock.coarseNanoseconds() },
        unixMilliseconds: { Int64(Clock.realtimeNanoseconds() / 1_000_000) })
}
