// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Glibc

/// The process's environment variables.
package enum Environment {
    /// The value of `name`; nil when it is not set.
    package static func value(_ name: String) -> String? {
        // SAFETY: getenv gives a terminated string, or nothing, that we copy at once; we never change the environment.
        guard let text = unsafe getenv(name) else { return nil }
        return unsafe String(cString: text)
    }

    /// Where the process is: an absolute path; nil when that directory is gone.
    package static var workingDirectory: String? {
        // SAFETY: getcwd gives a terminated string of its own making, or nothing; we copy and free it at once.
        guard let text = unsafe getcwd(nil, 0) else { return nil }
        defer { unsafe free(text) }
        return unsafe String(cString: text)
    }

    /// All variables.
    package static func all() -> [String: String] {
        var result: [String: String] = [:]
        // SAFETY: the table ends with a null pointer, its entries are terminated strings, and we never change it.
        guard var entry = unsafe martlet_environment() else { return result }
        while let text = unsafe entry.pointee {
            let pair = unsafe String(cString: text)
            let name = pair.prefix { $0 != "=" }
            result[String(name)] = String(pair.dropFirst(name.count + 1))
            unsafe entry += 1
        }
        return result
    }
}

/// The device and inode behind a descriptor as `device:inode`, which is how systemd writes JOURNAL_STREAM; nil when
/// the descriptor is not open.
package func fileIdentity(_ fd: Int32) -> String? {
    var status = stat()
    // SAFETY: the kernel fills the local structure.
    guard unsafe fstat(fd, &status) == 0 else { return nil }
    return "\(status.st_dev):\(status.st_ino)"
}

/// The program's arguments, its own path first. They are read from /proc: where that is not mounted, the process ends
/// with code 71 (EX_OSERR) and says so, rather than going on as if it had been given none.
package func programArguments() -> [String] {
    let arguments = CommandLine.arguments
    guard arguments.isEmpty else { return arguments }
    writeWhole(Array("martlet: the arguments cannot be read; is /proc mounted?\n".utf8), to: 2)
    exitProcess(71)
}
