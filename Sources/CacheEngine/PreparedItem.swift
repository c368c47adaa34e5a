// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Memory

/// A large item on its way in: its header and key are written, its value is being received straight into place.
///
/// It belongs to whoever prepared it until ``CacheEngine/commit(_:_:key:_:now:)`` or ``CacheEngine/discard(_:)``: call
/// one of them, once.
package struct PreparedItem: Sendable {
    let block: MemoryBlock
    let shape: ItemShape
    let valueOffset: Int
    /// What the item takes of the budget.
    var chargedBytes: Int { block.count }

    /// Where the value goes: all of it, without a line end.
    package var value: MemoryBlock { block.slice(valueOffset, shape.valueLength) }
}

extension CacheEngine {
    /// Makes room for a large item outside of any shard. Nil when the cache cannot free so much, or so many values are
    /// on their way that it must not.
    package func prepare(key: Span<UInt8>, _ shape: ItemShape, now: UInt32) -> PreparedItem? {
        var shape = shape
        shape.reservesExpiry = true
        let bytes = itemArena.usableSize(shape.size)
        guard chargePrepared(bytes, now: now) else { return nil }
        guard let block = itemArena.allocate(bytes) else {
            endPrepared(bytes)
            refund(bytes)
            return nil
        }
        shape.writeHeader(to: block, key: key, version: 0, now: now)
        let item = Item(block: block, location: 0)
        return PreparedItem(block: block, shape: shape, valueOffset: item.valueOffset)
    }

    /// Gives the memory of an item that is not to be stored back.
    package func discard(_ item: PreparedItem) {
        endPrepared(item.chargedBytes)
        refund(item.chargedBytes)
        itemArena.free(item.block)
    }

    /// Stores a prepared item whose value has arrived. For the joining modes the value is copied behind or before the
    /// one that is there.
    package func commit(
        _ prepared: PreparedItem, _ hash: UInt64, key: Span<UInt8>, _ request: StoreRequest, now: UInt32
    ) -> StoreResult {
        var (result, kept) = withShard(hash) { $0.commit(prepared, hash, key: key, request, now: now) }
        if result.outcome == .outOfMemory, makeRoom(bytes: result.neededBytes + segmentBytes, now: now) {
            (result, kept) = withShard(hash) { $0.commit(prepared, hash, key: key, request, now: now) }
        }
        if kept { endPrepared(prepared.chargedBytes) } else { discard(prepared) }
        return result
    }
}

extension ShardState {
    /// The outcome, and whether the prepared block became part of the shard.
    mutating func commit(
        _ prepared: PreparedItem, _ hash: UInt64, key: Span<UInt8>, _ request: StoreRequest, now: UInt32
    ) -> (StoreResult, Bool) {
        while !hasFreeSlot {
            guard reclaimOne(now: now, force: true) else { return (StoreResult(.outOfMemory), false) }
        }
        let old = find(hash, key, now: now)
        let decision = decide(request, old)
        switch decision {
        case .refuse(let outcome): return (refuse(outcome, request, old, now: now), false)
        case .join:
            let result = prepared.value.withSpan { join(hash, key: key, value: $0, request, now: now) }
            return (result, false)
        case .put, .putStale:
            let toMain = old.map { segments[slot(of: $0.location)].place == .main } ?? ghost.take(hash)
            let location = adoptLarge(prepared.block, size: prepared.shape.size, toMain: toMain)
            var item = Item(block: prepared.block, location: location)
            item.setVersion(request.version)
            item.setAccessTime(now: now)
            var expiry = request.expiry
            if case .putStale = decision, let old {
                item.write(item.word | Item.Mark.stale | (old.word & Item.Mark.tokenSent))
                expiry = old.expiry
            }
            item.block.store(expiry, at: 16)
            link(item, hash, replacing: old)
            var result = StoreResult(.stored)
            result.version = request.version
            result.valueLength = prepared.shape.valueLength
            result.compared = old != nil && request.mode == .compareAndSet
            return (result, true)
        }
    }
}
