// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Reactor
package import Storage
package import Telemetry

/// A stream that cannot be started, and why.
package struct StreamStartError: Error, Sendable, CustomStringConvertible {
    package let description: String
}

/// The direct transport of a node: follows the home region's stream, and lets others follow ours. One thread, which
/// may wait for the outbox, and serves no client.
///
/// Order: `init` loads certificates, `bind` binds the address, `start` begins, `stop` ends it.
package final class StreamService: Sendable {
    private let shared: StreamShared
    private let group: ReactorGroup
    private let tls: TLSContext?

    /// A service that is not started. `source` is our own store's outbox, `consumer` whom a followed stream is for.
    package init(
        _ configuration: StreamDirectConfiguration, source: (any ChangeSource)?, consumer: (any StreamConsumer)?,
        log: Log?
    ) throws(StreamStartError) {
        let shared = StreamShared(configuration, source: source, consumer: consumer, log: log)
        self.shared = shared
        shared.figures.withLock { $0.home = configuration.home?.region }
        do throws(TLSError) {
            tls = try configuration.security.map { security throws(TLSError) in
                var files = TLSConfiguration(chainPath: security.certificatePath, keyPath: security.keyPath)
                files.authorityPath = security.authorityPath
                files.verifyMode = .require
                files.minimumVersion = .tls13
                return try TLSContext(files)
            }
            let client = try Self.clientContext(configuration)
            shared.clientTLS.withLock { $0 = client }
        } catch { throw StreamStartError(description: "stream: \(error)") }
        var reactors = ReactorConfiguration()
        reactors.threads = 1
        reactors.threadName = "martlet-stream"
        reactors.connectionLimit = configuration.consumersMax + 16
        reactors.readBufferBytes = 1 << 20
        reactors.inputLimitBytes = 8 << 20
        do throws(SystemError) {
            group = try ReactorGroup(reactors, tls: tls) { reactor in StreamHandler(shared, reactor) }
        } catch { throw StreamStartError(description: "stream: \(error)") }
        shared.attach(group.reactors[0])
    }

    private static func clientContext(
        _ configuration: StreamDirectConfiguration
    ) throws(TLSError) -> TLSClientContext? {
        guard let security = configuration.security, let home = configuration.home else { return nil }
        var files = TLSClientConfiguration()
        files.authorityPath = security.authorityPath
        files.chainPath = security.certificatePath
        files.keyPath = security.keyPath
        files.requiresTLS13 = true
        return try TLSClientContext(files, host: home.region)
    }

    /// Binds the address that others follow us at, if there is one.
    package func bind() throws(StreamStartError) {
        guard let listen = shared.configuration.listen else { return }
        let security: ListenerConfiguration.Security = tls == nil ? .none : .mutualTLS
        do throws(ListenError) {
            try group.listen(
                ListenerConfiguration(.tcp(host: listen.host, port: listen.port), security: security))
        } catch { throw StreamStartError(description: "stream.listen: \(error)") }
    }

    /// The port that was bound; nil when nobody may follow us.
    package var port: UInt16? { group.listeners.first?.port }

    /// Starts the thread.
    package func start() throws(StreamStartError) {
        let shared = shared
        shared.source?.tail.setWake { shared.wake() }
        do throws(SystemError) { try group.start() } catch { throw StreamStartError(description: "stream: \(error)") }
    }

    /// Ends the service. Blocks until its thread has ended.
    package func stop() {
        shared.source?.tail.setWake(nil)
        group.stop(.immediate)
        group.join()
    }

    /// Reads certificates again; connections go on with the old ones. Returns what went wrong.
    package func reload() -> String? {
        do throws(TLSError) {
            try tls?.reload()
            let client = try Self.clientContext(shared.configuration)
            shared.clientTLS.withLock { $0 = client }
            return nil
        } catch { return "stream: \(error)" }
    }

    /// How it goes.
    package var figures: StreamFigures { shared.figures.withLock { $0 } }
}
