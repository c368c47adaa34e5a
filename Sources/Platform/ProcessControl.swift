// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Glibc

/// What a server does to its own process while it starts.
package enum ProcessControl {
    /// What the machine is called, in printable characters; `localhost` where it does not say. Reads a file.
    package static var hostName: String {
        let bytes = (try? readFile("/proc/sys/kernel/hostname", limitBytes: 4096)) ?? []
        let name = bytes.filter { (33...126).contains($0) }
        return name.isEmpty ? "localhost" : String(decoding: name, as: UTF8.self)
    }

    /// This process's id.
    package static var identifier: Int32 { getpid() }

    /// Whether the descriptor is a terminal.
    package static func isTerminal(_ fd: Int32) -> Bool { isatty(fd) == 1 }

    /// Lines of the terminal and characters of each; nil when the descriptor is none, or does not say.
    package static func terminalSize(_ fd: Int32) -> (rows: Int, columns: Int)? {
        let (rows, columns) = (martlet_terminal_rows(fd), martlet_terminal_columns(fd))
        return rows > 0 && columns > 0 ? (Int(rows), Int(columns)) : nil
    }

    /// Processors of the machine that are in use; at least 1.
    package static var processors: Int { max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))) }

    /// Whether this process has root's rights.
    package static var isRoot: Bool { getuid() == 0 || geteuid() == 0 }

    /// Whether a process with this id runs.
    package static func isRunning(_ identifier: Int32) -> Bool { kill(identifier, 0) == 0 }

    /// Sends this process a signal.
    package static func signalSelf(_ signal: Signal) { kill(getpid(), signal.number) }

    /// Goes into the background: a child in a session of its own goes on, and this process ends. Only while there is
    /// one thread. Standard input and output become `/dev/null` unless `keepsOutput`.
    package static func daemonize(keepsDirectory: Bool, keepsOutput: Bool) throws(SystemError) {
        switch martlet_fork() {
        case -1: throw SystemError("fork")
        case 0: break
        default: _exit(0)
        }
        guard setsid() != -1 else { throw SystemError("setsid") }
        // SAFETY: a terminated constant for the call.
        if !keepsDirectory, unsafe chdir("/") != 0 { throw SystemError("chdir", subject: "/") }
        if keepsOutput { return }
        // SAFETY: a terminated constant for the call.
        let null = unsafe martlet_open("/dev/null", O_RDWR, 0)
        guard null >= 0 else { throw SystemError("open", subject: "/dev/null") }
        for standard in 0...2 as ClosedRange<Int32> {
            guard dup2(null, standard) >= 0 else { throw SystemError("dup2", subject: "\(standard)") }
        }
        if null > 2 { close(null) }
    }

    /// Raises the limit of core files as far as it goes; false when that is nothing.
    package static func raiseCoreLimit() -> Bool {
        let infinity = UInt64.max
        if setLimit(Int32(RLIMIT_CORE.rawValue), current: infinity, maximum: infinity) == nil { return true }
        guard let known = limit(Int32(RLIMIT_CORE.rawValue)) else { return false }
        _ = setLimit(Int32(RLIMIT_CORE.rawValue), current: known.maximum, maximum: known.maximum)
        return limit(Int32(RLIMIT_CORE.rawValue)).map { $0.current > 0 } ?? false
    }

    /// Makes room for `count` descriptors, if there is not. Fails when this process may not.
    package static func raiseDescriptorLimit(to count: UInt64) throws(SystemError) {
        guard let known = limit(Int32(RLIMIT_NOFILE.rawValue)) else {
            throw SystemError("getrlimit", subject: "RLIMIT_NOFILE")
        }
        if known.current >= count { return }
        let code = setLimit(Int32(RLIMIT_NOFILE.rawValue), current: count, maximum: max(known.maximum, count))
        if let code { throw SystemError("setrlimit", code: code, subject: "RLIMIT_NOFILE") }
    }

    /// Makes room for `count` descriptors, or for as many as this process may have. How many it may have then.
    package static func raiseDescriptorLimit(upTo count: UInt64) -> UInt64 {
        guard let known = limit(Int32(RLIMIT_NOFILE.rawValue)) else { return 0 }
        if known.current >= count { return known.current }
        for wanted in [count, min(count, known.maximum)] {
            let maximum = max(known.maximum, wanted)
            if setLimit(Int32(RLIMIT_NOFILE.rawValue), current: wanted, maximum: maximum) == nil { return wanted }
        }
        return known.current
    }

    /// Keeps all memory, now and later, from being swapped out.
    package static func lockMemory() throws(SystemError) {
        guard mlockall(MCL_CURRENT | MCL_FUTURE) == 0 else { throw SystemError("mlockall") }
    }

    /// A user of this machine.
    package struct User: Sendable {
        /// The user's number.
        package let identifier: UInt32
        /// The number of its first group.
        package let group: UInt32
    }

    /// The user called `name`; nil when there is none.
    package static func user(_ name: String) -> User? {
        // SAFETY: the structure that getpwnam gives is read at once, while there is one thread.
        guard let entry = unsafe getpwnam(name) else { return nil }
        return unsafe User(identifier: entry.pointee.pw_uid, group: entry.pointee.pw_gid)
    }

    /// Gives root's rights up for `user`'s, supplementary groups included. Only while there is one thread.
    package static func become(_ user: User) throws(SystemError) {
        // Without the right to it, there are no groups to give up.
        if setgroups(0, nil) != 0, martlet_errno() != EPERM { throw SystemError("setgroups") }
        guard setgid(user.group) == 0 else { throw SystemError("setgid", subject: "\(user.group)") }
        guard setuid(user.identifier) == 0 else { throw SystemError("setuid", subject: "\(user.identifier)") }
    }

    /// Tells a supervisor, at the datagram socket `path` (NOTIFY_SOCKET; `@` begins an abstract name), how this process
    /// is: `READY=1` and the like. Source: sd_notify(3).
    package static func notifySupervisor(_ path: String, _ state: String) throws(SystemError) {
        var bytes = Array(path.utf8)
        guard bytes.count >= 2, bytes.count <= SocketAddress.pathLimitBytes else {
            throw SystemError("sendto", code: EINVAL, subject: path)
        }
        if bytes[0] == UInt8(ascii: "@") { bytes[0] = 0 }
        let number = socket(AF_UNIX, martlet_datagram | martlet_close_on_exec(), 0)
        guard number >= 0 else { throw SystemError("socket") }
        let descriptor = Descriptor(owning: number)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        // SAFETY: the path fits by the guard above; the address and the message live during the call.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
        let length = socklen_t((MemoryLayout<sockaddr_un>.offset(of: \.sun_path) ?? 2) + bytes.count)
        let message = Array(state.utf8)
        let sent = unsafe message.withUnsafeBytes { content in
            unsafe withUnsafePointer(to: address) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    unsafe sendto(descriptor.number, content.baseAddress, content.count, 0, $0, length)
                }
            }
        }
        guard sent == message.count else { throw SystemError("sendto", subject: path) }
    }

    private static func limit(_ resource: Int32) -> (current: UInt64, maximum: UInt64)? {
        var value = rlimit()
        // SAFETY: the kernel fills the local structure.
        guard unsafe getrlimit(resource, &value) == 0 else { return nil }
        return (UInt64(value.rlim_cur), UInt64(value.rlim_max))
    }

    /// Sets a limit; the errno when it cannot.
    private static func setLimit(_ resource: Int32, current: UInt64, maximum: UInt64) -> Int32? {
        var value = rlimit()
        value.rlim_cur = rlim_t(current)
        value.rlim_max = rlim_t(maximum)
        // SAFETY: the kernel reads the local structure.
        return unsafe setrlimit(resource, &value) == 0 ? nil : martlet_errno()
    }
}

/// Ends the process with an exit code.
package func exitProcess(_ code: Int32) -> Never { exit(code) }

/// Ends the process with an exit code at once: libraries are not asked to clean up, which may wait for their threads.
package func abandonProcess(_ code: Int32) -> Never { _exit(code) }
