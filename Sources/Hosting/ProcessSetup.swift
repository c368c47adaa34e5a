// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
package import Telemetry

/// What a server program does to its process around serving: limits, user, background, process id, supervisor.
package enum ProcessSetup {
    /// Descriptors beside those of connections: listeners, polls, timers, files.
    private static let reservedDescriptors = 128

    /// Prepares the process, in memcached's order: core files, descriptors, user. Before any other thread starts.
    package static func prepare(
        _ options: ProcessOptions, connections: Int, threads: Int
    ) throws(StartRefusal) {
        if options.raisesCoreLimit, !ProcessControl.raiseCoreLimit() {
            throw system("failed to ensure corefile creation")
        }
        do throws(SystemError) {
            let reserved = reservedDescriptors + 8 * threads
            try ProcessControl.raiseDescriptorLimit(to: UInt64(connections + reserved))
        } catch {
            throw system(
                "failed to set rlimit for open files. Try starting as root or requesting smaller maxconns value.")
        }
        try changeUser(options.user)
    }

    /// Goes into the background if that is wanted, and locks memory then, because a child's is not. Before any other
    /// thread starts. Returns notes for the log.
    package static func enterBackground(
        _ options: ProcessOptions, keepsOutput: Bool
    ) throws(StartRefusal) -> [String] {
        if options.daemonizes {
            do throws(SystemError) {
                try ProcessControl.daemonize(
                    keepsDirectory: options.raisesCoreLimit, keepsOutput: keepsOutput)
            } catch {
                throw StartRefusal(
                    code: StartRefusal.Code.failure, errors: "failed to daemon() in order to daemonize\n")
            }
        }
        guard options.locksMemory else { return [] }
        do throws(SystemError) {
            try ProcessControl.lockMemory()
            return []
        } catch {
            return ["-k has no effect: \(error)"]
        }
    }

    /// How long the end of the process waits for the log, in milliseconds.
    package static let logMilliseconds: UInt64 = 1000

    /// Has the log written by a thread of its own: whoever ends the waiting of others must not wait for its disk. Where
    /// there can be no such thread, lines are written as before.
    package static func startWriting(_ log: Log) {
        do throws(SystemError) { try log.startWriting() } catch {
            log.warning("the log has no thread of its own", ["error": .of(error)])
        }
    }

    private static func changeUser(_ name: String?) throws(StartRefusal) {
        // memcached refuses to run as root without -u root; here that is a note at start, for containers' sake.
        guard ProcessControl.isRoot, let name, !name.isEmpty else { return }
        guard let user = ProcessControl.user(name) else {
            throw StartRefusal(code: StartRefusal.Code.noUser, errors: "can't find the user \(name) to switch to\n")
        }
        do throws(SystemError) {
            try ProcessControl.become(user)
        } catch {
            let what =
                error.call == "setgroups"
                ? "failed to drop supplementary groups: \(error.reason)" : "failed to assume identity of user \(name)"
            throw system(what)
        }
    }

    private static func system(_ message: String) -> StartRefusal {
        StartRefusal(code: StartRefusal.Code.system, errors: message + "\n")
    }

    /// Writes the process id's file, once the node listens. A failure is logged and harmless, as it is for memcached.
    package static func writePIDFile(_ options: ProcessOptions, log: Log) {
        guard let path = options.pidFilePath else { return }
        if let old = try? readFile(path, limitBytes: 1024),
            let identifier = strictInteger(String(decoding: old, as: UTF8.self)),
            identifier > 0, identifier != ProcessControl.identifier, ProcessControl.isRunning(identifier)
        {
            log.warning("pid file names a running process", ["path": .text(path), "pid": .count(identifier)])
        }
        do throws(SystemError) {
            // Under another name first, so that nobody reads it half written.
            try writeFile("\(path).tmp", Array("\(ProcessControl.identifier)\n".utf8))
            try renameFile("\(path).tmp", to: path)
        } catch {
            log.warning("pid file not written", ["error": .of(error)])
        }
    }

    /// Removes the process id's file of a node that ran in the background.
    package static func removePIDFile(_ options: ProcessOptions) {
        guard options.daemonizes, let path = options.pidFilePath else { return }
        removeFile(path)
    }

    /// Writes the ports to the file that MEMCACHED_PORT_FILENAME names, in memcached's form, under another name first.
    package static func writePortFile(
        _ path: String?, ports: [(isDatagram: Bool, isIPv6: Bool, port: UInt16)], log: Log
    ) {
        guard let path else { return }
        let lines = ports.map { "\($0.isDatagram ? "UDP" : "TCP") \($0.isIPv6 ? "INET6" : "INET"): \($0.port)\n" }
        do throws(SystemError) {
            try writeFile("\(path).lck", Array(lines.joined().utf8))
            try renameFile("\(path).lck", to: path)
        } catch {
            log.warning("port file not written", ["error": .of(error)])
        }
    }

    /// Tells a supervisor such as systemd how the program is; does nothing when nobody supervises.
    package static func notify(_ state: SupervisorState, log: Log) {
        guard let path = Environment.value("NOTIFY_SOCKET"), !path.isEmpty else { return }
        do throws(SystemError) {
            try ProcessControl.notifySupervisor(path, state.text)
        } catch {
            log.warning("supervisor not notified", ["error": .of(error)])
        }
    }
}

/// What a supervisor is told. Source: sd_notify(3).
package enum SupervisorState: Sendable {
    /// The program listens.
    case ready
    /// It reads its files again.
    case reloading
    /// It ends.
    case stopping

    var text: String {
        switch self {
        case .ready: "READY=1\nMAINPID=\(ProcessControl.identifier)"
        case .reloading: "RELOADING=1\nMONOTONIC_USEC=\(Clock.monotonicNanoseconds() / 1000)"
        case .stopping: "STOPPING=1"
        }
    }
}

/// How the process runs.
package struct ProcessOptions: Sendable, Equatable {
    /// Whether it goes into the background (`-d`).
    package var daemonizes = false
    /// `-P`.
    package var pidFilePath: String?
    /// `-u`; only root may and must give it.
    package var user: String?
    /// `-r`.
    package var raisesCoreLimit = false
    /// `-k`.
    package var locksMemory = false

    package init() {}
}
