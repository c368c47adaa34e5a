// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
package import Telemetry

/// What a node does to its process around serving: limits, user, background, process id, supervisor.
package enum ProcessSetup {
    /// Descriptors beside those of connections: listeners, polls, timers, files.
    private static let reservedDescriptors = 128

    /// Prepares the process, in memcached's order: core files, descriptors, user. Before any other thread starts.
    package static func prepare(_ configuration: NodeConfiguration) throws(StartRefusal) {
        if configuration.process.raisesCoreLimit, !ProcessControl.raiseCoreLimit() {
            throw system("failed to ensure corefile creation")
        }
        do throws(SystemError) {
            let reserved = reservedDescriptors + 8 * configuration.threads
            try ProcessControl.raiseDescriptorLimit(to: UInt64(configuration.connectionLimit + reserved))
        } catch {
            throw system(
                "failed to set rlimit for open files. Try starting as root or requesting smaller maxconns value.")
        }
        try changeUser(configuration.process.user)
    }

    /// Goes into the background if that is wanted, and locks memory then, because a child's is not. Before any other
    /// thread starts. Returns notes for the log.
    package static func enterBackground(_ configuration: NodeConfiguration) throws(StartRefusal) -> [String] {
        let options = configuration.process
        if options.daemonizes {
            do throws(SystemError) {
                try ProcessControl.daemonize(
                    keepsDirectory: options.raisesCoreLimit, keepsOutput: configuration.verbosity > 0)
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
    package static func writePIDFile(_ configuration: NodeConfiguration, log: Log) {
        guard let path = configuration.process.pidFilePath else { return }
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
    package static func removePIDFile(_ configuration: NodeConfiguration) {
        guard configuration.process.daemonizes, let path = configuration.process.pidFilePath else { return }
        removeFile(path)
    }

    /// Writes the ports to the file that MEMCACHED_PORT_FILENAME names, in memcached's form, under another name first.
    package static func writePortFile(
        _ configuration: NodeConfiguration, ports: [(isDatagram: Bool, isIPv6: Bool, port: UInt16)], log: Log
    ) {
        guard let path = configuration.portFilePath else { return }
        let lines = ports.map { "\($0.isDatagram ? "UDP" : "TCP") \($0.isIPv6 ? "INET6" : "INET"): \($0.port)\n" }
        do throws(SystemError) {
            try writeFile("\(path).lck", Array(lines.joined().utf8))
            try renameFile("\(path).lck", to: path)
        } catch {
            log.warning("port file not written", ["error": .of(error)])
        }
    }

    /// Tells a supervisor such as systemd how the node is; does nothing when nobody supervises.
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
    /// The node listens.
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
