// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Memory
internal import Platform
internal import Storage
internal import StreamDirect
internal import Synchronization
internal import Telemetry

/// The consistency monitor of a node that has a stream: a thread that picks some of the changes, and has those who
/// follow asked what they have of their keys. Safe to use from any thread.
final class NodeMonitor: Sendable {
    /// What it has found, for statistics.
    struct Figures {
        var windows: [ConsistencyWindow] = []
        var causes: [UInt64] = []
        var findings: [(seen: Inconsistency, unixMilliseconds: Int64)] = []
        /// Changes that there were, and those that were followed up.
        var changes: UInt64 = 0
        var followed: UInt64 = 0
        var waiting = 0
        var reads: UInt64 = 0
        var unexplained: UInt64 = 0
        var replicas = 0
    }

    private let streams: StreamService
    private let configuration: ConsistencyConfiguration
    private let log: Log?
    private let parking = Parking()
    private let isStopping = Atomic<Bool>(false)
    private let thread = Guarded<Thread?>(nil)
    private let current = Guarded(Figures())

    /// A monitor of the changes that `streams` carries from the node's own store, while it has any.
    init(_ configuration: ConsistencyConfiguration, streams: StreamService, log: Log?) {
        (self.configuration, self.streams, self.log) = (configuration, streams, log)
    }

    /// What it has found; nil before the node had a stream of its own.
    var figures: Figures? { current.withLock { $0.windows.isEmpty ? nil : $0 } }

    /// Starts the thread.
    func start() throws(SystemError) {
        let parking = parking
        streams.setLookWake { parking.announce() }
        let started = try Thread(name: "martlet-monitor") { [self] in run() }
        thread.withLock { $0 = started }
    }

    /// Ends it. Blocks, for as long as the store takes to answer at most.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        parking.announce()
        thread.exchange(nil)?.join()
        streams.setLookWake(nil)
    }

    private func run() {
        var monitor = ConsistencyMonitor(configuration, at: Clock.monotonicNanoseconds())
        var explained: Set<UInt64> = []
        var followed: (source: any ChangeSource, position: StreamPosition?, place: UInt64)?
        while !isStopping.load(ordering: .acquiring) {
            let ticket = parking.ticket
            var actions: [MonitorAction] = []
            let now = Clock.monotonicNanoseconds()
            for event in streams.lookEvents() { take(event, &monitor, &explained, now, &actions) }
            if let source = streams.source {
                if followed?.source !== source {
                    monitor.reset()
                    followed = (source, nil, source.tail.end)
                }
                if let fresh = source.position {
                    if let known = followed?.position, !fresh.isNumbered(as: known) { monitor.reset() }
                    followed?.position = fresh
                }
                pick(source, &followed, &monitor, now)
                monitor.tick(at: now, into: &actions)
                perform(actions, source, &monitor, &explained)
                publish(monitor)
            }
            parking.wait(ticket, timeoutNanoseconds: 100_000_000)
        }
    }

    /// Takes some of the changes that came since the last time, wherever among them; as many as are to be followed up.
    private func pick(
        _ source: any ChangeSource,
        _ followed: inout (source: any ChangeSource, position: StreamPosition?, place: UInt64)?,
        _ monitor: inout ConsistencyMonitor, _ now: UInt64
    ) {
        let end = source.tail.end
        guard let place = followed?.place, end > place else { return }
        let count = end - place
        let quota = min(UInt64(monitor.quota(at: now)), count)
        if quota > 0 {
            var from = place + UInt64.random(in: 0...count - quota)
            // What the tail has let go already was too much to be followed up.
            for entry in source.tail.read(from: &from, limit: Int(quota)) ?? [] {
                if let record = OutboxRecord(object: entry.bytes) { monitor.follow(record, at: now) }
            }
        }
        followed?.place = end
        current.withLock { $0.changes += count }
    }

    private func take(
        _ event: StreamLookEvent, _ monitor: inout ConsistencyMonitor, _ explained: inout Set<UInt64>, _ now: UInt64,
        _ actions: inout [MonitorAction]
    ) {
        switch event {
        case .asked(let number, let replicas): monitor.asked(number, replicas)
        case .answered(let number, let replica, let reports):
            if explained.remove(number) != nil {
                monitor.explained(number, reports.first?.trace, at: now, into: &actions)
            } else {
                monitor.answered(number, replica, reports, at: now, into: &actions)
            }
        }
    }

    private func perform(
        _ actions: [MonitorAction], _ source: any ChangeSource, _ monitor: inout ConsistencyMonitor,
        _ explained: inout Set<UInt64>
    ) {
        var rest = actions[...]
        while let action = rest.popFirst() {
            switch action {
            case .look(let number, let keys): streams.look(StreamLook(number, keys: keys))
            case .explain(let number, let replica, let key):
                // Without an answer they are given up, and forgotten here sooner or later.
                if explained.count >= 4 * configuration.suspectsMax { explained.removeAll() }
                explained.insert(number)
                streams.look(StreamLook(number, keys: [key], replica: replica))
            case .read(let number, let key):
                var more: [MonitorAction] = []
                monitor.read(number, storedVersion(key, source), at: Clock.monotonicNanoseconds(), into: &more)
                rest += more
            case .found(let found): tell(found)
            }
        }
    }

    /// The version of a key's row; nil where there is none, or the store does not say.
    private func storedVersion(_ key: [UInt8], _ source: any ChangeSource) -> UInt64? {
        do throws(StorageFailure) {
            return try source.rows([key], limitBytes: 1, valueMax: 0).first.flatMap { $0?.version }
        } catch { return nil }
    }

    private func tell(_ found: Inconsistency) {
        current.withLock { figures in
            if figures.findings.count >= configuration.findingsMax { figures.findings.removeFirst() }
            figures.findings.append((found, Int64(Clock.realtimeNanoseconds() / 1_000_000)))
        }
        log?.warning(
            "consistency: a copy is older than a change",
            [
                "node": .text(found.replica), "seconds": .count(found.seconds), "slot": .count(found.slot),
                "sequence": .text("\(found.sequence)"), "cause": .text("\(found.cause)"),
            ])
    }

    private func publish(_ monitor: ConsistencyMonitor) {
        current.withLock { figures in
            (figures.windows, figures.causes) = (monitor.windows, monitor.causes)
            (figures.followed, figures.waiting) = (monitor.followed, monitor.waiting)
            (figures.reads, figures.unexplained) = (monitor.reads, monitor.unexplained)
            figures.replicas = monitor.replicas
        }
    }
}

extension RegionSettings {
    /// What the monitor is told; nil where it is off.
    var monitor: ConsistencyConfiguration? {
        guard monitorRate > 0 else { return nil }
        var configuration = ConsistencyConfiguration()
        configuration.changesPerSecond = monitorRate
        return configuration
    }
}
