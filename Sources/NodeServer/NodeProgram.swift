// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Admin
package import Hosting
internal import Platform
internal import Reactor
package import Storage
internal import Telemetry

/// The program around a node: from a configuration to the end of the process.
package struct NodeProgram {
    private let configuration: NodeConfiguration
    /// Reads the configuration again, for SIGHUP.
    private let reread: () throws(StartRefusal) -> NodeConfiguration
    private let makeBackend: BackendFactory
    /// How far the stream was followed.
    private let places = StreamPlaces()
    private let log: Log
    /// Whether the node serves: it is not ready once it drains.
    private let drain: Drain

    /// Makes the backend that the settings name; nil for a plain cache. What it reads at home says how far the stream
    /// was followed.
    package typealias BackendFactory =
        (StorageSettings, StreamPlaces) throws(StorageStartError) -> (any StorageBackend)?

    /// Reads the configuration; refuses what is wrong in it, and what only asks for a text (`-h`, `-V`). Which backends
    /// there are is the program's choice.
    package init(_ commandLine: NodeCommandLine, backend: @escaping BackendFactory) throws(StartRefusal) {
        makeBackend = backend
        configuration = Self.named(try commandLine.configuration())
        reread = { () throws(StartRefusal) in try commandLine.configuration() }
        log = Log(.forProcess(format: configuration.logFormat, level: configuration.logLevel))
        drain = Drain(configuration.drain)
    }

    /// Runs the node until a signal or a client ends it. The addresses are bound before the process goes into the
    /// background, so that whoever started it learns whether that worked.
    package func run() throws(StartRefusal) {
        Signal.block()
        try checkUsers()
        let tls: TLSContext?
        do throws(NodeStartError) { tls = try NodeService.loadTLS(configuration) } catch { throw refusal(error) }
        let token = try AdminToken.read(configuration.adminTokenPath)
        try ProcessSetup.prepare(
            configuration.process, connections: configuration.connectionLimit, threads: configuration.threads)
        let service: NodeService
        let backend = try openBackend()
        do throws(NodeStartError) {
            service = try NodeService(
                configuration, backend: backend, places: places, tls: tls, log: log
            ) { isGraceful in
                ProcessControl.signalSelf(isGraceful ? .user1 : .interrupt)
            }
        } catch {
            throw refusal(error)
        }
        let admin = try configuration.admin?.bind(
            product: "a cache node", token: token, routes: service.node.adminRoutes(drain, events: log.events),
            log: log)
        do throws(NodeStartError) { try service.bind() } catch { throw refusal(error) }
        let notes =
            configuration.notes
            + (try ProcessSetup.enterBackground(configuration.process, keepsOutput: configuration.verbosity > 0))
        ProcessSetup.startWriting(log)
        defer { log.finish(milliseconds: ProcessSetup.logMilliseconds) }
        for note in notes { log.info("note", ["about": .text(note)]) }
        if ProcessControl.isRoot, configuration.process.user == nil {
            log.warning("running as root", ["setting": "-u NAME gives root's rights up"])
        }
        do throws(NodeStartError) { try service.start() } catch { throw refusal(error) }
        admin?.start(log: log)
        let fleet = startFleet(service)
        announce(service)
        startWarming(service.node, fleet)
        serve(service, fleet)
        service.node.warmUp?.stop()
        admin?.stop()
        ProcessSetup.removePIDFile(configuration.process)
        log.info("stopped")
        if let reason = service.node.ownership?.refusal ?? service.node.home?.refusal {
            throw StartRefusal(code: StartRefusal.Code.system, errors: reason + "\n")
        }
    }

    /// A configuration that says what tells the node from others of its host, to its database and to whom it follows.
    private static func named(_ configuration: NodeConfiguration) -> NodeConfiguration {
        var named = configuration
        let port = configuration.listeners.first?.port ?? UInt16(clamping: configuration.port)
        // A port of the kernel's choice is another one at each start.
        let number = port == 0 ? "any-\(UInt32.random(in: 0...UInt32.max))" : "\(port)"
        named.storage.address = configuration.unixSocketPath ?? number
        named.storage.itemBytes = configuration.maximumItemBytes
        return named
    }

    private func openBackend() throws(StartRefusal) -> (any StorageBackend)? {
        do throws(StorageStartError) {
            return try makeBackend(configuration.storage, places)
        } catch {
            throw StartRefusal(code: StartRefusal.Code.system, errors: "storage: \(error.description)\n")
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
        // TCP first, as memcached writes them.
        let listeners = service.listeners.filter { !$0.isUnix }
        let ports = (listeners.filter { !$0.isDatagram } + listeners.filter(\.isDatagram))
            .map { ($0.isDatagram, $0.isIPv6, $0.port) }
        ProcessSetup.writePortFile(configuration.portFilePath, ports: ports, log: log)
        ProcessSetup.writePIDFile(configuration.process, log: log)
        ProcessSetup.notify(.ready, log: log)
        ProcessControl.releaseStartPages()
    }

    /// Looks the members up and registers, where the settings say so.
    private func startFleet(_ service: NodeService) -> NodeFleet? {
        let node = service.node
        do throws(SystemError) {
            return try NodeFleet(configuration.fleet, environment: Environment.all(), log: log) { members, ring in
                node.setMembers(members, version: 0)
                node.ownership?.want(ring)
                node.warmUp?.setMembers(ring)
            }
        } catch {
            log.error("the members are not looked up", ["reason": .of(error)])
            return nil
        }
    }

    /// Fetches the node's share of the keys, where the settings say so.
    private func startWarming(_ node: Node, _ fleet: NodeFleet?) {
        guard let warmUp = node.warmUp else { return }
        if configuration.fleet.source.isEmpty { warmUp.setMembers(configuration.members.map { RingMember($0) }) }
        log.info("warming up: the node fetches its share of the keys")
        do throws(SystemError) {
            try warmUp.start(node, log: log) { fleet?.finishWarming() }
        } catch {
            log.error("nothing is fetched", ["reason": .of(error)])
            warmUp.skip()
            fleet?.finishWarming()
        }
    }

    /// Waits for signals until one ends the node, and ends it.
    private func serve(_ service: NodeService, _ fleet: NodeFleet?) {
        while true {
            guard let signal = Signal.wait(milliseconds: 3_600_000) else { continue }
            switch signal {
            case .hangUp: reload(service)
            case .user2:
                log.info("draining")
                leave(fleet, for: .draining)
            case .interrupt, .terminate, .user1: return end(service, fleet, by: signal)
            }
        }
    }

    /// Nobody is to be sent here any more.
    private func leave(_ fleet: NodeFleet?, for phase: Drain.Phase) {
        drain.advance(to: phase)
        guard let fleet, fleet.beginLeaving() else { return }
        log.info("leaving the members")
    }

    private func end(_ service: NodeService, _ fleet: NodeFleet?, by signal: Signal) {
        ProcessSetup.notify(.stopping, log: log)
        leave(fleet, for: .ending)
        log.info(
            signal == .interrupt ? "stopping" : "stopping gracefully",
            ["within_ms": .count(signal == .interrupt ? 0 : configuration.drain.timeoutMilliseconds)])
        drain.end(EndingService(stop: service.stop, wait: service.wait), by: signal)
        fleet?.finishLeaving()
    }

    /// Reads again what may change while running: users, certificates, tenants, the level of the log, the cluster's
    /// nodes.
    private func reload(_ service: NodeService) {
        ProcessSetup.notify(.reloading, log: log)
        let failures = service.reload()
        for failure in failures { log.error("reload failed", ["reason": .text(failure)]) }
        let record = service.node.configurationRecord
        do throws(StartRefusal) {
            let fresh = try reread()
            log.setLevel(fresh.logLevel)
            service.node.tenants.replace(fresh.tenants)
            if configuration.fleet.source.isEmpty {
                service.node.setMembers(fresh.members, version: fresh.membersVersion)
                service.node.ownership?.want(fresh.members.map { RingMember($0) })
            }
            var expected = configuration
            expected.logLevel = fresh.logLevel
            expected.tenants = fresh.tenants
            expected.members = fresh.members
            expected.membersVersion = fresh.membersVersion
            expected.summary = fresh.summary
            expected.storage.address = fresh.storage.address
            expected.storage.itemBytes = fresh.storage.itemBytes
            if fresh != expected { log.warning("some changed settings wait for a restart") }
            // It is in use, whatever became of the files that it names.
            record.take(fresh.summary, waits: fresh != expected || !failures.isEmpty)
            if failures.isEmpty { log.info("reloaded") }
        } catch {
            record.refuse()
            log.error("reload failed", ["reason": .text(error.errors)])
        }
        ProcessSetup.notify(.ready, log: log)
    }
}
