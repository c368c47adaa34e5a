// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Glibc

/// Makes the directory at `path`, and those above it that are missing, so that they outlive a power loss; one that is
/// there already is well. Blocks.
package func makeDirectory(_ path: String, mode: UInt32 = 0o755) throws(SystemError) {
    var made = ""
    for part in path.split(separator: "/", omittingEmptySubsequences: true) {
        let above = made.isEmpty ? (path.hasPrefix("/") ? "/" : ".") : made
        made += made.isEmpty && !path.hasPrefix("/") ? String(part) : "/" + part
        // SAFETY: a terminated copy for the call.
        if unsafe mkdir(made, mode) == 0 {
            // One that may be written to, but not read, cannot be synced by us.
            do throws(SystemError) { try syncDirectory(above) } catch { if error.code != EACCES { throw error } }
            continue
        }
        let code = martlet_errno()
        guard code == EEXIST else { throw SystemError("mkdir", code: code, subject: made) }
    }
    guard isDirectory(path) else { throw SystemError("mkdir", code: ENOTDIR, subject: path) }
}

/// Whether there is a directory at `path`.
package func isDirectory(_ path: String) -> Bool {
    var status = stat()
    // SAFETY: a terminated copy for the call; the kernel fills the local structure.
    return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
}

/// The names in the directory at `path`, without `.` and `..`, in no order. Blocks.
package func directoryEntries(_ path: String) throws(SystemError) -> [String] {
    // SAFETY: a terminated copy for the call; the stream is closed below.
    guard let stream = unsafe opendir(path) else { throw SystemError("opendir", subject: path) }
    // SAFETY: the stream is open, and closed only here.
    defer { unsafe _ = closedir(stream) }
    var names: [String] = []
    // SAFETY: the entry lives until the next call on this stream, which is ours; its name is terminated inside of it.
    while let entry = unsafe readdir(stream) {
        let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}

/// Makes sure that what was created, renamed and removed in the directory at `path` outlives a power loss. Blocks.
package func syncDirectory(_ path: String) throws(SystemError) {
    // SAFETY: a terminated copy for the call.
    let number = unsafe martlet_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    guard number >= 0 else { throw SystemError("open", subject: path) }
    let directory = Descriptor(owning: number)
    guard fsync(directory.number) == 0 else { throw SystemError("fsync", subject: path) }
}

/// Makes sure that the content of the file at `path` outlives a power loss. Blocks.
package func syncFile(_ path: String) throws(SystemError) {
    // SAFETY: a terminated copy for the call.
    let number = unsafe martlet_open(path, O_RDONLY | O_CLOEXEC, 0)
    guard number >= 0 else { throw SystemError("open", subject: path) }
    let file = Descriptor(owning: number)
    guard fsync(file.number) == 0 else { throw SystemError("fsync", subject: path) }
}

/// Puts `bytes` in the file `name` of `directory` so that after a crash or a power loss either the old content is there
/// or the new one, and the new one once this returned. Blocks.
package func replaceFileDurably(
    _ name: String, in directory: String, with bytes: [UInt8], mode: UInt32 = 0o644
) throws(SystemError) {
    let (path, temporary) = (directory + "/" + name, directory + "/" + name + ".new")
    do {
        // SAFETY: a terminated copy for the call.
        let number = unsafe martlet_open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
        guard number >= 0 else { throw SystemError("open", subject: temporary) }
        let file = Descriptor(owning: number)
        var offset = 0
        while offset < bytes.count {
            let written = unsafe bytes.withUnsafeBytes { buffer in
                // SAFETY: the range is inside the array, which lives during the closure.
                unsafe write(file.number, buffer.baseAddress.map { unsafe $0 + offset }, buffer.count - offset)
            }
            if written < 0, martlet_errno() == EINTR { continue }
            guard written > 0 else { throw SystemError("write", subject: temporary) }
            offset += written
        }
        guard fsync(file.number) == 0 else { throw SystemError("fsync", subject: temporary) }
    }
    try renameFile(temporary, to: path)
    try syncDirectory(directory)
}
