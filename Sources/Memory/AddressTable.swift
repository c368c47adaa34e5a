// Martlet
// SPDX-License-Identifier: Apache-2.0

public import CPlatform
public import Synchronization

/// A growable list of block addresses that one owner changes and any thread may read as hints, without a lock.
///
/// A reader gets an address that was in the list at some time; it may only be prefetched, or dereferenced where the
/// owner never frees what it listed. Storage that growth replaced is kept until the table ends, so a late reader finds
/// it.
@safe @usableFromInline
package struct AddressTable: ~Copyable, @unchecked Sendable {
    // SAFETY (Sendable): the owner changes it under its lock; readers use the atomic and relaxed loads only.
    private var base: UnsafeMutablePointer<UInt64>
    /// The storage: its capacity, then the addresses. Not the first field: at the address of a variable that is
    /// modified, the thread sanitizer notes a write.
    @usableFromInline let published: Atomic<UInt>
    private var capacity: Int
    private var retired: [UnsafeMutablePointer<UInt64>] = unsafe []
    /// Addresses in the list.
    package private(set) var count = 0

    /// An empty list with room for `capacity` addresses (at least 8).
    package init(capacity: Int) {
        self.capacity = max(capacity, 8)
        // SAFETY: freed in deinit, and not before.
        unsafe base = Self.makeStorage(self.capacity)
        published = unsafe Atomic(UInt(bitPattern: base))
    }

    deinit {
        // SAFETY: what was allocated is `base` or among the retired, once; with the table, its readers are gone.
        unsafe base.deallocate()
        unsafe retired.forEach { unsafe $0.deallocate() }
    }

    private static func makeStorage(_ capacity: Int) -> UnsafeMutablePointer<UInt64> {
        // SAFETY: all `capacity + 1` words are initialised; the first one is there.
        let storage = UnsafeMutablePointer<UInt64>.allocate(capacity: capacity + 1)
        unsafe storage.initialize(repeating: 0, count: capacity + 1)
        unsafe storage[0] = UInt64(capacity)
        return unsafe storage
    }

    /// Adds a block's address at the end.
    package mutating func append(_ block: MemoryBlock) {
        if count == capacity {
            let fresh = unsafe Self.makeStorage(capacity * 2)
            // SAFETY: the old storage has `count` addresses behind its capacity, the new one has room for more.
            unsafe (fresh + 1).update(from: base + 1, count: count)
            unsafe retired.append(base)
            unsafe base = fresh
            capacity *= 2
            published.store(UInt(bitPattern: fresh), ordering: .releasing)
        }
        count += 1
        set(count - 1, block)
    }

    /// Puts another block's address at a place of the list.
    package mutating func set(_ index: Int, _ block: MemoryBlock) {
        precondition(index >= 0 && index < count, "index outside of the table")
        // SAFETY: in bounds by the line above, one past the capacity word.
        unsafe martlet_store64_relaxed(base + 1 + index, UInt64(UInt(bitPattern: block.unsafeBase)))
    }

    /// The address at `index` as some thread left it, 0 if there is none yet. From any thread.
    @inlinable @inline(__always)
    package func hint(_ index: Int) -> UInt64 {
        let address = published.load(ordering: .acquiring)
        // SAFETY: published storage lives as long as the table, and starts with its capacity, which never changes.
        guard let storage = unsafe UnsafePointer<UInt64>(bitPattern: address) else { return 0 }
        guard index >= 0, index < Int(truncatingIfNeeded: unsafe storage.pointee) else { return 0 }
        return unsafe martlet_load64_relaxed(storage + 1 + index)
    }
}

/// Asks the processor for the cache line at an address that may be anything.
@inlinable @inline(__always)
package func prefetchHint(_ address: UInt64) {
    // SAFETY: a prefetch has no effect but on caches, whatever the address.
    unsafe martlet_prefetch(UnsafeRawPointer(bitPattern: UInt(address)))
}

/// Reads 8 bytes at an address of memory that is never freed while hints to it are used.
@inlinable @inline(__always)
package func loadHint64(_ address: UInt64) -> UInt64 {
    // SAFETY: the caller read a non-zero address of a block that lives as long as its table (index chunks).
    guard let pointer = unsafe UnsafeRawPointer(bitPattern: UInt(address)) else { return 0 }
    return unsafe martlet_load64_relaxed(pointer)
}

/// Reads 4 bytes; see ``loadHint64(_:)``.
@inlinable @inline(__always)
package func loadHint32(_ address: UInt64) -> UInt32 {
    // SAFETY: as loadHint64.
    guard let pointer = unsafe UnsafeRawPointer(bitPattern: UInt(address)) else { return 0 }
    return unsafe martlet_load32_relaxed(pointer)
}
