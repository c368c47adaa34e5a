// Martlet
// SPDX-License-Identifier: Apache-2.0

public import CPlatform
public import Synchronization

/// A growable list of block addresses that one owner changes and any thread may read as hints, without a lock.
///
/// A reader gets an address that was in the list at some time; it may only be prefetched, or dereferenced where the
/// owner never frees what it listed. Storage that growth replaced is kept until the table ends, so a late reader finds
/// it. Most blocks of a table have the same size; the owner reads those back from the list, whose cache line the hints
/// brought, rather than from a larger table of its own.
@safe @usableFromInline
package struct AddressTable: ~Copyable, @unchecked Sendable {
    // SAFETY (Sendable): the owner changes it under its lock; readers use the atomic and relaxed loads only.
    private var base: UnsafeMutablePointer<UInt64>
    /// The storage's address, which is a multiple of 64, and in its low bits the binary logarithm of its capacity. Not
    /// the first field: at the address of a variable that is modified, the thread sanitizer notes a write.
    @usableFromInline let published: Atomic<UInt>
    private var capacity: Int
    private var retired: [UnsafeMutablePointer<UInt64>] = unsafe []
    /// Bytes of a block of the usual size.
    @usableFromInline let blockBytes: Int
    /// Addresses in the list.
    @usableFromInline package private(set) var count = 0

    /// An empty list with room for `capacity` addresses (at least 8), most of them of blocks of `blockBytes`. Every
    /// block's address is even.
    package init(capacity: Int, blockBytes: Int) {
        self.capacity = 1 << (Int.bitWidth - (max(capacity, 8) - 1).leadingZeroBitCount)
        self.blockBytes = blockBytes
        // SAFETY: freed in deinit, and not before.
        unsafe base = Self.makeStorage(self.capacity)
        published = unsafe Atomic(Self.word(base, self.capacity))
    }

    deinit {
        // SAFETY: what was allocated is `base` or among the retired, once; with the table, its readers are gone.
        unsafe base.deallocate()
        unsafe retired.forEach { unsafe $0.deallocate() }
    }

    private static func makeStorage(_ capacity: Int) -> UnsafeMutablePointer<UInt64> {
        // SAFETY: all `capacity` words are initialised.
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: capacity * 8, alignment: 64)
        let storage = unsafe bytes.bindMemory(to: UInt64.self, capacity: capacity)
        unsafe storage.initialize(repeating: 0, count: capacity)
        return unsafe storage
    }

    private static func word(_ storage: UnsafeMutablePointer<UInt64>, _ capacity: Int) -> UInt {
        UInt(bitPattern: storage) | UInt(capacity.trailingZeroBitCount)
    }

    /// Adds a block's address at the end.
    package mutating func append(_ block: MemoryBlock) {
        if count == capacity {
            let fresh = unsafe Self.makeStorage(capacity * 2)
            // SAFETY: the old storage has `count` addresses, the new one has room for more.
            unsafe fresh.update(from: base, count: count)
            unsafe retired.append(base)
            unsafe base = fresh
            capacity *= 2
            unsafe published.store(Self.word(fresh, capacity), ordering: .releasing)
        }
        count += 1
        set(count - 1, block)
    }

    /// Puts another block's address at a place of the list.
    package mutating func set(_ index: Int, _ block: MemoryBlock) {
        precondition(index >= 0 && index < count, "index outside of the table")
        let address = unsafe UInt64(UInt(bitPattern: block.unsafeBase))
        precondition(address & 1 == 0, "a block at an odd address")
        // SAFETY: in bounds by the line above.
        unsafe martlet_store64_relaxed(base + index, block.count == blockBytes ? address : address | 1)
    }

    /// The block at `index`, if it is one of the usual size. For the owner.
    @inlinable @inline(__always)
    package func usualBlock(_ index: Int) -> MemoryBlock? {
        precondition(index >= 0 && index < count, "index outside of the table")
        let storage = published.load(ordering: .relaxed) & ~63
        // SAFETY: the storage that is published last has `count` words; a word without a mark is the address of a block
        // of `blockBytes` that the owner put there and keeps.
        guard let words = unsafe UnsafePointer<UInt64>(bitPattern: storage) else { return nil }
        let address = unsafe words[index]
        guard address & 1 == 0, let start = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address)) else {
            return nil
        }
        return unsafe MemoryBlock(unsafeBase: start, count: blockBytes)
    }

    /// The address at `index` as some thread left it, 0 if there is none yet; odd where the block is not of the usual
    /// size. From any thread.
    @inlinable @inline(__always)
    package func hint(_ index: Int) -> UInt64 {
        let word = published.load(ordering: .acquiring)
        guard index >= 0, UInt(bitPattern: index) &>> (word & 63) == 0 else { return 0 }
        // SAFETY: published storage lives as long as the table and has the capacity that the word says.
        guard let storage = unsafe UnsafePointer<UInt64>(bitPattern: word & ~63) else { return 0 }
        return unsafe martlet_load64_relaxed(storage + index)
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
