// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Glibc

/// Reads a whole file of at most `limitBytes`; a larger one is an error (EFBIG). Blocks.
package func readFile(_ path: String, limitBytes: Int) throws(SystemError) -> [UInt8] {
    // SAFETY: a terminated copy for the call.
    let number = unsafe martlet_open(path, O_RDONLY | O_CLOEXEC, 0)
    guard number >= 0 else { throw SystemError("open", subject: path) }
    let file = Descriptor(owning: number)
    var bytes: [UInt8] = []
    while true {
        let room = min(64 * 1024, limitBytes + 1 - bytes.count)
        guard room > 0 else { throw SystemError("read", code: EFBIG, subject: path) }
        var code: Int32 = 0
        let chunk = unsafe [UInt8](unsafeUninitializedCapacity: room) { buffer, count in
            // SAFETY: the kernel writes at most `room` bytes into the buffer, which has that many.
            let got = unsafe read(file.number, buffer.baseAddress, room)
            code = got < 0 ? martlet_errno() : 0
            count = max(0, got)
        }
        if code == EINTR { continue }
        guard code == 0 else { throw SystemError("read", code: code, subject: path) }
        if chunk.isEmpty { break }
        bytes += chunk
    }
    guard bytes.count <= limitBytes else { throw SystemError("read", code: EFBIG, subject: path) }
    return bytes
}

/// Writes `bytes` to the file at `path`, made or emptied first, with the access of `mode` less the umask. A disk that
/// has no room for all of them is an error. Blocks.
package func writeFile(_ path: String, _ bytes: [UInt8], mode: UInt32 = 0o644) throws(SystemError) {
    try writeAll(bytes, to: try createFile(path, mode: mode), subject: path)
}

/// The file at `path`, made or emptied, for writing. Blocks.
package func createFile(_ path: String, mode: UInt32 = 0o644) throws(SystemError) -> Descriptor {
    // SAFETY: a terminated copy for the call.
    let number = unsafe martlet_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
    guard number >= 0 else { throw SystemError("open", subject: path) }
    return Descriptor(owning: number)
}

/// Gives the file at `old` the name `new`, in place of what is there.
package func renameFile(_ old: String, to new: String) throws(SystemError) {
    // SAFETY: both are terminated copies for the call.
    guard unsafe rename(old, new) == 0 else { throw SystemError("rename", subject: new) }
}

/// The file at `path`, made if missing, locked for this process until the descriptor is closed. Throws when another
/// process holds the lock. Source: POSIX, lockf.
package func lockFile(_ path: String) throws(SystemError) -> Descriptor {
    // SAFETY: a terminated copy for the call.
    let number = unsafe martlet_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard number >= 0 else { throw SystemError("open", subject: path) }
    let file = Descriptor(owning: number)
    guard lockf(number, F_TLOCK, 0) == 0 else { throw SystemError("lockf", subject: path) }
    return file
}

/// Removes the file at `path`, if there is one.
package func removeFile(_ path: String) {
    // SAFETY: a terminated copy for the call.
    unsafe _ = unlink(path)
}

/// The length of the file at `path` in bytes; nil when there is none.
package func fileLength(_ path: String) -> Int? {
    var status = stat()
    // SAFETY: a terminated copy for the call; the kernel fills the local structure.
    return unsafe stat(path, &status) == 0 ? Int(status.st_size) : nil
}

/// A file that is read from anywhere, and written at its end.
package struct OpenFile: ~Copyable {
    private let file: Descriptor
    private let path: String

    /// Opens the file at `path` for reading.
    package init(reading path: String) throws(SystemError) {
        // SAFETY: a terminated copy for the call.
        let number = unsafe martlet_open(path, O_RDONLY | O_CLOEXEC, 0)
        guard number >= 0 else { throw SystemError("open", subject: path) }
        file = Descriptor(owning: number)
        self.path = path
    }

    /// Opens the file at `path` for writing behind its first `length` bytes; the rest is cut off. Made if missing, for
    /// its owner only.
    package init(appending path: String, keeping length: Int) throws(SystemError) {
        // SAFETY: a terminated copy for the call.
        let number = unsafe martlet_open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard number >= 0 else { throw SystemError("open", subject: path) }
        let opened = Descriptor(owning: number)
        guard ftruncate(number, length) == 0 else { throw SystemError("ftruncate", subject: path) }
        file = opened
        self.path = path
    }

    /// Up to `count` bytes from `offset` on; fewer only at the end of the file.
    package func read(at offset: Int, count: Int) throws(SystemError) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            let room = count - bytes.count
            var code: Int32 = 0
            let chunk = unsafe [UInt8](unsafeUninitializedCapacity: room) { buffer, filled in
                // SAFETY: the kernel writes at most `room` bytes into the buffer, which has that many.
                let got = unsafe pread(file.number, buffer.baseAddress, room, offset + bytes.count)
                code = got < 0 ? martlet_errno() : 0
                filled = max(0, got)
            }
            if code == EINTR { continue }
            guard code == 0 else { throw SystemError("pread", code: code, subject: path) }
            if chunk.isEmpty { break }
            bytes += chunk
        }
        return bytes
    }

    /// Writes all of `bytes` at the end.
    package func append(_ bytes: [UInt8]) throws(SystemError) { try writeAll(bytes, to: file, subject: path) }

    /// Makes sure that what was written outlives a power loss.
    package func sync() throws(SystemError) {
        guard fsync(file.number) == 0 else { throw SystemError("fsync", subject: path) }
    }
}

/// Something that changes whenever the file at `path` is written or replaced; nil when there is none.
package func fileStamp(_ path: String) -> [Int]? {
    var found = stat()
    // SAFETY: the path lives for the call, the structure is local.
    guard unsafe stat(path, &found) == 0 else { return nil }
    return [found.st_mtim.tv_sec, found.st_mtim.tv_nsec, Int(found.st_ino), Int(found.st_size)]
}
