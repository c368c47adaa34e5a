// Martlet
// SPDX-License-Identifier: Apache-2.0

public import CPlatform

/// A range of raw memory by address and length: every access is checked against the length.
///
/// A block does not own its bytes: whoever allocated them keeps them alive as long as blocks of them are in use. The
/// engine holds to that by touching a block only under the lock of the shard that owns it, or while it is pinned.
@safe @usableFromInline
package struct MemoryBlock: BitwiseCopyable, @unchecked Sendable {
    // SAFETY (Sendable): an address and a length; who may touch the bytes is the owner's rule, above.
    @usableFromInline let base: UnsafeMutableRawPointer
    /// Bytes in the block.
    @usableFromInline package let count: Int

    /// The `count` bytes from `base` on, which the caller keeps alive as long as the block is in use.
    @inlinable @inline(__always)
    package init(unsafeBase base: UnsafeMutableRawPointer, count: Int) {
        unsafe self.base = base
        self.count = count
    }

    /// The first byte's address, for system calls and for handing to C.
    // SAFETY: whoever uses the address keeps to `count` and to the owner's rule.
    @inlinable package var unsafeBase: UnsafeMutableRawPointer {
        @inline(__always) get { unsafe base }
    }

    /// The part that starts at `offset` and has `length` bytes.
    @inlinable @inline(__always)
    package func slice(_ offset: Int, _ length: Int) -> MemoryBlock {
        precondition(offset >= 0 && length >= 0 && offset <= count &- length, "slice outside of its block")
        // SAFETY: in bounds by the line above.
        return unsafe MemoryBlock(unsafeBase: base + offset, count: length)
    }

    /// Reads a fixed-width value at any alignment.
    @inlinable @inline(__always)
    package func load<T: BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T {
        precondition(offset >= 0 && offset <= count &- MemoryLayout<T>.size, "load outside of its block")
        // SAFETY: in bounds by the line above; unaligned loads have no alignment to keep.
        return unsafe base.loadUnaligned(fromByteOffset: offset, as: type)
    }

    /// Writes a fixed-width value at any alignment.
    @inlinable @inline(__always)
    package func store<T: BitwiseCopyable>(_ value: T, at offset: Int) {
        precondition(offset >= 0 && offset <= count &- MemoryLayout<T>.size, "store outside of its block")
        // SAFETY: in bounds by the line above; storeBytes of a trivial type has no alignment to keep.
        unsafe base.storeBytes(of: value, toByteOffset: offset, as: T.self)
    }

    /// Copies `source` to `offset`. The two may not overlap.
    @inlinable @inline(__always)
    package func copy(_ source: Span<UInt8>, at offset: Int) {
        precondition(offset >= 0 && offset <= count &- source.count, "copy outside of its block")
        // SAFETY: in bounds by the line above; the span keeps the source alive.
        unsafe source.withUnsafeBytes { bytes in
            guard let from = bytes.baseAddress else { return }
            unsafe _ = memcpy(base + offset, from, bytes.count)
        }
    }

    /// Copies `length` bytes of `source` from `sourceOffset` to `offset`. The two may not overlap.
    @inlinable @inline(__always)
    package func copy(_ source: MemoryBlock, from sourceOffset: Int, length: Int, at offset: Int) {
        precondition(offset >= 0 && length >= 0 && offset <= count &- length, "copy outside of its block")
        precondition(sourceOffset >= 0 && sourceOffset <= source.count &- length, "copy outside of its source")
        // SAFETY: both ranges are in bounds by the lines above.
        unsafe _ = memcpy(base + offset, source.base + sourceOffset, length)
    }

    /// Moves `length` bytes inside the block; the ranges may overlap.
    @inlinable
    package func move(from source: Int, length: Int, to offset: Int) {
        precondition(offset >= 0 && length >= 0 && offset <= count &- length, "move outside of its block")
        precondition(source >= 0 && source <= count &- length, "move outside of its block")
        // SAFETY: both ranges are in bounds by the lines above; memmove allows overlap.
        unsafe _ = memmove(base + offset, base + source, length)
    }

    /// Sets `length` bytes from `offset` to `byte`.
    @inlinable
    package func fill(_ byte: UInt8, from offset: Int, length: Int) {
        precondition(offset >= 0 && length >= 0 && offset <= count &- length, "fill outside of its block")
        // SAFETY: in bounds by the line above.
        unsafe _ = memset(base + offset, Int32(byte), length)
    }

    /// Whether the `other.count` bytes at `offset` equal `other`.
    @inlinable @inline(__always)
    package func equals(_ other: Span<UInt8>, at offset: Int) -> Bool {
        precondition(offset >= 0 && offset <= count &- other.count, "comparison outside of its block")
        // SAFETY: in bounds by the line above; the span keeps the other side alive.
        return unsafe other.withUnsafeBytes { bytes in
            guard let from = bytes.baseAddress else { return true }
            return unsafe memcmp(base + offset, from, bytes.count) == 0
        }
    }

    /// The bytes as a span, valid while the owner keeps them and nobody writes to them.
    @inlinable
    package func withSpan<R, E: Error>(_ body: (Span<UInt8>) throws(E) -> R) throws(E) -> R {
        // SAFETY: the span does not escape the closure.
        let buffer = unsafe UnsafeBufferPointer(start: base.assumingMemoryBound(to: UInt8.self), count: count)
        return try unsafe body(Span(_unsafeElements: buffer))
    }

    /// The bytes to be written, valid while the owner keeps them and nobody else touches them.
    package func withMutableSpan<R, E: Error>(
        _ body: (inout MutableSpan<UInt8>) throws(E) -> R
    ) throws(E) -> R {
        // SAFETY: the span does not escape the closure; the owner lets nobody else touch the bytes meanwhile.
        let buffer = unsafe UnsafeMutableBufferPointer(start: base.assumingMemoryBound(to: UInt8.self), count: count)
        var span = unsafe MutableSpan(_unsafeElements: buffer)
        return try body(&span)
    }

    /// Asks the processor to load the cache line at `offset`; never faults.
    @inlinable @inline(__always)
    package func prefetch(_ offset: Int) {
        // SAFETY: a prefetch has no effect but on caches, whatever the address.
        unsafe martlet_prefetch(base + offset)
    }
}
