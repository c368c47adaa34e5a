// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CJemalloc

/// A jemalloc arena of one purpose, so that what the purpose holds can be told exactly.
///
/// Memory comes straight from the arena, past the per-thread caches: segments and index chunks are large and few.
/// Safe to use from any thread. Source: jemalloc(3), "arena.<i>" and "stats.arenas.<i>".
package struct Arena: Sendable {
    private let index: UInt32

    /// Creates an arena. `decayMilliseconds` is how long freed pages stay with the process for reuse: 0 returns them to
    /// the kernel at once, -1 keeps them.
    package init(decayMilliseconds: Int) {
        var created: UInt32 = 0
        var size = MemoryLayout<UInt32>.size
        // SAFETY: "arenas.create" writes one unsigned; the pointers are of locals alive for the call.
        let code = unsafe mallctl("arenas.create", &created, &size, nil, 0)
        precondition(code == 0, "jemalloc refused to create an arena")
        index = created
        var decay = decayMilliseconds
        for kind in ["dirty_decay_ms", "muzzy_decay_ms"] {
            // SAFETY: "arena.<i>.*_decay_ms" reads one ssize_t from a local alive for the call.
            unsafe _ = mallctl("arena.\(created).\(kind)", nil, nil, &decay, MemoryLayout<Int>.size)
        }
    }

    /// MALLOCX_ARENA, MALLOCX_TCACHE_NONE and MALLOCX_LG_ALIGN, spelled out: the macros are not importable.
    ///
    /// Blocks of whole pages start on a page. jemalloc spreads the starts of less aligned ones over a page that it adds
    /// to each, which would be touched, and so cost 6% of a 64 KiB segment.
    private func flags(_ byteCount: Int, _ alignment: Int?) -> Int32 {
        let alignment = alignment ?? (byteCount >= Self.pagedBytes ? 4096 : 64)
        return Int32(bitPattern: (index &+ 1) << 20 | 1 << 8 | UInt32(alignment.trailingZeroBitCount))
    }

    /// From here on jemalloc hands out whole pages.
    private static var pagedBytes: Int { 16 << 10 }

    /// Allocates `byteCount` bytes (not initialised), or nil when the system has no more.
    ///
    /// `alignment` is a power of two; without one, 64 bytes, and a page from 16 KiB on.
    package func allocate(_ byteCount: Int, alignment: Int? = nil) -> MemoryBlock? {
        precondition(byteCount > 0)
        // SAFETY: a null result is passed on as nil.
        guard let base = unsafe mallocx(byteCount, flags(byteCount, alignment)) else { return nil }
        return unsafe MemoryBlock(unsafeBase: base, count: byteCount)
    }

    /// Frees a block that this arena's `allocate` gave, for the same `alignment`. The block must not be used again.
    package func free(_ block: MemoryBlock, alignment: Int? = nil) {
        // SAFETY: the caller hands back what allocate returned, whole and once; the size is the one asked for.
        unsafe sdallocx(block.unsafeBase, block.count, flags(block.count, alignment))
    }

    /// How many bytes an allocation of `byteCount` really takes.
    package func usableSize(_ byteCount: Int) -> Int { nallocx(byteCount, flags(byteCount, nil)) }

    /// What the arena holds now, in bytes; `refreshStatistics()` decides how fresh.
    package var statistics: ArenaStatistics {
        ArenaStatistics(
            allocatedBytes: readCounter("stats.arenas.\(index).small.allocated")
                + readCounter("stats.arenas.\(index).large.allocated"),
            activeBytes: readCounter("stats.arenas.\(index).pactive") * 4096,
            dirtyBytes: readCounter("stats.arenas.\(index).pdirty") * 4096)
    }
}

extension AllocatorStatistics {
    /// Takes a fresh reading. Costs microseconds: for statistics, not for every request.
    package static func current() -> AllocatorStatistics {
        refreshStatistics()
        return AllocatorStatistics(
            allocatedBytes: readCounter("stats.allocated"), activeBytes: readCounter("stats.active"),
            metadataBytes: readCounter("stats.metadata"), residentBytes: readCounter("stats.resident"),
            mappedBytes: readCounter("stats.mapped"), retainedBytes: readCounter("stats.retained"))
    }
}

/// Makes jemalloc take a new snapshot of its counters.
package func refreshStatistics() {
    var epoch: UInt64 = 1
    // SAFETY: "epoch" reads one 64-bit number from a local alive for the call.
    unsafe _ = mallctl("epoch", nil, nil, &epoch, MemoryLayout<UInt64>.size)
}

/// Whether ``threadAllocatedBytes()`` counts in this build: jemalloc does, a sanitizer's allocator does not.
package let countsThreadAllocations = true

/// Bytes that this thread ever allocated, by jemalloc's own count; what was freed since stays in the figure.
///
/// A test that runs an operation a thousand times and finds the figure unchanged has shown that it allocates nothing.
package func threadAllocatedBytes() -> UInt64 {
    var bytes: UInt64 = 0
    var size = MemoryLayout<UInt64>.size
    // SAFETY: "thread.allocated" writes one 64-bit number to a local alive for the call.
    unsafe _ = mallctl("thread.allocated", &bytes, &size, nil, 0)
    return bytes
}

private func readCounter(_ name: String) -> Int {
    var value = 0
    var size = MemoryLayout<Int>.size
    // SAFETY: these statistics are size_t; a name unknown to jemalloc leaves the zero.
    unsafe _ = mallctl(name, &value, &size, nil, 0)
    return value
}
