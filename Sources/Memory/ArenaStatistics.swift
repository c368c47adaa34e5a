// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Bytes of an arena: allocated by the program, in pages with allocations, and in pages kept for reuse.
package struct ArenaStatistics: Sendable {
    /// Bytes that the program asked for and holds.
    package let allocatedBytes: Int
    /// Bytes of the pages that these lie in.
    package let activeBytes: Int
    /// Bytes of free pages that the process keeps for reuse.
    package let dirtyBytes: Int
}

/// The process's memory as jemalloc knows it, in bytes.
package struct AllocatorStatistics: Sendable {
    /// Bytes that the program asked for and holds ("stats.allocated").
    package let allocatedBytes: Int
    /// Bytes of the pages that these lie in ("stats.active").
    package let activeBytes: Int
    /// Bytes of the allocator's own records ("stats.metadata").
    package let metadataBytes: Int
    /// Bytes of physical memory that the allocator's pages take, at most ("stats.resident").
    package let residentBytes: Int
    /// Bytes of the extents that active pages lie in ("stats.mapped").
    package let mappedBytes: Int
    /// Bytes of address space kept without memory behind it ("stats.retained").
    package let retainedBytes: Int
}
