// Martlet
// SPDX-License-Identifier: Apache-2.0

/// An array of noncopyable elements whose length never changes, cache-line aligned, with stable element addresses.
///
/// Indexing is bounds-checked. An element may be reached from several threads: what guards it (a lock beside it, one
/// owning thread) is the user's rule, as with any memory that threads share.
@safe @usableFromInline
package struct FixedArray<Element: ~Copyable>: ~Copyable, @unchecked Sendable {
    // SAFETY (Sendable): the storage never moves; access to an element is guarded as its user documents.
    /// Elements in the array.
    @usableFromInline let base: UnsafeMutablePointer<Element>
    @usableFromInline package let count: Int

    /// Creates `count` elements, each made by `make` from its index.
    package init(count: Int, _ make: (Int) -> Element) {
        self.count = count
        let stride = max(MemoryLayout<Element>.stride, 1)
        let raw = UnsafeMutableRawPointer.allocate(byteCount: max(count, 1) * stride, alignment: 128)
        // SAFETY: freshly allocated with room and alignment for `count` elements; each is initialised once.
        unsafe base = raw.bindMemory(to: Element.self, capacity: count)
        for index in 0..<count { unsafe (base + index).initialize(to: make(index)) }
    }

    deinit {
        // SAFETY: every element was initialised in init and nobody else frees the storage.
        unsafe base.deinitialize(count: count)
        unsafe UnsafeMutableRawPointer(base).deallocate()
    }

    /// The element at `index`, in place; traps outside of the array.
    @inlinable
    package subscript(index: Int) -> Element {
        @inline(__always) unsafeAddress {
            precondition(index >= 0 && index < count, "index outside of the array")
            // SAFETY: in bounds by the line above.
            return unsafe UnsafePointer(base + index)
        }
        @inline(__always) nonmutating unsafeMutableAddress {
            precondition(index >= 0 && index < count, "index outside of the array")
            // SAFETY: in bounds by the line above; exclusivity is the user's rule, see the type.
            return unsafe base + index
        }
    }
}
