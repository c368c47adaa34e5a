// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage
internal import Synchronization
internal import Telemetry

/// Puts a store's changes into a topic, on a thread of its own. Safe to use from any thread.
final class KafkaPublisher: Sendable {
    /// What the topic is for.
    enum Kind: Sendable {
        /// The stream: every record, with heartbeats between.
        case log
        /// The last state of each key: values, and tombstones.
        case state
    }

    let kind: Kind
    let configuration: StreamKafkaConfiguration
    let source: any ChangeSource
    /// Since when the store is the home's; nil where that is always the same region.
    let term: HomeTerm?
    let registry: SchemaRegistry?
    let log: Log?
    /// Whether this node is the one to publish, as the stream's publisher decides.
    let leadership: KafkaLeadership
    /// How it goes, but for the backlog, and by slot the last number that brokers have acknowledged.
    let noted = Guarded(
        (counts: KafkaFigures.Publisher(), acknowledged: [Int64](repeating: 0, count: StreamSlots.count)))
    private let parking = Parking()
    private let isStopping = Atomic<Bool>(false)
    private let thread = Guarded<Thread?>(nil)

    init(
        _ kind: Kind, _ configuration: StreamKafkaConfiguration, source: any ChangeSource, term: HomeTerm?,
        registry: SchemaRegistry?, leadership: KafkaLeadership, log: Log?
    ) {
        self.kind = kind
        self.configuration = configuration
        self.source = source
        self.term = term
        self.registry = registry
        self.leadership = leadership
        self.log = log
    }

    /// The topic.
    var topic: String { kind == .log ? configuration.topic : configuration.stateTopic ?? "" }

    /// How it goes. The backlog is that of now: what was committed before this call and not acknowledged is among it.
    var figures: KafkaFigures.Publisher {
        let noted = noted.withLock { $0 }
        guard noted.counts.leads, let last = source.position?.sequences else { return noted.counts }
        var counts = noted.counts
        for slot in 0..<StreamSlots.count { counts.backlog &+= max(0, last[slot] - noted.acknowledged[slot]) }
        return counts
    }

    var isStopped: Bool { isStopping.load(ordering: .acquiring) }

    func start() throws(SystemError) {
        let name = kind == .log ? "kafka-publish" : "kafka-state"
        let thread = try Thread(name: name) { [self] in run() }
        self.thread.withLock { $0 = thread }
    }

    /// Changes came. Does not block.
    func wake() { parking.announce() }

    /// Ends the thread. Blocks, for about a second at most where brokers are away.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        parking.announce()
        thread.exchange(nil)?.join()
    }

    private func run() {
        let outlet = KafkaOutlet(self)
        while !isStopped {
            let ticket = parking.ticket
            let wait = outlet.step()
            if wait == 0 || isStopped { continue }
            parking.wait(ticket, timeoutNanoseconds: wait)
            // What comes with it is sent with it.
            if parking.ticket != ticket { Thread.sleep(microseconds: 1000) }
        }
        outlet.finish()
    }
}

/// Whether this node publishes, and what either of its outlets found out about that, told by one thread to the other.
/// Safe to use from any thread.
final class KafkaLeadership: Sendable {
    private let state = Atomic<Bool>(false)
    private let lastConfirmed = Atomic<Int64>(0)
    private let lastFence = Guarded<(position: StreamPosition, why: String)?>(nil)

    /// Whether this node publishes.
    var leads: Bool {
        get { state.load(ordering: .acquiring) }
        set { state.store(newValue, ordering: .releasing) }
    }

    /// When the last heartbeat of ours was asked for that came back from the topic, in Unix milliseconds: until then
    /// nobody had said before it that the stream is another one's.
    var confirmed: Int64 {
        get { lastConfirmed.load(ordering: .acquiring) }
        set { lastConfirmed.store(newValue, ordering: .releasing) }
    }

    /// The numbering that may publish no more, and why.
    var fence: (position: StreamPosition, why: String)? { lastFence.withLock { $0 } }

    /// The topics are another one's, as long as the store is in this numbering.
    func fence(_ position: StreamPosition, _ why: String) { lastFence.withLock { $0 = (position, why) } }
}
