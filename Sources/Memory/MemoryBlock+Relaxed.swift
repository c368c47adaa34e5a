// Martlet
// SPDX-License-Identifier: Apache-2.0

public import CPlatform

/// Accesses that another thread may make at the same time without a lock: each word is read and written whole, in no
/// particular order. For memory that is read as a hint only. Offsets are aligned to the width.
extension MemoryBlock {
    /// Writes four bytes at a multiple of 4.
    @inlinable @inline(__always)
    package func storeRelaxed(_ value: UInt32, at offset: Int) {
        precondition(offset >= 0 && offset <= count &- 4 && offset & 3 == 0, "store outside of its block")
        // SAFETY: in bounds and aligned by the line above; blocks come from allocations aligned to 64 bytes.
        unsafe martlet_store32_relaxed(unsafeBase + offset, value)
    }

    /// Writes two bytes at a multiple of 2.
    @inlinable @inline(__always)
    package func storeRelaxed(_ value: UInt16, at offset: Int) {
        precondition(offset >= 0 && offset <= count &- 2 && offset & 1 == 0, "store outside of its block")
        // SAFETY: in bounds and aligned by the line above.
        unsafe martlet_store16_relaxed(unsafeBase + offset, value)
    }

    /// Zeroes `length` bytes from `offset`, both multiples of 8.
    package func clearRelaxed(from offset: Int, length: Int) {
        precondition(offset >= 0 && length >= 0 && offset <= count &- length && (offset | length) & 7 == 0)
        for position in stride(from: offset, to: offset + length, by: 8) {
            // SAFETY: in bounds and aligned by the line above.
            unsafe martlet_store64_relaxed(unsafeBase + position, 0)
        }
    }
}
