// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A growable array of plain values that one owner mutates in place: no copy-on-write, no reference counting.
@safe @usableFromInline
package struct Table<Element: BitwiseCopyable>: ~Copyable {
    /// Elements in the table.
    @usableFromInline var base: UnsafeMutablePointer<Element>
    @usableFromInline var capacity: Int
    @usableFromInline package private(set) var count: Int

    /// An empty table with room for `capacity` elements (at least 4).
    package init(capacity: Int) {
        self.capacity = max(capacity, 4)
        // SAFETY: freed in deinit; elements are trivial and need no initialisation beyond append.
        unsafe base = UnsafeMutablePointer<Element>.allocate(capacity: self.capacity)
        count = 0
    }

    deinit { unsafe base.deallocate() }

    /// Bytes that the storage takes.
    package var byteCount: Int { capacity * MemoryLayout<Element>.stride }

    /// Adds an element at the end. Allocates when the room is used up.
    package mutating func append(_ element: Element) {
        if count == capacity {
            let size = capacity * 2
            let fresh = UnsafeMutablePointer<Element>.allocate(capacity: size)
            // SAFETY: copies the `count` valid elements to larger storage before the old is freed.
            unsafe fresh.update(from: base, count: count)
            unsafe base.deallocate()
            unsafe base = fresh
            capacity = size
        }
        // SAFETY: count < capacity by the lines above.
        unsafe (base + count).initialize(to: element)
        count += 1
    }

    /// Forgets the elements and keeps the room.
    package mutating func removeAll() { count = 0 }

    /// Removes the last element and returns it; nil when there is none.
    package mutating func popLast() -> Element? {
        guard count > 0 else { return nil }
        count -= 1
        // SAFETY: the index was below count until this line.
        return unsafe base[count]
    }

    /// The element at `index`, in place; traps outside of the table.
    @inlinable
    package subscript(index: Int) -> Element {
        @inline(__always) unsafeAddress {
            precondition(index >= 0 && index < count, "index outside of the table")
            // SAFETY: in bounds by the line above.
            return unsafe UnsafePointer(base + index)
        }
        @inline(__always) unsafeMutableAddress {
            precondition(index >= 0 && index < count, "index outside of the table")
            // SAFETY: in bounds by the line above; self is borrowed exclusively.
            return unsafe base + index
        }
    }
}
