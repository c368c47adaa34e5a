// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Memory

/// A large item on its way in: its header and key are written, its value is being received straight into place.
///
/// It belongs to whoever prepared it until ``CacheEngine/commit(_:_:key:_:now:)`` or ``CacheEngine/discard(_:)``: call one
/// of them, once.
package struct PreparedItem: Sendable {
    let block: MemoryBlock
    let shape: ItemShape
    let valueOffset: Int

    /// Where the value goes: all of it, without a line end.
    package var value: MemoryBlock { block.slice(valueOffset, shape.valueLength) }
}

extension CacheEngine {
    /// Makes room for a large item outside of any shard. Nil when the cache cannot free so much.
    package func prepare(key: Span<UInt8>, _ shape: ItemShape, now: UInt32) -> PreparedItem? {
        guard charge(shape.size, now: now) else { return nil }
        guard let block = itemArena.allocate(shape.size) else {
            refund(shape.size)
            return nil
        }
        shape.writeHeader(to: block, key: key, version: 0, now: now)
        let item = Item(block: block, location: 0)
        return PreparedItem(block: block, shape: shape, valueOffset: item.valueOffset)
    }

    /// Gives the memory of an item that is not to be stored back.
    package func discard(_ item: PreparedItem) {
        refund(item.shape.size)
        itemArena.free(item.block)
    }

    /// Stores a prepared item whose value has arrived. For the joining modes the value is copied behind or before the one
    /// that is there.
    package func commit(
        _ prepared: PreparedItem, _ hash: UInt64, key: Span<UInt8>, _ request: StoreRequest, now: UInt32
    ) -> StoreResult {
        let (result, kept) = withShard(hash) { shard -> (StoreResult, Bool) in
            shard.commit(prepared, hash, key: key, request, now: now)
        }
        if !kept { discard(prepared) }
        return result
    }
}

extension ShardState {
    /// The outcome, and whether the prepared block became part of the shard.
    mutating func commit(
        _ prepared: PreparedItem, _ hash: UInt64, key: Span<UInt8>, _ request: StoreRequest, now: UInt32
    ) -> (StoreResult, Bool) {
        let old = find(hash, key, now: now)
        let decision = decide(request, old)
        switch decision {
        case .refuse(let outcome): return (refuse(outcome, request, old, now: now), false)
        case .join:
            let result = prepared.value.withSpan { join(hash, key: key, value: $0, request, now: now) }
            return (result, false)
        case .put, .putStale:
            var item = Item(block: prepared.block, location: adoptLarge(prepared.block, toMain: false))
            item.setVersion(request.version)
            item.setAccessTime(now: now)
            if case .putStale = decision, let old {
                item.write(item.word | Item.Mark.stale | (old.word & Item.Mark.tokenSent))
                if item.word & Item.Mark.hasExpiry != 0 { item.block.store(old.expiry, at: 16) }
            }
            link(item, hash, replacing: old)
            var result = StoreResult(.stored)
            result.version = request.version
            result.valueLength = prepared.shape.valueLength
            result.compared = old != nil && request.mode == .compareAndSet
            return (result, true)
        }
    }
}
