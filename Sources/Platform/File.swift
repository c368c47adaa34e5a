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

/// Writes `bytes` to the file at `path`, made or emptied first, with the access of `mode` less the umask. Blocks.
package func writeFile(_ path: String, _ bytes: [UInt8], mode: UInt32 = 0o644) throws(SystemError) {
    // SAFETY: a terminated copy for the call.
    let number = unsafe martlet_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
    guard number >= 0 else { throw SystemError("open", subject: path) }
    let file = Descriptor(owning: number)
    writeWhole(bytes, to: file.number)
}

/// Gives the file at `old` the name `new`, in place of what is there.
package func renameFile(_ old: String, to new: String) throws(SystemError) {
    // SAFETY: both are terminated copies for the call.
    guard unsafe rename(old, new) == 0 else { throw SystemError("rename", subject: new) }
}

/// Removes the file at `path`, if there is one.
package func removeFile(_ path: String) {
    // SAFETY: a terminated copy for the call.
    unsafe _ = unlink(path)
}
