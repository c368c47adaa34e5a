// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Invalidation
internal import Platform
package import Storage
package import Telemetry

/// The Kafka transport of a node: puts its store's changes into a topic, or follows one. Threads of its own, which may
/// wait for brokers and the outbox, and serve no client.
package final class KafkaService: Sendable {
    private let configuration: StreamKafkaConfiguration
    private let registry: SchemaRegistry?
    private let publishers: [KafkaPublisher]
    private let follower: KafkaFollower?

    /// A service that is not started: with a `source` it publishes, with a `consumer` it follows. `repairer` asks the
    /// source itself for what brokers do not have. Fails where the library refuses a setting, or cannot read a file.
    package init(
        _ configuration: StreamKafkaConfiguration, source: (any ChangeSource)?, consumer: (any StreamConsumer)?,
        repairer: (any StreamRepairer)?, log: Log?
    ) throws(StreamStartError) {
        self.configuration = configuration
        let topics = [configuration.topic, configuration.stateTopic].compactMap { $0 }
        let registry = source == nil ? nil : configuration.registry.map { SchemaRegistry($0, topics: topics, log: log) }
        self.registry = registry
        publishers =
            source.map { source in
                let leadership = KafkaLeadership()
                let kinds: [KafkaPublisher.Kind] = configuration.stateTopic == nil ? [.log] : [.log, .state]
                return kinds.map { kind in
                    KafkaPublisher(
                        kind, configuration, source: source, registry: registry, leadership: leadership, log: log)
                }
            } ?? []
        follower = consumer.map { consumer in
            KafkaFollower(configuration, consumer: consumer, repairer: repairer, log: log)
        }
        try Self.checkFiles(configuration)
        // What is wrong with settings and files shows at once; nothing is connected to before the start.
        do throws(KafkaFailure) {
            for kind in [KafkaHandle.Kind.producer, .consumer] where kind == .consumer || source != nil {
                let settings = configuration.settings(kind).filter { $0.name != "bootstrap.servers" }
                _ = try KafkaHandle(kind, settings: settings, topic: configuration.topic, log: nil)
            }
        } catch { throw StreamStartError(description: "stream.kafka: \(error.reason)") }
    }

    /// The library does not say which file it cannot read.
    static func checkFiles(_ configuration: StreamKafkaConfiguration) throws(StreamStartError) {
        let files = [
            ("ca", configuration.authorityPath), ("certificate", configuration.certificatePath),
            ("key", configuration.keyPath), ("registryCa", configuration.registry?.authorityPath),
        ]
        for (name, path) in files {
            guard let path else { continue }
            do throws(SystemError) { _ = try readFile(path, limitBytes: 1 << 20) } catch {
                throw StreamStartError(description: "stream.kafka.\(name): \(path): cannot be read: \(error.reason)")
            }
        }
    }

    /// Changes came. Does not block.
    package func wake() {
        for publisher in publishers { publisher.wake() }
    }

    /// Starts the threads.
    package func start() throws(StreamStartError) {
        do throws(SystemError) {
            try registry?.start()
            for publisher in publishers { try publisher.start() }
            try follower?.start()
        } catch { throw StreamStartError(description: "stream.kafka: \(error)") }
    }

    /// Ends the service. Blocks until its threads have ended.
    package func stop() {
        registry?.stop()
        for publisher in publishers { publisher.stop() }
        follower?.stop()
    }

    /// How it goes.
    package var figures: KafkaFigures {
        var figures = KafkaFigures()
        (figures.topic, figures.stateTopic) = (configuration.topic, configuration.stateTopic ?? "")
        figures.registryReason = registry?.reason ?? ""
        for publisher in publishers {
            switch publisher.kind {
            case .log: figures.publisher = publisher.figures
            case .state: figures.state = publisher.figures
            }
        }
        figures.follower = follower.map { $0.figures.withLock { $0 } }
        return figures
    }
}
