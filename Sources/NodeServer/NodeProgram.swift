// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Admin
internal import Platform
internal import Reactor
internal import Telemetry

/// The program around a node: from a configuration to the end of the process.
package struct NodeProgram {
    private let configuration: NodeConfiguration
    /// Reads the configuration again, for SIGHUP.
    private let reread: () throws(StartRefusal) -> NodeConfiguration
    private let log: Log
    /// Whether the node was told to end: it is not ready then.
    private let isStopping = Guarded(false)

    /// Reads the configuration; refuses what is wrong in it, and what only asks for a text (`-h`, `-V`).
    package init(_ commandLine: NodeCommandLine) throws(StartRefusal) {
        configuration = try commandLine.configuration()
        reread = { () throws(StartRefusal) in try commandLine.configuration() }
        log = Log(.forProcess(format: configuration.logFormat, level: configuration.logLevel))
    }

    /// Runs the node until a signal or a client ends it. The addresses are bound before the process goes into the
    /// background, so that whoever started it learns whether that worked.
    package func run() throws(StartRefusal) {
        Signal.block()
        try checkUsers()
        try ProcessSetup.prepare(configuration)
        let service: NodeService
        do throws(NodeStartError) {
            service = try NodeService(configuration) { isGraceful in
                ProcessControl.signalSelf(isGraceful ? .user1 : .terminate)
            }
        } catch {
            throw refusal(error)
        }
        let admin = try bindAdmin(service)
        let notes = configuration.notes + (try ProcessSetup.enterBackground(configuration))
        for note in notes { log.info("note", ["about": .text(note)]) }
        if ProcessControl.isRoot, configuration.process.user == nil {
            log.warning("running as root", ["setting": "-u NAME gives root's rights up"])
        }
        do throws(NodeStartError) { try service.start() } catch { throw refusal(error) }
        if let admin { start(admin) }
        announce(service)
        serve(service)
        ProcessSetup.notify(.stopping, log: log)
        service.wait()
        admin?.stop()
        ProcessSetup.removePIDFile(configuration)
        log.info("stopped")
    }

    /// Binds the admin server, if it is wanted. A port that is taken stops the start only if somebody asked for it.
    private func bindAdmin(_ service: NodeService) throws(StartRefusal) -> AdminServer? {
        guard let endpoint = configuration.admin else { return nil }
        var options = AdminConfiguration()
        options.host = endpoint.host
        options.port = endpoint.port
        options.product = "Martlet \(ProductVersion.martlet), a cache node"
        do throws(SystemError) {
            let isStopping = isStopping
            return try AdminServer(
                options, routes: service.node.adminRoutes { isStopping.withLock { $0 } })
        } catch {
            if endpoint.isExplicit {
                throw StartRefusal(
                    code: StartRefusal.Code.system,
                    errors: "the admin server cannot listen on \(endpoint.host):\(endpoint.port): \(error.reason)\n")
            }
            log.warning("no admin server", ["reason": .of(error), "setting": "--admin"])
            return nil
        }
    }

    private func start(_ admin: AdminServer) {
        do throws(SystemError) {
            try admin.start()
            log.info("admin listening", ["address": .text(admin.address)])
        } catch {
            log.error("no admin server", ["reason": .of(error)])
        }
    }

    /// Reads the file of users before anything else, for memcached's messages.
    private func checkUsers() throws(StartRefusal) {
        guard let path = configuration.authenticationPath else { return }
        do throws(AuthenticationFileError) {
            _ = try AuthenticationFile(path: path)
        } catch {
            throw StartRefusal(code: StartRefusal.Code.failure, errors: error.description)
        }
    }

    private func refusal(_ error: NodeStartError) -> StartRefusal {
        guard error.description.hasPrefix("cannot listen") else {
            let code = configuration.tls == nil ? StartRefusal.Code.system : StartRefusal.Code.usage
            return StartRefusal(code: code, errors: error.description + "\n")
        }
        let what =
            if let path = configuration.unixSocketPath {
                "UNIX socket: \(path)"
            } else if let interface = configuration.interfaceText {
                "one of interface(s) \(interface)"
            } else {
                "TCP port \(configuration.port)"
            }
        return StartRefusal(
            code: StartRefusal.Code.system, errors: "\(error.description)\nfailed to listen on \(what)\n")
    }

    /// Tells everybody that the node serves: log, files, supervisor.
    private func announce(_ service: NodeService) {
        for listener in service.listeners {
            log.info("listening", ["address": .text(listener.address)])
        }
        let ports = service.listeners.filter { !$0.isUnix }.map { ($0.isDatagram, $0.isIPv6, $0.port) }
        ProcessSetup.writePortFile(configuration, ports: ports, log: log)
        ProcessSetup.writePIDFile(configuration, log: log)
        ProcessSetup.notify(.ready, log: log)
    }

    /// Waits for signals until one ends the node.
    private func serve(_ service: NodeService) {
        while true {
            guard let signal = Signal.wait(milliseconds: 3_600_000) else { continue }
            if signal == .hangUp {
                reload(service)
                continue
            }
            isStopping.withLock { $0 = true }
            log.info(signal == .user1 ? "stopping gracefully" : "stopping")
            return service.stop(isGraceful: signal == .user1)
        }
    }

    /// Reads again what may change while running: users, certificates, the level of the log, the cluster's nodes.
    private func reload(_ service: NodeService) {
        ProcessSetup.notify(.reloading, log: log)
        let failures = service.reload()
        for failure in failures { log.error("reload failed", ["reason": .text(failure)]) }
        do throws(StartRefusal) {
            let fresh = try reread()
            log.setLevel(fresh.logLevel)
            service.node.setMembers(fresh.members, version: fresh.membersVersion)
            var expected = configuration
            expected.logLevel = fresh.logLevel
            expected.members = fresh.members
            expected.membersVersion = fresh.membersVersion
            if fresh != expected { log.warning("some changed settings wait for a restart") }
            if failures.isEmpty { log.info("reloaded") }
        } catch {
            log.error("reload failed", ["reason": .text(error.errors)])
        }
        ProcessSetup.notify(.ready, log: log)
    }
}
