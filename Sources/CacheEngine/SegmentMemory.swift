// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Where segments come from: those of one size out of a pool, and those of one large item each as allocations.
struct SegmentMemory: Sendable {
    /// A segment's memory that nobody uses any longer.
    struct Freed {
        let block: MemoryBlock
        let isLarge: Bool
    }

    let arena: Arena
    let pool: ChunkPool

    init(arena: Arena, segmentBytes: Int) {
        self.arena = arena
        pool = ChunkPool(arena: arena, chunkBytes: segmentBytes)
    }

    /// A segment for many items (not initialised), or nil when the system has no more memory.
    func allocate() -> MemoryBlock? { pool.take() }

    /// A segment for one item of at least `byteCount` bytes (not initialised), or nil. See ``largeSize(_:)``.
    func allocateLarge(_ byteCount: Int) -> MemoryBlock? { arena.allocate(byteCount) }

    /// Bytes that a segment for one item of `byteCount` bytes takes.
    func largeSize(_ byteCount: Int) -> Int { arena.usableSize(byteCount) }

    /// Gives a segment's memory back to the kernel.
    func free(_ freed: Freed) {
        if freed.isLarge { arena.free(freed.block) } else { pool.give(freed.block) }
    }
}
