// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Glibc

/// A file that one process has for itself and its threads read and write anywhere at the same time.
package final class SharedFile: Sendable {
    private let file: Descriptor
    /// Where it is.
    package let path: String

    /// Opens the file at `path`, made if missing, for its owner only. Throws EWOULDBLOCK when another process has it,
    /// ELOOP when it is a symbolic link, and EPERM when it is no file, another user's, or has other names.
    package init(_ path: String) throws(SystemError) {
        // SAFETY: a terminated copy for the call.
        let number = unsafe martlet_open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard number >= 0 else { throw SystemError("open", subject: path) }
        file = Descriptor(owning: number)
        self.path = path
        var status = stat()
        // SAFETY: the kernel fills the local structure.
        guard unsafe fstat(number, &status) == 0 else { throw SystemError("fstat", subject: path) }
        let isOwn = status.st_mode & S_IFMT == S_IFREG && status.st_uid == geteuid() && status.st_nlink == 1
        guard isOwn else { throw SystemError("open", code: EPERM, subject: path) }
        guard fchmod(number, 0o600) == 0 else { throw SystemError("fchmod", subject: path) }
        guard flock(number, LOCK_EX | LOCK_NB) == 0 else { throw SystemError("flock", subject: path) }
    }

    /// Bytes in the file.
    package func length() throws(SystemError) -> Int {
        var status = stat()
        // SAFETY: the kernel fills the local structure.
        guard unsafe fstat(file.number, &status) == 0 else { throw SystemError("fstat", subject: path) }
        return Int(status.st_size)
    }

    /// Fills `span` with the bytes from `offset` on; false when the file ends before.
    package func read(into span: inout MutableSpan<UInt8>, at offset: Int) throws(SystemError) -> Bool {
        var done = 0
        var code: Int32 = 0
        let count = span.count
        // SAFETY: the kernel writes at most what is left of the span, which is exclusively ours during the closure.
        unsafe span.withUnsafeMutableBytes { bytes in
            while done < count {
                let got = unsafe pread(
                    file.number, bytes.baseAddress.map { unsafe $0 + done }, count - done, offset + done)
                if got > 0 { done += got }
                if got == 0 { break }
                if got < 0 {
                    code = martlet_errno()
                    if code != EINTR { break }
                    code = 0
                }
            }
        }
        guard code == 0 else { throw SystemError("pread", code: code, subject: path) }
        return done == count
    }

    /// Writes `span` from `offset` on.
    package func write(_ span: Span<UInt8>, at offset: Int) throws(SystemError) {
        var done = 0
        var code: Int32 = 0
        // SAFETY: the kernel reads what is left of the span, which lives during the closure.
        unsafe span.withUnsafeBytes { bytes in
            while done < bytes.count {
                let put = unsafe pwrite(
                    file.number, bytes.baseAddress.map { unsafe $0 + done }, bytes.count - done, offset + done)
                if put > 0 { done += put }
                if put <= 0 {
                    code = put == 0 ? EIO : martlet_errno()
                    if code != EINTR { break }
                    code = 0
                }
            }
        }
        guard code == 0 else { throw SystemError("pwrite", code: code, subject: path) }
    }

    /// Gives a range's memory or disk back; its bytes read as zeros then. Does nothing where the file system cannot.
    package func discard(from offset: Int, count: Int) { martlet_punch_hole(file.number, offset, count) }

    /// Cuts the file off, or makes it longer.
    package func resize(to length: Int) throws(SystemError) {
        guard ftruncate(file.number, length) == 0 else { throw SystemError("ftruncate", subject: path) }
    }

    /// Makes sure that what was written outlives a power loss.
    package func sync() throws(SystemError) {
        guard fsync(file.number) == 0 else { throw SystemError("fsync", subject: path) }
    }
}
