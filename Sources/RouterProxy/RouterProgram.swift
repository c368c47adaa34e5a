// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Admin
package import Hosting
internal import Platform
internal import Reactor
internal import Routing
internal import Telemetry

/// The program around a router: from a command line to the end of the process.
package struct RouterProgram {
    private let commandLine: RouterCommandLine
    private let configuration: RouterConfiguration
    /// What it was read from.
    private let files: [RouterCommandLine.WatchedFile]
    /// What stood there, and why it is the last one that could be used; nil where it is the one that is there.
    private let contents: LastGoodConfiguration
    private let failure: String?
    private let log: Log
    /// Whether the router serves: it is not ready once it drains.
    private let drain: Drain

    /// Reads the configuration; refuses what is wrong in it, and what only asks for a text.
    package init(_ commandLine: RouterCommandLine) throws(StartRefusal) {
        self.commandLine = commandLine
        let loaded = try commandLine.startingConfiguration()
        (configuration, files) = (loaded.configuration, loaded.files)
        (contents, failure) = (loaded.contents, loaded.failure)
        log = Log(.forProcess(format: configuration.logFormat, level: configuration.logLevel))
        drain = Drain(configuration.drain)
    }

    /// Servers of a pool that descriptors are reserved for, where nobody can know how many there will be.
    private static var expectedMembers: Int { 256 }
    /// How often the configuration's files are looked at, and members where there are any to look up. Milliseconds.
    private static var fileInterval: Int { 1_000 }
    private static var memberInterval: Int { 100 }

    /// Runs the router until a signal ends it.
    package func run() throws(StartRefusal) {
        Signal.block()
        let token = try AdminToken.read(configuration.adminTokenPath)
        let servers = configuration.routes.pools.reduce(0) { sum, pool in
            sum + (pool.members == nil ? pool.servers.count : Self.expectedMembers)
        }
        let backends = servers * 2 * configuration.threads
        try ProcessSetup.prepare(
            configuration.process, connections: configuration.connectionLimit + backends,
            threads: configuration.threads)
        let service: RouterService
        do throws(RouterStartError) {
            service = try RouterService(configuration, log: log)
        } catch {
            throw StartRefusal(code: StartRefusal.Code.configuration, errors: error.description + "\n")
        }
        let admin = try configuration.admin?.bind(
            product: "a router", token: token, routes: service.router.adminRoutes(drain, events: log.events),
            log: log)
        do throws(RouterStartError) {
            try service.bind()
            try service.start()
        } catch {
            throw StartRefusal(code: StartRefusal.Code.system, errors: error.description + "\n")
        }
        ProcessSetup.startWriting(log)
        defer { log.finish(milliseconds: ProcessSetup.logMilliseconds) }
        if let failure {
            log.error("the configuration is wrong: the last good one is used", ["reason": .text(failure)])
        }
        keep(contents)
        for note in configuration.notes { log.info("note", ["about": .text(note)]) }
        if ProcessControl.isRoot, configuration.process.user == nil {
            log.warning("running as root", ["setting": "--user NAME gives root's rights up"])
        }
        admin?.start(log: log)
        for listener in service.listeners { log.info("listening", ["address": .text(listener.address)]) }
        ProcessSetup.writePIDFile(configuration.process, log: log)
        ProcessSetup.notify(.ready, log: log)
        ProcessControl.releaseStartPages()
        serve(service)
        admin?.stop()
        log.info("stopped")
    }

    /// Waits for signals until one ends the router, and ends it; looks once a second whether the configuration's files
    /// changed.
    private func serve(_ service: RouterService) {
        var files = files
        var nextLook = Clock.monotonicNanoseconds()
        var events = RouterEvents()
        while true {
            let signal = Signal.wait(milliseconds: service.looksUpMembers ? Self.memberInterval : Self.fileInterval)
            switch signal {
            case .hangUp?: reload(service, &files)
            case nil:
                service.takeMembers()
                service.logDenials()
                let now = Clock.monotonicNanoseconds()
                guard now >= nextLook else { continue }
                nextLook = now &+ UInt64(Self.fileInterval) * 1_000_000
                events.look(service.router.plan, log: log, at: now)
                service.refreshAddresses()
                let fresh = files.map { RouterCommandLine.WatchedFile(path: $0.path, stamp: fileStamp($0.path)) }
                // A file that is gone for a moment is being replaced.
                guard fresh != files, !fresh.contains(where: { $0.stamp == nil }) else { continue }
                files = fresh
                reload(service, &files)
            case .user2?:
                log.info("draining")
                drain.advance(to: .draining)
            case .interrupt?, .terminate?, .user1?: return end(service, by: signal ?? .terminate)
            }
        }
    }

    /// Keeps what can be used, for a start that cannot use what is there then.
    private func keep(_ contents: LastGoodConfiguration) {
        guard let path = configuration.lastGoodPath, !contents.files.isEmpty else { return }
        contents.keep(at: path, log: log)
    }

    private func end(_ service: RouterService, by signal: Signal) {
        ProcessSetup.notify(.stopping, log: log)
        drain.advance(to: .ending)
        log.info(
            signal == .interrupt ? "stopping" : "stopping gracefully",
            ["within_ms": .count(signal == .interrupt ? 0 : configuration.drain.timeoutMilliseconds)])
        drain.end(EndingService(stop: service.stop, wait: service.wait), by: signal)
    }

    /// Reads the configuration again, and notes the files that it came from. What is wrong in it changes nothing.
    private func reload(_ service: RouterService, _ files: inout [RouterCommandLine.WatchedFile]) {
        ProcessSetup.notify(.reloading, log: log)
        defer { ProcessSetup.notify(.ready, log: log) }
        let record = service.router.configurationRecord
        do throws(StartRefusal) {
            let loaded = try commandLine.configuration()
            let fresh = loaded.configuration
            files = loaded.files
            do throws(RouterStartError) {
                try service.reload(fresh)
            } catch {
                record.refuse()
                return log.error("reload failed", ["reason": .text(error.description)])
            }
            let failures = service.reloadCertificates() + [service.reloadUsers()].compactMap { $0 }
            for failure in failures { log.error("reload failed", ["reason": .text(failure)]) }
            log.setLevel(fresh.logLevel)
            var expected = configuration
            expected.routes = fresh.routes
            expected.tenants = fresh.tenants
            expected.defaults = fresh.defaults
            expected.serverTLS = fresh.serverTLS
            expected.logLevel = fresh.logLevel
            expected.summary = fresh.summary
            record.take(fresh.summary, waits: fresh != expected || !failures.isEmpty)
            if fresh != expected { log.warning("some changed settings wait for a restart") }
            keep(loaded.contents)
            log.info("reloaded", ["servers": .count(service.router.plan.backends.count)])
        } catch {
            record.refuse()
            log.error("reload failed", ["reason": .text(error.errors)])
        }
    }
}
