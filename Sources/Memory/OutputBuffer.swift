// Martlet
// SPDX-License-Identifier: Apache-2.0

public import CPlatform

/// Bytes outside an ``OutputBuffer`` that go out in the middle of it: a large value, sent from where it lies.
@usableFromInline
package struct ExternalBytes: Sendable {
    /// How many of the buffer's own bytes precede it.
    package let position: Int
    /// The bytes; they stay alive until `token` is released.
    package let block: MemoryBlock
    /// What the bytes' owner gets back when they were sent or dropped.
    package let token: UInt64
}

/// A growable buffer of reply bytes, owned by one thread.
///
/// Appending allocates only when the buffer grows, which a reactor's buffer stops doing once it is as large as its
/// largest batch of replies.
@safe @usableFromInline
package struct OutputBuffer: ~Copyable {
    @usableFromInline var base: UnsafeMutableRawPointer
    @usableFromInline var capacity: Int
    /// Bytes written so far (external bytes not counted).
    @usableFromInline package var count: Int
    /// Large values to send between the buffer's own bytes, by rising position.
    @usableFromInline package var externals: [ExternalBytes] = []

    /// Creates an empty buffer with room for `capacity` bytes (at least 64).
    package init(capacity: Int) {
        self.capacity = max(capacity, 64)
        // SAFETY: freed in deinit; never shared.
        unsafe base = UnsafeMutableRawPointer.allocate(byteCount: self.capacity, alignment: 64)
        count = 0
    }

    deinit {
        unsafe base.deallocate()
    }

    /// Whether there is nothing to send.
    @inlinable package var isEmpty: Bool { count == 0 && externals.isEmpty }

    /// All bytes to send, external ones included.
    package var totalCount: Int { externals.reduce(count) { $0 + $1.block.count } }

    /// Forgets the content and keeps the room. External bytes must have been released before.
    @inlinable package mutating func removeAll() {
        count = 0
        if !externals.isEmpty { externals.removeAll(keepingCapacity: true) }
    }

    /// Cuts the content back to what it was when `count` was `length` and `externalCount` externals were there.
    package mutating func truncate(to length: Int, externalCount: Int) {
        precondition(length <= count && externalCount <= externals.count)
        count = length
        externals.removeLast(externals.count - externalCount)
    }

    /// Makes room for `needed` more bytes.
    @inlinable @inline(__always)
    package mutating func reserve(_ needed: Int) {
        if capacity &- count < needed { grow(needed) }
    }

    @usableFromInline @inline(never)
    mutating func grow(_ needed: Int) {
        var size = capacity
        while size - count < needed { size *= 2 }
        // SAFETY: copies the `count` valid bytes to a larger allocation before it frees the old one.
        let fresh = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 64)
        unsafe fresh.copyMemory(from: base, byteCount: count)
        unsafe base.deallocate()
        unsafe base = fresh
        capacity = size
    }

    /// Gives back memory beyond `limit` bytes of capacity when the buffer is empty.
    package mutating func shrink(to limit: Int) {
        guard count == 0, capacity > limit else { return }
        // SAFETY: there are no bytes to keep; the new allocation is freed as the old one would have been.
        unsafe base.deallocate()
        capacity = max(limit, 64)
        unsafe base = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 64)
    }

    @inlinable @inline(__always)
    package mutating func append(_ byte: UInt8) {
        reserve(1)
        // SAFETY: reserve made room for this byte.
        unsafe base.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
        count &+= 1
    }

    /// Appends a constant of the source: ASCII, its length known when compiled.
    @inlinable @inline(__always)
    package mutating func append(_ text: StaticString) {
        let length = text.utf8CodeUnitCount
        reserve(length)
        // SAFETY: reserve made room; a static string's bytes live for ever.
        unsafe _ = memcpy(base + count, text.utf8Start, length)
        count &+= length
    }

    @inlinable @inline(__always)
    package mutating func append(_ bytes: Span<UInt8>) {
        let length = bytes.count
        reserve(length)
        // SAFETY: reserve made room; the span keeps its bytes alive.
        unsafe bytes.withUnsafeBytes {
            if let from = $0.baseAddress { unsafe _ = memcpy(base + count, from, length) }
        }
        count &+= length
    }

    /// Appends `length` bytes of `block` from `offset`.
    @inlinable @inline(__always)
    package mutating func append(_ block: MemoryBlock, from offset: Int, length: Int) {
        precondition(offset >= 0 && length >= 0 && offset <= block.count &- length, "append outside of its block")
        reserve(length)
        // SAFETY: the source is in bounds by the precondition, and reserve made room.
        unsafe _ = memcpy(base + count, block.base + offset, length)
        count &+= length
    }

    /// Appends a number in decimal.
    @inlinable @inline(__always)
    package mutating func append(decimal value: UInt64) {
        reserve(20)
        // SAFETY: reserve made room for 20 bytes, the most that writeDecimal writes.
        count &+= unsafe writeDecimal(value, to: base + count)
    }

    /// Appends a number in decimal, with its sign when negative.
    @inlinable
    package mutating func append(decimal value: Int64) {
        if value < 0 { append(UInt8(ascii: "-")) }
        append(decimal: value.magnitude)
    }

    /// Appends the string's UTF-8. For replies off the hot path.
    package mutating func append(string: String) {
        var copy = string
        copy.withUTF8 { utf8 in
            reserve(utf8.count)
            // SAFETY: reserve made room; the buffer is alive in the closure.
            if let from = utf8.baseAddress { unsafe _ = memcpy(base + count, from, utf8.count) }
            count &+= utf8.count
        }
    }

    /// Appends a fixed-width number in network byte order.
    @inlinable
    package mutating func append<T: FixedWidthInteger & BitwiseCopyable>(bigEndian value: T) {
        reserve(MemoryLayout<T>.size)
        // SAFETY: reserve made room for the value's bytes.
        unsafe base.storeBytes(of: value.bigEndian, toByteOffset: count, as: T.self)
        count &+= MemoryLayout<T>.size
    }

    /// Overwrites a fixed-width number already written, in network byte order.
    package mutating func patch<T: FixedWidthInteger & BitwiseCopyable>(bigEndian value: T, at offset: Int) {
        precondition(offset >= 0 && offset <= count - MemoryLayout<T>.size)
        // SAFETY: in bounds by the line above.
        unsafe base.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }

    /// Sends `block` after what was appended so far, without copying it. `token` comes back to its owner afterwards.
    package mutating func append(external block: MemoryBlock, token: UInt64) {
        externals.append(ExternalBytes(position: count, block: block, token: token))
    }

    /// The buffer's own bytes from `start` on, for a system call.
    @inlinable
    package func withUnsafeBytes<R>(from start: Int, _ body: (UnsafeRawBufferPointer) -> R) -> R {
        precondition(start >= 0 && start <= count)
        // SAFETY: valid bytes [start, count), alive while self is borrowed.
        return unsafe body(UnsafeRawBufferPointer(start: base + start, count: count - start))
    }

    /// The buffer's own bytes, for as long as it does not change.
    @inlinable package var span: Span<UInt8> {
        @_lifetime(borrow self) @inline(__always)
        get {
            // SAFETY: valid bytes [0, count); the span depends on self, which is borrowed while it lives.
            let bytes = unsafe UnsafeBufferPointer(start: base.assumingMemoryBound(to: UInt8.self), count: count)
            return unsafe _overrideLifetime(Span(_unsafeElements: bytes), borrowing: self)
        }
    }

    /// Runs `body` with the buffer's own bytes.
    @inlinable
    package func withSpan<R>(_ body: (Span<UInt8>) -> R) -> R {
        // SAFETY: valid bytes [0, count), alive while self is borrowed; the span does not escape.
        let bytes = unsafe UnsafeBufferPointer(start: base.assumingMemoryBound(to: UInt8.self), count: count)
        return unsafe body(Span(_unsafeElements: bytes))
    }
}
