// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Invalidation
internal import Platform
package import Storage
package import Telemetry

/// The Kafka transport of a node: puts its store's changes into a topic, or follows one. Threads of its own, which may
/// wait for brokers and the outbox, and serve no client.
///
/// Where regions may become home, it does the one or the other as ``turn(to:source:)`` says; ``pause()`` comes before
/// the node's store is another one.
package final class KafkaService: StreamFollowing {
    private struct State {
        var publishers: [KafkaPublisher] = []
        var follower: KafkaFollower?
        var isStarted = false
        var isStopped = false
    }

    private let configuration: StreamKafkaConfiguration
    private let registry: SchemaRegistry?
    private let consumer: (any StreamConsumer)?
    private let repairer = Guarded<(any StreamRepairer)?>(nil)
    private let log: Log?
    private let state = Guarded(State())

    /// A service that is not started: with a `source` it publishes, with a `consumer` it follows. `repairer` asks the
    /// source itself for what brokers do not have. Fails where the library refuses a setting, or cannot read a file.
    package convenience init(
        _ configuration: StreamKafkaConfiguration, source: (any ChangeSource)?, consumer: (any StreamConsumer)?,
        repairer: (any StreamRepairer)?, log: Log?
    ) throws(StreamStartError) {
        try self.init(configuration, mayPublish: source != nil, consumer: consumer, log: log)
        self.repairer.withLock { $0 = repairer }
        let publishers = source.map { makePublishers($0, nil) } ?? []
        let follower = consumer.map { makeFollower($0, .fixed) }
        state.withLock { ($0.publishers, $0.follower) = (publishers, follower) }
    }

    /// A service that is not started, nor told what to do: see ``turn(to:source:)``.
    package convenience init(
        turning configuration: StreamKafkaConfiguration, consumer: (any StreamConsumer)?, log: Log?
    ) throws(StreamStartError) {
        try self.init(configuration, mayPublish: true, consumer: consumer, log: log)
    }

    private init(
        _ configuration: StreamKafkaConfiguration, mayPublish: Bool, consumer: (any StreamConsumer)?, log: Log?
    ) throws(StreamStartError) {
        self.configuration = configuration
        self.consumer = consumer
        self.log = log
        let topics = [configuration.topic, configuration.stateTopic].compactMap { $0 }
        registry = mayPublish ? configuration.registry.map { SchemaRegistry($0, topics: topics, log: log) } : nil
        try Self.checkFiles(configuration)
        // What is wrong with settings and files shows at once; nothing is connected to before the start.
        do throws(KafkaFailure) {
            for kind in [KafkaHandle.Kind.producer, .consumer] where kind == .consumer || mayPublish {
                let settings = configuration.settings(kind).filter { $0.name != "bootstrap.servers" }
                _ = try KafkaHandle(kind, settings: settings, topic: configuration.topic, log: nil)
            }
        } catch { throw StreamStartError(description: "stream.kafka: \(error.reason)") }
    }

    private func makePublishers(_ source: any ChangeSource, _ term: HomeTerm?) -> [KafkaPublisher] {
        let leadership = KafkaLeadership()
        let kinds: [KafkaPublisher.Kind] = configuration.stateTopic == nil ? [.log] : [.log, .state]
        return kinds.map { kind in
            KafkaPublisher(
                kind, configuration, source: source, term: term, registry: registry, leadership: leadership, log: log)
        }
    }

    private func makeFollower(_ consumer: any StreamConsumer, _ home: BrokerHome) -> KafkaFollower {
        KafkaFollower(
            configuration, consumer: consumer, repairer: repairer.withLock { $0 }, home: home, log: log)
    }

    // MARK: Homes

    /// Who asks the home for what brokers do not have; before the start.
    package func attach(_ repairer: any StreamRepairer) { self.repairer.withLock { $0 = repairer } }

    /// Nothing that comes counts until the next ``turn(to:source:)``. Does not block.
    package func pause() { state.withLock { $0.follower }?.turn(to: .none) }

    /// The topic is not followed any more: the node is to follow its own store. Blocks.
    package func endFollowing() { state.withLock { state in state.follower.take() }?.stop() }

    /// The home is that of `term`: its store's changes are published where `source` is given, and followed where not.
    /// Blocks for about a second at most. Gives what went wrong: it is to be said again then.
    package func turn(to term: HomeTerm, source: (any ChangeSource)?) -> String? {
        let before = state.withLock { state in
            defer { state.publishers = [] }
            return state.publishers
        }
        for publisher in before { publisher.stop() }
        if source != nil { endFollowing() }
        let isThere = state.withLock { $0.follower }
        isThere?.turn(to: .term(term))
        let publishers = source.map { makePublishers($0, term) } ?? []
        let follower = source == nil && isThere == nil ? consumer.map { makeFollower($0, .term(term)) } : nil
        let isStarted = state.withLock { state in
            guard !state.isStopped else { return false }
            state.publishers = publishers
            if let follower { state.follower = follower }
            return state.isStarted
        }
        guard isStarted else { return nil }
        do throws(SystemError) {
            for publisher in publishers { try publisher.start() }
            try follower?.start()
        } catch {
            // One that has no thread follows nothing.
            if follower != nil { state.withLock { $0.follower = nil } }
            return "stream.kafka: \(error)"
        }
        return nil
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
        for publisher in state.withLock({ $0.publishers }) { publisher.wake() }
    }

    /// Starts the threads.
    package func start() throws(StreamStartError) {
        let (publishers, follower) = state.withLock { state in
            state.isStarted = true
            return (state.publishers, state.follower)
        }
        do throws(SystemError) {
            try registry?.start()
            for publisher in publishers { try publisher.start() }
            try follower?.start()
        } catch { throw StreamStartError(description: "stream.kafka: \(error)") }
    }

    /// Ends the service. Blocks until its threads have ended.
    package func stop() {
        registry?.stop()
        let (publishers, follower) = state.withLock { state in
            state.isStopped = true
            return (state.publishers, state.follower)
        }
        for publisher in publishers { publisher.stop() }
        follower?.stop()
    }

    /// Whether it follows a topic.
    package var isFollowing: Bool { state.withLock { $0.follower != nil } }

    /// Has the topic that is followed done something with, soon. What is missing is asked of the source, what is kept
    /// is read of the brokers.
    package func order(_ order: StreamOrder) throws(StreamOrderRefusal) {
        guard let follower = state.withLock({ $0.follower }) else {
            throw StreamOrderRefusal("this node follows no stream", isPassing: false)
        }
        switch order {
        case .skip: break
        case .repair where follower.repairer == nil:
            throw StreamOrderRefusal(
                "nobody can be asked for what is missing: the home region has no `stream` in `regions`. What the "
                    + "brokers do not have is given up by itself", isPassing: false)
        case .repair: break
        case .replay:
            let figures = follower.figures.withLock { $0 }
            guard figures.isConnected else {
                throw StreamOrderRefusal("nothing comes of the brokers: \(figures.reason)", isPassing: true)
            }
        }
        follower.orders.withLock { $0.add(order) }
    }

    /// How it goes.
    package var figures: KafkaFigures {
        var figures = KafkaFigures()
        (figures.topic, figures.stateTopic) = (configuration.topic, configuration.stateTopic ?? "")
        figures.registryReason = registry?.reason ?? ""
        let (publishers, follower) = state.withLock { ($0.publishers, $0.follower) }
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
