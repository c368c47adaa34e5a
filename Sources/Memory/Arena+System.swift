// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Synchronization

/// The twin of Arena.swift for builds with a sanitizer, which must see every allocation: blocks come from the system's
/// malloc, and an arena counts what it gave. See `linksAllocator` in Package.swift.
package struct Arena: Sendable {
    /// What an arena holds now, in bytes.
    private final class Account: Sendable {
        let allocatedBytes = Atomic<Int>(0)
    }

    private let account = Account()

    /// Creates an arena. The system decides by itself when freed pages leave the process.
    package init(decayMilliseconds: Int) {}

    /// Allocates `byteCount` bytes (not initialised), or nil when the system has no more.
    ///
    /// `alignment` is a power of two; without one, 64 bytes. `byteCount` is a multiple of one that is named.
    package func allocate(_ byteCount: Int, alignment: Int? = nil) -> MemoryBlock? {
        precondition(byteCount > 0)
        // SAFETY: the size is a multiple of the alignment; a null result is passed on as nil.
        guard let base = unsafe aligned_alloc(alignment ?? Self.alignment, usableSize(byteCount)) else { return nil }
        account.allocatedBytes.add(usableSize(byteCount), ordering: .relaxed)
        return unsafe MemoryBlock(unsafeBase: base, count: byteCount)
    }

    private static var alignment: Int { 64 }

    /// Frees a block that this arena's `allocate` gave. The block must not be used again.
    package func free(_ block: MemoryBlock, alignment: Int? = nil) {
        account.allocatedBytes.subtract(usableSize(block.count), ordering: .relaxed)
        // SAFETY: the caller hands back what allocate returned, whole and once.
        unsafe Glibc.free(block.unsafeBase)
    }

    /// How many bytes an allocation of `byteCount` really takes.
    package func usableSize(_ byteCount: Int) -> Int { (byteCount + Self.alignment - 1) & ~(Self.alignment - 1) }

    /// What the arena holds now, in bytes.
    package var statistics: ArenaStatistics {
        let bytes = account.allocatedBytes.load(ordering: .relaxed)
        return ArenaStatistics(allocatedBytes: bytes, activeBytes: bytes, dirtyBytes: 0)
    }
}

extension AllocatorStatistics {
    /// Zeros: a sanitizer's allocator keeps no such accounts.
    package static func current() -> AllocatorStatistics {
        AllocatorStatistics(
            allocatedBytes: 0, activeBytes: 0, metadataBytes: 0, residentBytes: 0, mappedBytes: 0, retainedBytes: 0)
    }
}

/// Does nothing: an arena's account is always fresh.
package func refreshStatistics() {}

/// Whether ``threadAllocatedBytes()`` counts in this build: jemalloc does, a sanitizer's allocator does not.
package let countsThreadAllocations = false

/// 0: nobody counts.
package func threadAllocatedBytes() -> UInt64 { 0 }
