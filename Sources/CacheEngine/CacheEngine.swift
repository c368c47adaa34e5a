// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory
public import Platform
internal import Synchronization

/// A shard and the lock in front of it.
@usableFromInline
struct Shard: ~Copyable {
    /// First, in what alignment leaves free: at the address of a variable that is modified, the thread sanitizer notes
    /// a write, and there must not be the lock.
    private let number: UInt32
    @usableFromInline let lock = Lock()
    @usableFromInline var state: ShardState

    init(_ number: Int, _ state: consuming ShardState) {
        self.number = UInt32(number)
        self.state = state
    }
}

/// The cache: many small shards, each behind a short lock, over one budget of bytes. Safe to use from any thread.
///
/// A key's hash picks its shard; everything about the key happens in ``withShard(_:_:)`` on that shard. Nothing is
/// allocated on the way of a hit or of an overwrite of the same size.
@usableFromInline
package final class CacheEngine: Sendable {
    @usableFromInline let shards: FixedArray<Shard>
    @usableFromInline let shardShift: UInt64
    /// Seed for `stableHash` of keys.
    @usableFromInline package let hashSeed: UInt64
    /// What it was made from.
    package let configuration: EngineConfiguration
    /// Where segments and large items lie.
    package let itemArena: Arena
    /// Where index and ghost lie.
    package let indexArena: Arena
    let segmentMemory: SegmentMemory
    private let indexChunks: ChunkPool
    /// What is evicted, for those who watch.
    package let evictionLog: EvictionLog
    private let budget: Budget
    private let nextVersion = Atomic<UInt64>(0)
    private let reclaimCursor = Atomic<Int>(0)
    /// Segments that a flush dropped and nobody freed yet: freeing one is a system call, and a flush drops thousands.
    private let dropped: Guarded<[SegmentMemory.Freed]>
    /// Bytes of values that are being received.
    private let preparedBytes = Atomic<Int>(0)

    /// Creates an empty cache.
    package init(_ configuration: EngineConfiguration) {
        self.configuration = configuration
        hashSeed = configuration.hashSeed
        let budget = Budget(limitBytes: configuration.limitBytes)
        let itemArena = Arena(decayMilliseconds: 0)
        let indexArena = Arena(decayMilliseconds: 0)
        self.budget = budget
        let evictionLog = EvictionLog()
        self.evictionLog = evictionLog
        let dropped = Guarded<[SegmentMemory.Freed]>([])
        self.dropped = dropped
        self.itemArena = itemArena
        self.indexArena = indexArena
        let chunks = ChunkPool(arena: indexArena, chunkBytes: Index.chunkBytes)
        indexChunks = chunks
        let memory = SegmentMemory(arena: itemArena, segmentBytes: configuration.effectiveSegmentBytes)
        segmentMemory = memory
        let count = configuration.effectiveShardCount
        precondition(count & (count - 1) == 0, "the number of shards is a power of two")
        shardShift = UInt64(64 - count.trailingZeroBitCount)
        shards = FixedArray(count: count) { number in
            Shard(
                number,
                ShardState(
                    number: number, configuration: configuration, budget: budget, evictionLog: evictionLog,
                    dropped: dropped,
                    memory: memory,
                    indexArena: indexArena, chunks: chunks))
        }
    }

    deinit {
        releaseDroppedMemory()
        for number in 0..<shards.count { withShard(number: number) { $0.destroy() } }
    }

    /// Bytes of a segment; what a shard takes from the budget at once.
    package var segmentBytes: Int { configuration.effectiveSegmentBytes }

    /// Shards, a power of two.
    package var shardCount: Int { shards.count }

    /// The shard of a hash: its highest bits.
    @inlinable @inline(__always)
    package func shardNumber(_ hash: UInt64) -> Int {
        // Swift's smart shift gives 0 when a single shard makes the shift 64.
        Int(truncatingIfNeeded: hash >> shardShift)
    }

    /// Runs `body` on the shard of `hash`, under its lock. `body` must be short and must not block.
    @inlinable @inline(__always)
    package func withShard<R>(_ hash: UInt64, _ body: (inout ShardState) -> R) -> R {
        withShard(number: shardNumber(hash), body)
    }

    @inlinable @inline(__always)
    package func withShard<R>(number: Int, _ body: (inout ShardState) -> R) -> R {
        Self.withShard(of: shards, number, body)
    }

    /// The array is a parameter, so that modifying an element is no access to the engine's property.
    @inlinable @inline(__always)
    static func withShard<R>(
        of shards: borrowing FixedArray<Shard>, _ number: Int, _ body: (inout ShardState) -> R
    ) -> R {
        shards[number].lock.lock()
        defer { shards[number].lock.unlock() }
        return body(&shards[number].state)
    }

    /// Prefetches the index line of `hash`. Takes no lock.
    @inlinable @inline(__always)
    package func prefetchIndex(_ hash: UInt64) { shards[shardNumber(hash)].state.prefetchIndex(hash) }

    /// Prefetches the items that may be the one of `hash`, or the overflow line where it may be: true then. No lock.
    @inlinable @inline(__always) @discardableResult
    package func prefetchItem(_ hash: UInt64) -> Bool { shards[shardNumber(hash)].state.prefetchItem(hash) }

    /// Prefetches the items of the overflow line that ``prefetchItem(_:)`` asked for. Takes no lock.
    @inlinable @inline(__always)
    package func prefetchOverflowItem(_ hash: UInt64) {
        shards[shardNumber(hash)].state.prefetchOverflowItem(hash)
    }

    /// A version larger than every one given before.
    package func newVersion() -> UInt64 { nextVersion.wrappingAdd(1, ordering: .relaxed).newValue }

    /// The version that was given last.
    var currentVersion: UInt64 {
        get { nextVersion.load(ordering: .relaxed) }
        set { nextVersion.store(newValue, ordering: .relaxed) }
    }

    /// Whether keys may have so many bytes: an item counts them in one byte.
    package static func allows(keyLength: Int) -> Bool { 1...250 ~= keyLength }

    /// Whether an item of these lengths can be, and is within `itemSizeMax`, by memcached's accounting of its own item.
    package func allows(keyLength: Int, valueLength: Int, clientFlags: UInt32) -> Bool {
        guard Self.allows(keyLength: keyLength) else { return false }
        let shape = ItemShape(keyLength: keyLength, valueLength: valueLength, clientFlags: clientFlags, expiry: 0)
        return shape.memcachedSize <= configuration.itemSizeMax
    }

    /// The bytes that items and index may use. Lowering it evicts at once.
    package var limitBytes: Int { budget.limitBytes }

    /// What items and index use now, in bytes.
    package var usedBytes: Int { budget.usedBytes }

    /// Changes the limit. A lower one evicts a little at once; ``trim(now:steps:)`` does the rest.
    package func setLimit(bytes: Int, now: UInt32) {
        budget.limitBytes = bytes
        _ = trim(now: now, steps: Self.inlineSteps)
    }

    /// Evicts down to the limit, at most `steps` segments; true when that is reached or nothing more can be had.
    package func trim(now: UInt32, steps: Int) -> Bool {
        for _ in 0..<steps {
            guard budget.isExceeded, reclaimAnywhere(now: now) else { return true }
        }
        return !budget.isExceeded
    }

    /// Segments that one command evicts at most for a lower limit.
    private static var inlineSteps: Int { 64 }
    /// Reclaims that one large item causes at most beyond its own size, when others take what it freed.
    private static var extraReclaims: Int { 1024 }

    /// Takes memory from the shards in turn until `bytes` are free, for a shard that cannot free so much by itself.
    /// False when nothing more can be had.
    package func makeRoom(bytes: Int, now: UInt32) -> Bool {
        guard charge(bytes, now: now) else { return false }
        refund(bytes)
        return true
    }

    /// Takes `bytes` of the budget, evicting for it piece by piece, so that what was freed is not taken by others
    /// meanwhile; false, and nothing taken, when that cannot be.
    func charge(_ bytes: Int, now: UInt32) -> Bool {
        guard bytes <= budget.limitBytes else { return false }
        var taken = 0
        var reclaims = 0
        let reclaimsMax = bytes / segmentBytes + Self.extraReclaims
        while taken < bytes {
            let piece = min(bytes - taken, segmentBytes)
            if budget.tryCharge(piece) {
                taken += piece
                continue
            }
            reclaims += 1
            guard reclaims <= reclaimsMax, reclaimAnywhere(now: now) else {
                budget.charge(-taken)
                return false
            }
        }
        return true
    }

    func refund(_ bytes: Int) { budget.charge(-bytes) }

    /// Takes `bytes` for a value on its way in; false when so many are on their way that the cache would be all theirs.
    func chargePrepared(_ bytes: Int, now: UInt32) -> Bool {
        let limit = max(budget.limitBytes / 4, configuration.itemSizeMax + segmentBytes)
        guard preparedBytes.wrappingAdd(bytes, ordering: .relaxed).newValue <= limit, charge(bytes, now: now) else {
            preparedBytes.wrappingSubtract(bytes, ordering: .relaxed)
            return false
        }
        return true
    }

    /// A value arrived, or will not.
    func endPrepared(_ bytes: Int) { preparedBytes.wrappingSubtract(bytes, ordering: .relaxed) }

    /// Returns what a flush dropped to the kernel; for a thread that may block.
    package func releaseDroppedMemory() {
        let segments = dropped.exchange([])
        for freed in segments { segmentMemory.free(freed) }
    }

    /// Lets huge pages map what has been wholly in use for some calls, up to `limit` of each of segments and index.
    ///
    /// Costs no memory. For a thread that may block, some times a second.
    package func collapsePages(limit: Int) {
        segmentMemory.pool.collapse(limit: limit)
        indexChunks.collapse(limit: limit)
    }

    /// Bytes of segments and index that huge pages map.
    package var hugePageBytes: Int {
        segmentMemory.pool.hugeBytes + indexChunks.hugeBytes
    }

    private func reclaimAnywhere(now: UInt32) -> Bool {
        for attempt in 0..<shards.count * 2 {
            let number = reclaimCursor.wrappingAdd(1, ordering: .relaxed).newValue & (shards.count - 1)
            let freed = withShard(number: number) { shard -> Int in
                let before = shard.chargedBytes
                _ = shard.dropSpare() || shard.reclaimOne(now: now, force: attempt >= shards.count)
                shard.dropSpare()
                return before - shard.chargedBytes
            }
            if freed > 0 { return true }
        }
        return false
    }

    /// Lets go of a pinned item's segment.
    package func unpin(_ token: UInt64) {
        withShard(number: Int(token >> 32)) { $0.unpin(slot: Int(token & 0xFFFF_FFFF)) }
    }

    /// Drops every item, shard by shard.
    package func removeAll() {
        for number in 0..<shards.count { withShard(number: number) { $0.removeAll() } }
    }

    /// Drops every item of the shards that have some: little work where there are few.
    package func removeItems() {
        for number in 0..<shards.count {
            withShard(number: number) { if $0.statistics.items > 0 { $0.removeAll() } }
        }
    }

    /// All shards' statistics added up.
    package func statistics() -> EngineStatistics {
        var total = EngineStatistics()
        for number in 0..<shards.count { withShard(number: number) { $0.addStatistics(to: &total) } }
        total.limitBytes = limitBytes
        total.usedBytes = usedBytes
        return total
    }

    /// Sets the counters (not the gauges) back to 0.
    package func resetStatistics() {
        for number in 0..<shards.count {
            withShard(number: number) { shard in
                var fresh = ShardStatistics()
                fresh.items = shard.statistics.items
                fresh.itemBytes = shard.statistics.itemBytes
                shard.statistics = fresh
            }
        }
    }

    /// Drops expired items of one shard, a segment under each hold of the lock. Returns how many segments it looked at.
    package func sweepExpired(shard number: Int, now: UInt32) -> Int {
        let count = withShard(number: number) { $0.segments.count }
        for slot in 1..<count { withShard(number: number) { $0.sweep(slot, now: now) } }
        return count - 1
    }

    /// Calls `body` for each item of one bucket of a shard, under the lock; false when the shard has no such bucket.
    package func forEachItem(shard number: Int, bucket: Int, _ body: (Item) -> Void) -> Bool {
        withShard(number: number) { shard in
            guard bucket < shard.index.bucketCount else { return false }
            shard.index.forEach(inBucket: UInt32(bucket)) { body(shard.item(at: $0)) }
            return true
        }
    }
}
