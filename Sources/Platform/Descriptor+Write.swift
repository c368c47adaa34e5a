// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

/// Writes all of `bytes` to `fd`, in one write(2) unless the kernel takes less; blocks as the descriptor does. Gives up
/// silently on an error: this is for messages to people, when there is nobody left to tell.
package func writeWhole(_ bytes: [UInt8], to fd: Int32) {
    var offset = 0
    while offset < bytes.count {
        let written = unsafe bytes.withUnsafeBytes { buffer in
            // SAFETY: the range is inside the array, which lives during the closure.
            unsafe write(fd, buffer.baseAddress.map { unsafe $0 + offset }, buffer.count - offset)
        }
        if written < 0, martlet_errno() == EINTR { continue }
        guard written > 0 else { return }
        offset += written
    }
}
