// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
internal import Storage
internal import Synchronization
internal import Telemetry

/// A node's storage: the tier, the pools, and the way of answers back to the reactors. Safe to use from any thread.
final class NodeStorage: Sendable {
    let tier: StorageTier
    let backend: any StorageBackend
    let pools: StoragePools
    let slow: SlowOperations
    /// Flags of mg that want a look before the cache answers; those about the time to live among them only where a copy
    /// has one of its own.
    let specialOptions: MetaOptions
    /// Where each reactor's answers arrive, by its number.
    let mailboxes: [StorageMailbox]
    /// Memory for values on their way to the store.
    let intake: ValueIntake
    /// The cache, as copies of rows.
    let copies: CopiesInEngine
    /// Counts the answers to reads that warm the cache.
    let warming = WarmingReads()

    init(
        _ settings: StorageSettings, backend: any StorageBackend, engine: CacheEngine, clock: NodeClock, reactors: Int,
        followsChanges: Bool = false, sharesKeys: Bool = false, fills: SlotTimes? = nil, trace: ChangeTrace? = nil
    ) {
        let pools = StoragePools(settings.pools)
        self.backend = backend
        self.pools = pools
        let hasOwnTimes = pools.policies.contains { $0.cacheTTLMilliseconds > 0 }
        specialOptions = [.setTTL, .setCAS, hasOwnTimes ? [.ttl, .recache] : []]
        slow = SlowOperations(thresholdMilliseconds: settings.slowMilliseconds)
        let mailboxes = (0..<reactors).map { _ in StorageMailbox() }
        self.mailboxes = mailboxes
        var configuration = StorageTierConfiguration()
        configuration.waitMilliseconds = UInt64(settings.timeoutMilliseconds)
        configuration.followsChanges = followsChanges
        configuration.sharesKeys = sharesKeys
        intake = ValueIntake(limitBytes: max(settings.waitingRowBytes, settings.itemBytes))
        let copies = CopiesInEngine(engine, clock, pools, fills, trace: trace)
        self.copies = copies
        tier = StorageTier(
            backend: backend, copies: copies,
            receivers: mailboxes + [warming],
            pools: pools.policies, configuration: configuration)
    }
}

extension NodeStorage {
    /// Bytes of rows that wait for clients who do not read, on all reactors.
    var waitingRowBytes: Int { mailboxes.reduce(0) { $0 + $1.rows.bytes } }

    /// Rows of such clients that were given up.
    var rowsGivenUp: UInt64 { mailboxes.reduce(0) { $0 + $1.rows.givenUp } }

    /// How long what the store does has taken.
    var durations: [NamedDurations] {
        let store = (backend as? SwitchedBackend)?.current ?? backend
        return (store as? any DurationSource)?.durations() ?? []
    }

    /// For reads that warm the cache.
    var warmer: StorageWaiter { StorageWaiter(receiver: UInt32(mailboxes.count), token: 0) }
}

/// Reads that warm the cache: nobody wants their rows, only how many were answered.
final class WarmingReads: StorageReceiver {
    /// What came back since the start.
    struct Tally {
        var answered = 0
        var failed = 0
        /// Why the last of them failed.
        var reason = ""
    }

    private let current = Guarded(Tally())
    /// Where it is told that answers came.
    let parking = Parking()

    private let isStopping = Atomic<Bool>(false)

    /// Whether the node ends: nobody waits for answers then.
    var isStopped: Bool { isStopping.load(ordering: .acquiring) }

    /// Ends the waiting for answers.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        parking.announce()
    }

    var tally: Tally { current.withLock { $0 } }

    func deliver(_ answers: [StorageAnswer]) {
        current.withLock { tally in
            tally.answered += answers.count
            for case .read(_, .failed(let failure)) in answers {
                tally.failed += 1
                tally.reason = failure.reason
            }
        }
        parking.announce()
    }
}

/// Answers of the tier on their way to one reactor.
final class StorageMailbox: StorageReceiver {
    /// The kind of the reactor's message that says that answers wait.
    static var messageKind: UInt32 { 1 }

    /// An answer, with what the backend spent on its batch where it says so.
    struct Delivery: Sendable {
        let answer: StorageAnswer
        let timing: StorageTiming?
    }

    private let waiting = Guarded<[Delivery]>([])
    private let count = Atomic<Int>(0)
    private let untaken = Atomic<Int>(0)
    /// What is told of the rows that the reactor has taken and that wait for their clients.
    let rows = WaitingRowFigures()
    private let reactor = Guarded<Reactor?>(nil)

    /// Names the reactor to wake, at start.
    func attach(_ reactor: Reactor) { self.reactor.withLock { $0 = reactor } }

    func deliver(_ answers: [StorageAnswer]) { deliver(answers, timing: nil) }

    func deliver(_ answers: [StorageAnswer], timing: StorageTiming?) {
        let wasEmpty = waiting.withLock { waiting in
            defer { waiting += answers.lazy.map { Delivery(answer: $0, timing: timing) } }
            // Together with them: who takes them must not find a number that is behind.
            count.add(answers.count, ordering: .relaxed)
            untaken.add(answers.reduce(0) { $0 + $1.rowBytes }, ordering: .relaxed)
            return waiting.isEmpty
        }
        // A full mailbox of the reactor refuses the message; the next tick finds the answers then.
        if wasEmpty { reactor.withLock { $0 }?.post(ReactorMessage(kind: Self.messageKind)) }
    }

    var untakenBytes: Int { untaken.load(ordering: .relaxed) }

    /// Whether answers wait.
    var hasAnswers: Bool { count.load(ordering: .relaxed) > 0 }

    /// Takes all that wait.
    func take() -> [Delivery] {
        waiting.withLock { waiting in
            defer { waiting = [] }
            count.subtract(waiting.count, ordering: .relaxed)
            untaken.store(0, ordering: .relaxed)
            return waiting
        }
    }
}

extension StorageAnswer {
    /// Bytes of the value of the row that came with it.
    fileprivate var rowBytes: Int {
        switch self {
        case .read(_, .found(let row)), .write(_, .stored(let row)): row.value.count
        default: 0
        }
    }
}

extension NodeClock {
    /// A cached copy as the row that it is a copy of. Its expiry is the copy's.
    func row(of item: Item) -> StoredRow {
        StoredRow(
            version: item.version, expiryMilliseconds: unixMilliseconds(item.expiry), clientFlags: item.clientFlags,
            value: item.bytes.slice(item.valueOffset, item.valueLength).withSpan { [UInt8](copying: $0) })
    }
}

/// The engine as the copies in front of the store.
final class CopiesInEngine: CachedCopies {
    let engine: CacheEngine
    private let clock: NodeClock
    let pools: StoragePools
    /// Where rows that are cached are noted, of keys that changed lately.
    private let trace: ChangeTrace?
    private let fills: SlotTimes?

    /// The pool of keys that no prefix matches.
    var lastPool: Int { pools.pools.count - 1 }

    init(
        _ engine: CacheEngine, _ clock: NodeClock, _ pools: StoragePools, _ fills: SlotTimes? = nil,
        trace: ChangeTrace? = nil
    ) {
        self.fills = fills
        self.trace = trace
        self.engine = engine
        self.clock = clock
        self.pools = pools
    }

    func install(_ row: StoredRow, key: [UInt8], hash: UInt64, pool: Int) {
        fills?.note(key.span)
        let now = clock.now()
        var expiry =
            row.expiryMilliseconds == 0
            ? 0 : clock.second(unixMilliseconds: max(1, row.expiryMilliseconds - row.expiryUncertaintyMilliseconds))
        let lifetime = pools.pools[pool].policy.cacheTTLMilliseconds
        if lifetime > 0 {
            let end = now &+ UInt32(clamping: max(1, lifetime / 1000))
            expiry = expiry == 0 ? end : min(expiry, end)
        }
        // A row that ends with the copy's own time, or soon behind it, is not shown beyond that.
        let lingers =
            pools.lingerSeconds(of: pool) > 0
            && (row.expiryMilliseconds == 0
                || clock.second(unixMilliseconds: row.expiryMilliseconds) >= expiry &+ pools.lingerSeconds(of: pool))
        guard engine.allows(keyLength: key.count, valueLength: row.value.count, clientFlags: row.clientFlags),
            expiry == 0 || expiry > now
        else { return drop(key: key, hash: hash) }
        var request = StoreRequest(
            mode: .set, clientFlags: row.clientFlags, expiry: expiry, compare: 0, version: row.version)
        // The store keeps keys as they are; one that no line of text can hold came in base64.
        request.isKeyBinary = key.contains { $0 <= 32 || $0 == 127 }
        trace?.noteFill(key, version: row.version)
        let key = key.span
        let value = row.value.span
        var result = store(hash, key, value, request, lingers: lingers, now: now)
        for _ in 0..<4 where result.outcome == .outOfMemory {
            let needed = max(result.neededBytes, value.count) + engine.segmentBytes
            guard engine.makeRoom(bytes: needed, now: now) else { break }
            result = store(hash, key, value, request, lingers: lingers, now: now)
        }
        if result.outcome != .stored { remove(key, hash, now: now) }
    }

    private func store(
        _ hash: UInt64, _ key: Span<UInt8>, _ value: Span<UInt8>, _ request: StoreRequest, lingers: Bool, now: UInt32
    ) -> StoreResult {
        engine.withShard(hash) { shard in
            let marks = shard.find(hash, key, now: now).map { Marks($0, of: request.version) } ?? Marks()
            let result = shard.store(hash, key: key, value: value, request, now: now)
            guard lingers || marks.isAny, result.outcome == .stored, var item = shard.find(hash, key, now: now) else {
                return result
            }
            if lingers { item.linger() }
            marks.put(on: &item)
            return result
        }
    }

    /// What clients did to a copy, and what the same row keeps when it comes again.
    private struct Marks {
        var isStale = false
        var isTokenSent = false
        var isAny: Bool { isStale || isTokenSent }

        init() {}

        init(_ item: Item, of version: UInt64) {
            guard !item.isAbsent, item.version == version else { return }
            (isStale, isTokenSent) = (item.isStale, item.isTokenSent)
        }

        func put(on item: inout Item) {
            if isStale { item.setStale(true) }
            if isTokenSent { item.setTokenSent(true) }
        }
    }

    func installAbsent(key: [UInt8], hash: UInt64, pool: Int) {
        let seconds = pools.pools[pool].policy.negativeTTLMilliseconds / 1000
        guard seconds > 0, CacheEngine.allows(keyLength: key.count) else { return forgetRow(key: key, hash: hash) }
        fills?.note(key.span)
        let now = clock.now()
        let key = key.span
        let lifetime = Self.jittered(UInt32(clamping: seconds), hash, now: now)
        _ = engine.withShard(hash) { $0.noteAbsent(hash, key: key, expiry: now &+ lifetime, now: now) }
    }

    /// Up to a quarter less than so many seconds: keys that were missed together are not all asked for again together.
    static func jittered(_ seconds: UInt32, _ hash: UInt64, now: UInt32) -> UInt32 {
        let mixed = (hash ^ UInt64(now)) &* 0x9E37_79B9_7F4A_7C15
        return seconds - UInt32(truncatingIfNeeded: mixed >> 33) % (seconds / 4 + 1)
    }

    func current(key: [UInt8], hash: UInt64) -> ReadOutcome? {
        let now = clock.now()
        let key = key.span
        return engine.withShard(hash) { shard in
            guard let item = shard.findToRead(hash, key, now: now) else { return nil }
            guard item.isAbsent else { return .found(clock.row(of: item)) }
            return item.saysAbsent(now: now) ? .absent : nil
        }
    }

    func version(key: [UInt8], hash: UInt64) -> UInt64? {
        let now = clock.now()
        let key = key.span
        return engine.withShard(hash) { shard in
            guard let item = shard.findToRead(hash, key, now: now), !item.isAbsent else { return nil }
            return item.version
        }
    }

    func drop(key: [UInt8], hash: UInt64) { remove(key.span, hash, now: clock.now()) }

    func forgetRow(key: [UInt8], hash: UInt64) {
        let now = clock.now()
        let key = key.span
        engine.withShard(hash) { $0.forgetRow(hash, key: key, now: now) }
    }

    /// Of pools with storage: what others hold is nobody's copy.
    func removeAll() {
        guard pools.pools.allSatisfy(\.hasStorage) else {
            return forget { _ in
                true
            } how: {
                drop(key: $0, hash: $1)
            }
        }
        engine.removeAll()
    }

    private func remove(_ key: Span<UInt8>, _ hash: UInt64, now: UInt32) {
        engine.withShard(hash) { shard in
            if let item = shard.find(hash, key, now: now) { shard.remove(item, hash) }
        }
    }
}

/// When copies of each slot were cached last, by the clock of proofs. Safe to use from any thread.
final class SlotTimes: Sendable {
    private final class Time: Sendable { let nanoseconds = Atomic<UInt64>(0) }

    private let times = (0..<StreamSlots.count).map { _ in Time() }

    /// A copy of a key is cached now.
    func note(_ key: Span<UInt8>) {
        let slot = StreamSlots.slot(keyHash: stableHash(key))
        times[slot].nanoseconds.store(Clock.bootNanoseconds(), ordering: .relaxed)
    }

    /// The slots of which copies were cached since then.
    func slots(since nanoseconds: UInt64) -> UInt64 {
        times.indices.reduce(0) { mask, slot in
            let isSince = times[slot].nanoseconds.load(ordering: .relaxed) >= nanoseconds
            return isSince ? mask | StreamSlots.mask(slot) : mask
        }
    }
}
