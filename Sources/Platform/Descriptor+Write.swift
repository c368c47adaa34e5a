// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Glibc

/// Writes all of `bytes` to `fd`, in one write(2) unless the kernel takes less; blocks as the descriptor does. Gives up
/// silently on an error: this is for messages to people, when there is nobody left to tell.
package func writeWhole(_ bytes: [UInt8], to fd: Int32) {
    do throws(SystemError) { try writeAll(bytes, toNumber: fd, subject: "") } catch {}
}

/// Writes all of `bytes` to the file that is open as `file`; errors name `subject`. Blocks.
package func writeAll(_ bytes: [UInt8], to file: borrowing Descriptor, subject: String) throws(SystemError) {
    try writeAll(bytes, toNumber: file.number, subject: subject)
}

/// The loop behind the two above.
private func writeAll(_ bytes: [UInt8], toNumber fd: Int32, subject: String) throws(SystemError) {
    var offset = 0
    while offset < bytes.count {
        let written = unsafe bytes.withUnsafeBytes { buffer in
            // SAFETY: the range is inside the array, which lives during the closure.
            unsafe write(fd, buffer.baseAddress.map { unsafe $0 + offset }, buffer.count - offset)
        }
        if written < 0, martlet_errno() == EINTR { continue }
        guard written > 0 else { throw SystemError("write", subject: subject) }
        offset += written
    }
}

/// Whether `fd` takes output without waiting, or does so within `milliseconds`. A file always does, as far as poll(2)
/// knows.
package func takesOutput(_ fd: Int32, within milliseconds: Int32) -> Bool {
    var entry = pollfd(fd: fd, events: Int16(POLLOUT), revents: 0)
    // SAFETY: the entry is local and is one.
    return unsafe poll(&entry, 1, milliseconds) > 0 && entry.revents & Int16(POLLOUT | POLLERR) != 0
}
