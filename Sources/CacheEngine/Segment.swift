// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory

/// A run of items in one allocation, or one large item on its own; written from the front, reclaimed as a whole.
@usableFromInline
struct Segment: BitwiseCopyable {
    @usableFromInline enum Place: UInt8, BitwiseCopyable {
        /// Not in use; `next` links the free slots.
        case free
        /// In the queue of new items.
        case small
        /// In the queue of items that were read.
        case main
        /// Out of the queues, kept while somebody sends from it.
        case detached
    }

    @usableFromInline var block: MemoryBlock
    /// Bytes written, from the front.
    @usableFromInline var usedBytes: UInt32 = 0
    /// Bytes of items that the index still reaches.
    @usableFromInline var liveBytes: UInt32 = 0
    @usableFromInline var liveItems: UInt32 = 0
    /// No item of the segment expires before this second; 0 if none expires.
    @usableFromInline var earliestExpiry: UInt32 = 0
    @usableFromInline var next: UInt32 = 0
    @usableFromInline var previous: UInt32 = 0
    /// Senders that read from the segment without the shard's lock.
    @usableFromInline var pins: UInt32 = 0
    @usableFromInline var place: Place = .free
    @usableFromInline var isLarge = false

    @inlinable
    init(block: MemoryBlock) { self.block = block }

    mutating func noteExpiry(_ expiry: UInt32) {
        if expiry != 0, earliestExpiry == 0 || expiry < earliestExpiry { earliestExpiry = expiry }
    }
}

/// A FIFO of segments by slot number, oldest first.
struct SegmentQueue: BitwiseCopyable {
    var head: UInt32 = 0
    var tail: UInt32 = 0
    /// Bytes that the queue's segments take.
    var byteCount = 0
}

extension SegmentQueue {
    mutating func append(_ slot: UInt32, _ segments: inout Table<Segment>) {
        let index = Int(slot)
        segments[index].next = 0
        segments[index].previous = tail
        if tail == 0 { head = slot } else { segments[Int(tail)].next = slot }
        tail = slot
        byteCount += segments[index].block.count
    }

    mutating func remove(_ slot: UInt32, _ segments: inout Table<Segment>) {
        let (before, after) = (segments[Int(slot)].previous, segments[Int(slot)].next)
        if before == 0 { head = after } else { segments[Int(before)].next = after }
        if after == 0 { tail = before } else { segments[Int(after)].previous = before }
        byteCount -= segments[Int(slot)].block.count
    }
}
