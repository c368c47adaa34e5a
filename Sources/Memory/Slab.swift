// Martlet
// SPDX-License-Identifier: Apache-2.0

// SAFETY (file): chunk `n` is allocated and initialised whole when `count` reaches it, never moves, and is freed with
// the slab; every access is checked against `count`. The stack of free indices has room for every index.

/// Elements that are taken and given back by index, for one thread: their addresses never change, and what was made
/// once is used again.
///
/// Grows by chunks of 256 and never shrinks; taking and giving back allocate nothing else. What an element holds when
/// it is taken again is what its last user left in it.
@safe @usableFromInline
package struct Slab<Element: ~Copyable>: ~Copyable {
    @inlinable static var shift: Int { 8 }
    @inlinable static var perChunk: Int { 1 << shift }

    @usableFromInline let chunks: UnsafeMutablePointer<UnsafeMutablePointer<Element>>
    /// Elements that exist, and how many of them are free.
    @usableFromInline let counts: UnsafeMutablePointer<(made: Int, free: Int)>
    @usableFromInline let free: UnsafeMutablePointer<Int32>
    /// The most elements there can be.
    @usableFromInline package let limit: Int
    @usableFromInline let make: (Int) -> Element

    /// A slab of at most `limit` elements (rounded up to whole chunks), each made by `make` from its index when it is
    /// first needed.
    package init(limit: Int, _ make: @escaping (Int) -> Element) {
        let chunkCount = (max(limit, 1) + Self.perChunk - 1) / Self.perChunk
        self.limit = chunkCount * Self.perChunk
        self.make = make
        precondition(self.limit <= Int(Int32.max), "a slab counts in 32 bits")
        unsafe chunks = .allocate(capacity: chunkCount)
        unsafe free = .allocate(capacity: self.limit)
        unsafe counts = .allocate(capacity: 1)
        unsafe counts.initialize(to: (0, 0))
    }

    deinit {
        let made = unsafe counts.pointee.made
        for chunk in 0..<(made >> Self.shift) {
            unsafe chunks[chunk].deinitialize(count: Self.perChunk)
            unsafe chunks[chunk].deallocate()
        }
        unsafe chunks.deallocate()
        unsafe free.deallocate()
        unsafe counts.deallocate()
    }

    /// Elements that exist, taken or not.
    @inlinable package var count: Int { @inline(__always) get { unsafe counts.pointee.made } }
    /// Elements that are taken.
    @inlinable package var takenCount: Int { unsafe counts.pointee.made &- counts.pointee.free }

    /// The index of a free element; nil when all that there can be are taken.
    @inlinable @inline(__always)
    package func take() -> Int? {
        if unsafe counts.pointee.free == 0, !grow() { return nil }
        unsafe counts.pointee.free &-= 1
        return unsafe Int(free[counts.pointee.free])
    }

    /// Takes the element at `index` back.
    @inlinable @inline(__always)
    package func give(_ index: Int) {
        precondition(unsafe index >= 0 && index < count && counts.pointee.free < count, "given back what was not taken")
        unsafe free[counts.pointee.free] = Int32(truncatingIfNeeded: index)
        unsafe counts.pointee.free &+= 1
    }

    /// Makes elements until there is one at `index`, for users that count for themselves; false beyond the limit.
    package func reach(_ index: Int) -> Bool {
        while index >= count {
            guard grow() else { return false }
        }
        return true
    }

    @usableFromInline @inline(never)
    func grow() -> Bool {
        let made = count
        guard made < limit else { return false }
        let chunk = UnsafeMutablePointer<Element>.allocate(capacity: Self.perChunk)
        for offset in 0..<Self.perChunk { unsafe (chunk + offset).initialize(to: make(made + offset)) }
        unsafe (chunks + (made >> Self.shift)).initialize(to: chunk)
        // The lowest indices go first.
        for offset in (0..<Self.perChunk).reversed() {
            unsafe free[counts.pointee.free] = Int32(made + offset)
            unsafe counts.pointee.free += 1
        }
        unsafe counts.pointee.made = made + Self.perChunk
        return true
    }

    /// The element at `index`, in place; traps where there is none.
    @inlinable
    package subscript(index: Int) -> Element {
        @inline(__always) unsafeAddress {
            precondition(index >= 0 && index < count, "index outside of the slab")
            return unsafe UnsafePointer(chunks[index &>> Self.shift] + (index & (Self.perChunk &- 1)))
        }
        @inline(__always) nonmutating unsafeMutableAddress {
            precondition(index >= 0 && index < count, "index outside of the slab")
            return unsafe chunks[index &>> Self.shift] + (index & (Self.perChunk &- 1))
        }
    }
}
