// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Storage
import Synchronization

/// Rows that several stores may have in common, as sessions of one database have.
final class SharedRows: @unchecked Sendable {
    var rows: [[UInt8]: StoredRow] = [:]
}

/// A store that does nothing by itself: a test says when a read looks, when a write is committed, and when either is
/// answered. On one thread.
final class ManualStore: StorageBackend, @unchecked Sendable {
    private let shared: SharedRows
    var rows: [[UInt8]: StoredRow] {
        get { shared.rows }
        set { shared.rows = newValue }
    }
    var reads: [StorageRead] = []
    var writes: [SubmittedWrite] = []
    var mayHaveEarlierWrites = false
    var unixMilliseconds: () -> Int64 = { 0 }
    private(set) var readCount = 0
    private(set) weak var sink: (any StorageSink)?
    private var clock = HybridLogicalClock(persistedMark: 0)

    init(_ shared: SharedRows) { self.shared = shared }

    func start(_ sink: any StorageSink) throws(StorageStartError) { self.sink = sink }
    func stop() {}
    var health: StorageHealth { .ready }
    func statistics() -> [StorageStatistic] { [StorageStatistic("manual", .gauge, 1, "There is one.")] }
    func scan(
        prefix: [UInt8], after key: [UInt8], _ bounds: ScanBounds
    ) throws(StorageFailure) -> ScanPage { ScanPage() }

    func read(_ reads: [StorageRead]) {
        readCount += reads.count
        self.reads += reads
    }

    func write(_ writes: [SubmittedWrite]) { self.writes += writes }

    /// What is there now.
    func look(_ key: [UInt8]) -> ReadOutcome {
        guard let row = rows[key], row.isLive(at: unixMilliseconds()) else { return .absent }
        return .found(row)
    }

    func commit(_ write: StorageWrite) -> WriteOutcome {
        let old = rows[write.key]
        let live = old.flatMap { $0.isLive(at: unixMilliseconds()) ? $0 : nil }
        switch WriteEvaluation.decide(write, live: live) {
        case .refuse(let outcome): return outcome
        case .tombstone:
            rows[write.key] = nil
            return .deleted(version: clock.next(unixMilliseconds: unixMilliseconds()))
        case .put(var row):
            row.version = clock.next(after: old?.version ?? 0, unixMilliseconds: unixMilliseconds())
            rows[write.key] = row
            return .stored(row)
        }
    }

    /// Answers the oldest read with an outcome, or with what is there now.
    func answerRead(_ outcome: ReadOutcome? = nil) {
        let read = reads.removeFirst()
        sink?.readsCompleted([(read.token, outcome ?? look(read.key))])
    }

    /// Answers the oldest write with an outcome, or commits it first.
    func answerWrite(_ outcome: WriteOutcome? = nil) {
        let write = writes.removeFirst()
        let outcome = outcome ?? commit(write.write)
        sink?.writesCompleted([(write.token, outcome)])
    }

    /// Does and answers everything, in order, until nothing is left.
    func answerAll() {
        while !reads.isEmpty || !writes.isEmpty {
            while !writes.isEmpty { answerWrite() }
            while !reads.isEmpty { answerRead() }
        }
    }
}

/// The copies of a cache: what was installed last and not dropped.
final class PlainCopies: CachedCopies, @unchecked Sendable {
    var copies: [[UInt8]: ReadOutcome] = [:]
    var steps = 0

    func install(_ row: StoredRow, key: [UInt8], hash: UInt64, pool: Int) { put(key, .found(row)) }
    func installAbsent(key: [UInt8], hash: UInt64, pool: Int) { put(key, .absent) }
    func drop(key: [UInt8], hash: UInt64) { put(key, nil) }
    func removeAll() { copies = [:] }

    private func put(_ key: [UInt8], _ copy: ReadOutcome?) {
        copies[key] = copy
        steps += 1
    }

    func version(key: [UInt8], hash: UInt64) -> UInt64? {
        if case .found(let row)? = copies[key] { row.version } else { nil }
    }
}

/// Collects answers by token.
final class Answers: StorageReceiver, @unchecked Sendable {
    var reads: [UInt64: ReadOutcome] = [:]
    var writes: [UInt64: WriteOutcome] = [:]
    var deliveries = 0

    func deliver(_ answers: [StorageAnswer]) {
        deliveries += 1
        for answer in answers {
            switch answer {
            case .read(let token, let outcome):
                precondition(reads.updateValue(outcome, forKey: token) == nil, "answered twice")
            case .write(let token, let outcome):
                precondition(writes.updateValue(outcome, forKey: token) == nil, "answered twice")
            }
        }
    }
}

/// A tier over a manual store, plain copies and a clock that a test moves.
final class TierBed: @unchecked Sendable {
    let store: ManualStore
    let copies = PlainCopies()
    let answers = Answers()
    private(set) var tier: StorageTier
    /// Milliseconds of both clocks.
    var now: Int64 = 1_000_000
    private var tokens: UInt64 = 0

    init(
        _ guards: WriteThroughGuards = .all, configuration: StorageTierConfiguration = StorageTierConfiguration(),
        policy: StoragePoolPolicy = StoragePoolPolicy(), mayHaveEarlierWrites: Bool = false,
        rows: SharedRows = SharedRows()
    ) throws {
        store = ManualStore(rows)
        final class Time: @unchecked Sendable { weak var bed: TierBed? }
        let time = Time()
        var configuration = configuration
        configuration.stripes = 1
        configuration.bucketsPerStripe = 1
        store.mayHaveEarlierWrites = mayHaveEarlierWrites
        tier = StorageTier(
            backend: store, copies: copies, receivers: [answers], pools: [policy], configuration: configuration,
            guards: guards,
            clock: StorageTierClock(
                monotonicNanoseconds: { UInt64(time.bed?.now ?? 0) * 1_000_000 },
                unixMilliseconds: { time.bed?.now ?? 0 }))
        time.bed = self
        store.unixMilliseconds = { [unowned self] in now }
        try tier.start()
    }

    func hash(_ key: String) -> UInt64 { stableHash(Array(key.utf8).span) }

    /// Asks the tier for a key; the answer is in ``answers`` by this token.
    @discardableResult func read(_ key: String) -> UInt64 {
        tokens += 1
        tier.read(
            key: Array(key.utf8), hash: hash(key), pool: 0, for: StorageWaiter(receiver: 0, token: tokens))
        return tokens
    }

    /// Has the tier fetch a newer copy.
    func refresh(_ key: String) { tier.refresh(key: Array(key.utf8), hash: hash(key), pool: 0) }

    @discardableResult func write(
        _ operation: StorageWrite.Operation, _ key: String, _ value: String = "",
        _ change: (inout StorageWrite) -> Void = { _ in }
    ) -> UInt64 {
        tokens += 1
        var write = StorageWrite(operation, key: Array(key.utf8))
        write.value = Array(value.utf8)
        change(&write)
        tier.write(write, hash: hash(key), for: StorageWaiter(receiver: 0, token: tokens))
        return tokens
    }

    /// Puts a row in the store, around the tier.
    func seed(_ key: String, _ value: String, expiry: Int64 = 0) {
        var write = StorageWrite(.set, key: Array(key.utf8))
        write.value = Array(value.utf8)
        write.expiryMilliseconds = expiry
        _ = store.commit(write)
    }

    func copy(_ key: String) -> ReadOutcome? { copies.copies[Array(key.utf8)] }

    /// The value of the cached copy; nil if there is none, or it is "not found".
    func cached(_ key: String) -> String? { Self.text(copy(key)) }

    func answer(_ token: UInt64) -> String? { Self.text(answers.reads[token]) }

    func stored(_ key: String) -> String? { Self.text(store.look(Array(key.utf8))) }

    func evict(_ key: String) {
        copies.copies[Array(key.utf8)] = nil
        tier.noteEviction(hash: hash(key))
    }

    func isBusy(_ key: String) -> Bool { tier.isBusy(hash(key), Array(key.utf8).span) }

    func tick(after milliseconds: Int64) {
        now += milliseconds
        tier.tick(monotonicNanoseconds: UInt64(now) * 1_000_000)
    }

    func statistic(_ name: String) -> Int { Int(tier.statistics().first { $0.name == name }?.value ?? -1) }

    private static func text(_ outcome: ReadOutcome?) -> String? {
        guard case .found(let row) = outcome else { return nil }
        return String(decoding: row.value, as: UTF8.self)
    }
}
