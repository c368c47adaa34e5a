// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

/// A growable buffer of received bytes, owned by one thread: filled at its end, consumed from its front.
@safe @usableFromInline
package struct InputBuffer: ~Copyable {
    @usableFromInline var base: UnsafeMutableRawPointer
    @usableFromInline var capacity: Int
    @usableFromInline var start = 0
    @usableFromInline var end = 0

    /// Creates an empty buffer with room for `capacity` bytes (at least 64).
    package init(capacity: Int) {
        self.capacity = max(capacity, 64)
        // SAFETY: freed in deinit; never shared.
        unsafe base = UnsafeMutableRawPointer.allocate(byteCount: self.capacity, alignment: 64)
    }

    deinit { unsafe base.deallocate() }

    /// Bytes that are not consumed.
    @inlinable package var count: Int { @inline(__always) get { end &- start } }

    /// The bytes that are not consumed, for as long as the buffer does not change.
    @inlinable package var span: Span<UInt8> {
        @_lifetime(borrow self) @inline(__always)
        get {
            // SAFETY: valid bytes [start, end); the span depends on self, which is borrowed while it lives.
            let bytes = unsafe UnsafeBufferPointer(
                start: (base + start).assumingMemoryBound(to: UInt8.self), count: end &- start)
            return unsafe _overrideLifetime(Span(_unsafeElements: bytes), borrowing: self)
        }
    }

    /// Forgets the first `length` bytes.
    @inlinable @inline(__always)
    package mutating func consume(_ length: Int) {
        precondition(length >= 0 && length <= end &- start, "more is consumed than there is")
        start &+= length
        if start == end { (start, end) = (0, 0) }
    }

    /// Forgets everything, and memory beyond `limit` bytes.
    package mutating func removeAll(keeping limit: Int) {
        (start, end) = (0, 0)
        guard capacity > max(limit, 64) else { return }
        // SAFETY: there are no bytes to keep; the new allocation is freed as the old one would have been.
        unsafe base.deallocate()
        capacity = max(limit, 64)
        unsafe base = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 64)
    }

    /// Lets `fill` write behind the bytes that are there, into at least `minimum` bytes of room, and counts what it
    /// says it wrote. Returns what `fill` returned; a negative result counts nothing.
    @inlinable
    package mutating func receive(minimum: Int, _ fill: (UnsafeMutableRawPointer, Int) -> Int) -> Int {
        if capacity &- end < minimum { makeRoom(minimum) }
        // SAFETY: [end, capacity) is ours and writable, and what was written is checked against it.
        let got = unsafe fill(base + end, capacity &- end)
        precondition(got <= capacity &- end, "more was received than there is room")
        if got > 0 { end &+= got }
        return got
    }

    @usableFromInline @inline(never)
    mutating func makeRoom(_ minimum: Int) {
        let kept = end - start
        if capacity - kept >= minimum, start >= kept {
            // SAFETY: the two ranges are inside the allocation and do not overlap.
            unsafe _ = memcpy(base, base + start, kept)
        } else {
            var size = capacity
            while size - kept < minimum { size *= 2 }
            // SAFETY: copies the valid bytes to a larger allocation before it frees the old one.
            let fresh = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 64)
            unsafe fresh.copyMemory(from: base + start, byteCount: kept)
            unsafe base.deallocate()
            unsafe base = fresh
            capacity = size
        }
        (start, end) = (0, kept)
    }
}
