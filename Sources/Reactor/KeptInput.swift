// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

// SAFETY (file): a block belongs to one KeptInput or to the pool's list, never both, and `start + count <= capacity`
// holds; every method that writes or copies checks against it.

/// Input of one connection that its handler did not consume, in memory of its ``InputPool``.
@safe
struct KeptInput: ~Copyable {
    private var base: UnsafeMutableRawPointer?
    private var start = 0
    private var capacity = 0
    /// Bytes that wait.
    private(set) var count = 0

    /// The waiting bytes; nil when there are none.
    var unsafeStart: UnsafeMutableRawPointer? { unsafe base.map { unsafe $0 + start } }

    /// Where the next bytes go, and how many fit.
    var unsafeFree: (UnsafeMutableRawPointer, Int)? {
        // SAFETY: the sum lies in the allocation or at its end.
        unsafe base.map { unsafe ($0 + start + count, capacity - start - count) }
    }

    /// Says that `length` bytes were written to `unsafeFree`.
    mutating func wrote(_ length: Int) {
        precondition(length >= 0 && length <= capacity - start - count)
        count += length
    }

    /// Drops the first `length` bytes, and the memory with the last of them.
    mutating func consume(_ length: Int, _ pool: inout InputPool) {
        precondition(length >= 0 && length <= count)
        start += length
        count -= length
        if count == 0 { removeAll(&pool) }
    }

    /// Replaces the content with `length` bytes at `source`, which may not be inside this buffer.
    mutating func replace(_ source: UnsafeMutableRawPointer, _ length: Int, _ pool: inout InputPool) {
        if length > capacity {
            removeAll(&pool)
            unsafe (base, capacity) = pool.take(length)
        }
        start = 0
        count = length
        // SAFETY: the allocation has room for `length` bytes by the lines above, and the caller vouches for the source.
        if let base = unsafe base { unsafe _ = memcpy(base, source, length) }
    }

    /// Makes room for `wanted` bytes in all, of which `count` are there.
    mutating func grow(to wanted: Int, _ pool: inout InputPool) {
        guard wanted > capacity - start else { return }
        guard wanted > capacity, let old = unsafe base else { return compact() }
        let (fresh, freshCapacity) = unsafe pool.take(wanted)
        // SAFETY: the new allocation is larger than `count`, and both live.
        unsafe _ = memcpy(fresh, old + start, count)
        unsafe pool.give(old, capacity)
        unsafe base = fresh
        capacity = freshCapacity
        start = 0
    }

    private mutating func compact() {
        guard start > 0, let base = unsafe base else { return }
        // SAFETY: both ranges lie in the allocation; memmove allows overlap.
        unsafe _ = memmove(base, base + start, count)
        start = 0
    }

    /// Drops everything and gives the memory back.
    mutating func removeAll(_ pool: inout InputPool) {
        if let old = unsafe base { unsafe pool.give(old, capacity) }
        unsafe base = nil
        start = 0
        capacity = 0
        count = 0
    }
}

/// Memory for unconsumed input: blocks of powers of two, a few of each size kept for the next to ask.
@safe
struct InputPool: ~Copyable {
    private static var smallest: Int { 9 }
    private static var largestKept: Int { 18 }
    /// How many bytes of each size are kept, at least two blocks.
    private static var keptBytesPerSize: Int { 128 * 1024 }

    private var spare: [[UnsafeMutableRawPointer]]
    /// Bytes in use.
    private(set) var lentBytes = 0

    init() {
        unsafe spare = (Self.smallest...Self.largestKept).map { size in
            var list: [UnsafeMutableRawPointer] = unsafe []
            unsafe list.reserveCapacity(Self.keptLimit(size))
            return unsafe list
        }
    }

    deinit {
        for size in unsafe spare.indices {
            for index in unsafe spare[size].indices { unsafe spare[size][index].deallocate() }
        }
    }

    private static func keptLimit(_ size: Int) -> Int { max(2, keptBytesPerSize >> size) }

    /// A block of at least `count` bytes and its size. Allocates only when no spare one is there.
    mutating func take(_ count: Int) -> (UnsafeMutableRawPointer, Int) {
        let size = max(Self.smallest, Int.bitWidth - max(count - 1, 1).leadingZeroBitCount)
        let bytes = 1 << size
        lentBytes += bytes
        if size <= Self.largestKept, let block = unsafe spare[size - Self.smallest].popLast() {
            return unsafe (block, bytes)
        }
        return (UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 16), bytes)
    }

    /// Takes a block of `bytes` bytes back.
    mutating func give(_ block: UnsafeMutableRawPointer, _ bytes: Int) {
        lentBytes -= bytes
        let size = bytes.trailingZeroBitCount
        if size <= Self.largestKept, unsafe spare[size - Self.smallest].count < Self.keptLimit(size) {
            unsafe spare[size - Self.smallest].append(block)
        } else {
            unsafe block.deallocate()
        }
    }
}
