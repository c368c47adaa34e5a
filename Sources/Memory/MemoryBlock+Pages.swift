// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// How the kernel maps a block of whole pages of private memory.
extension MemoryBlock {
    /// MADV_COLLAPSE of Linux 6.1, which Debian 12's headers do not name. Source: madvise(2).
    private static var collapseAdvice: CInt { 25 }

    /// The address of the first byte.
    package var address: UInt {
        // SAFETY: nothing is reached through it.
        unsafe UInt(bitPattern: base)
    }

    /// Gives the pages back to the kernel: they read as zeros when they are used again.
    package func releasePages() {
        // SAFETY: the block's owner gives the bytes up; the kernel checks the range.
        unsafe _ = madvise(base, count, MADV_DONTNEED)
    }

    /// Lets huge pages map the block; its bytes stay what they are. False where the kernel cannot, or has none free.
    ///
    /// Pages that were not there are there afterwards, as zeros.
    package func collapsePages() -> Bool {
        // SAFETY: the advice changes how the bytes are mapped, not the bytes; the kernel checks the range.
        unsafe madvise(base, count, Self.collapseAdvice) == 0
    }
}
