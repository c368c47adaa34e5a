// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CRocksDB
internal import Memory
internal import Synchronization
internal import Telemetry

/// What leaves the store while RocksDB rewrites its files: rows that expired, tombstones past their time, and records
/// of the outbox below the trim cursors.
///
/// The filters run on RocksDB's threads. They change nothing but counters: what they answer depends on the row, the
/// time and the cursors only. What they drop becomes a deletion of RocksDB's until it reached the lowest level, so
/// nothing older comes back.
@safe
final class CompactionFilters: @unchecked Sendable {
    // SAFETY (type): the handles live until `deinit`, and RocksSettings keeps this object while a database uses them.
    // The state that the callbacks get is `rules` and `cursors`, which this object keeps alive.
    let rows: OpaquePointer
    let outbox: OpaquePointer
    let rules: ReapingRules
    let cursors: TrimCursors

    init(rules: ReapingRules, cursors: TrimCursors) {
        self.rules = rules
        self.cursors = cursors
        unsafe rows = rocksdb_compactionfilter_create(
            Unmanaged.passUnretained(rules).toOpaque(), { _ in },
            { state, _, key, keyLength, value, valueLength, _, _, _ in
                guard let state = unsafe state else { return 0 }
                return unsafe Unmanaged<ReapingRules>.fromOpaque(state)._withUnsafeGuaranteedRef { rules in
                    let isOver = unsafe rules.isOver(
                        key: CompactionFilters.span(key, keyLength), value: CompactionFilters.span(value, valueLength))
                    return isOver ? 1 : 0
                }
            }, { _ in unsafe CompactionFilters.rowsName.unsafeCharacters })
        unsafe outbox = rocksdb_compactionfilter_create(
            Unmanaged.passUnretained(cursors).toOpaque(), { _ in },
            { state, _, key, keyLength, _, _, _, _, _ in
                guard let state = unsafe state else { return 0 }
                return unsafe Unmanaged<TrimCursors>.fromOpaque(state)._withUnsafeGuaranteedRef { cursors in
                    unsafe cursors.drops(CompactionFilters.span(key, keyLength)) ? 1 : 0
                }
            }, { _ in unsafe CompactionFilters.outboxName.unsafeCharacters })
    }

    deinit {
        unsafe rocksdb_compactionfilter_destroy(rows)
        unsafe rocksdb_compactionfilter_destroy(outbox)
    }

    private static let rowsName: StaticString = "martlet.rows"
    private static let outboxName: StaticString = "martlet.outbox"

    /// The bytes that RocksDB shows, which live during the callback.
    @_lifetime(immortal)
    private static func span(_ start: UnsafePointer<CChar>?, _ length: Int) -> Span<UInt8> {
        let bytes = unsafe UnsafeRawBufferPointer(start: start, count: start == nil ? 0 : length)
        let span = unsafe Span<UInt8>(_bytes: RawSpan(_unsafeBytes: bytes))
        return unsafe _overrideLifetime(span, copying: ())
    }
}

extension StaticString {
    /// The text as C has it: a static string is terminated and lives for ever.
    fileprivate var unsafeCharacters: UnsafePointer<CChar>? {
        unsafe UnsafeRawPointer(utf8Start).assumingMemoryBound(to: CChar.self)
    }
}

/// Which rows are over, whoever asks for them.
final class ReapingRules: Sendable {
    private let tombstoneMilliseconds: Int64
    private let now: @Sendable () -> Int64
    /// Expired rows that were dropped.
    let expired = SharedCounter()
    /// Tombstones that were dropped.
    let tombstones = SharedCounter()

    init(tombstoneMilliseconds: Int64, now: @escaping @Sendable () -> Int64) {
        self.tombstoneMilliseconds = tombstoneMilliseconds
        self.now = now
    }

    /// Whether a row may go. A damaged one stays: it is for readers to find.
    func isOver(key: Span<UInt8>, value: Span<UInt8>) -> Bool {
        guard let head = RowCodec.head(value) else { return false }
        let isOver: Bool
        if head.isTombstone {
            // A version begins with the milliseconds of its commit: docs/contract.md, version.
            isOver = Int64(truncatingIfNeeded: head.version >> 16) + tombstoneMilliseconds <= now()
        } else {
            isOver = head.expiryMilliseconds != 0 && head.expiryMilliseconds <= now()
        }
        guard isOver, RowCodec.isWhole(value, keyHash: stableHash(key)) else { return false }
        if head.isTombstone { tombstones.add(1) } else { expired.add(1) }
        return true
    }
}

/// Up to where each slot of the outbox is trimmed: records below the cursor may go, and count as gone.
final class TrimCursors: Sendable {
    private let first: [Atomic64]
    /// Records that were dropped.
    let dropped = SharedCounter()
    private let kept = Atomic64()

    init() { first = (0..<OutboxKey.slots).map { _ in Atomic64() } }

    /// The first sequence number of `slot` that is kept.
    func firstKept(_ slot: Int) -> UInt64 { first[slot].value.load(ordering: .relaxed) }

    /// Lets everything of `slot` below `sequence` go. Never goes back. Only after the same is on the disk.
    func advance(_ slot: Int, to sequence: UInt64) { first[slot].value.max(sequence, ordering: .relaxed) }

    /// Records that are kept.
    var keptCount: UInt64 { kept.value.load(ordering: .relaxed) }

    /// By slot, the last sequence numbers that are on the disk.
    func noteKept(_ last: [UInt64]) {
        let records = last.enumerated().reduce(UInt64(0)) { sum, slot in
            sum + slot.element + 1 - min(max(firstKept(slot.offset), 1), slot.element + 1)
        }
        kept.value.store(records, ordering: .relaxed)
    }

    /// Whether a record may go.
    func drops(_ key: Span<UInt8>) -> Bool {
        guard let (slot, sequence) = OutboxKey.decode(key), sequence < firstKept(slot) else { return false }
        dropped.add(1)
        return true
    }

    /// An atomic number that an array can hold.
    private final class Atomic64: Sendable {
        let value = Atomic<UInt64>(0)
    }
}
