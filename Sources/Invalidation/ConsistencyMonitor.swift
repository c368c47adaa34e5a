// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage

/// What a ``ConsistencyMonitor`` is told, with its limits.
package struct ConsistencyConfiguration: Sendable, Equatable {
    /// How long after a change every node is asked, in seconds, ascending.
    package var windowSeconds = [1, 10, 60, 300]
    /// Changes a second that are followed up.
    package var changesPerSecond = 10
    /// Rows a second that are looked up in the store, for suspects.
    package var readsPerSecond = 10
    /// How long a node, or the store, may take to answer, in nanoseconds.
    package var answerNanoseconds: UInt64 = 5_000_000_000
    /// Keys in one question at most.
    package var keysPerLook = 64
    /// Questions without an answer at most.
    package var looksMax = 256
    /// Suspects that are looked into at once.
    package var suspectsMax = 64
    /// Inconsistencies that are kept by whoever is told of them, the newest.
    package var findingsMax = 100

    /// The defaults of docs/streams.md.
    package init() {}
}

/// A copy that was older than a change which was long enough ago.
package struct Inconsistency: Sendable, Equatable {
    /// The node: its region and name.
    package var replica: String
    /// The key.
    package var key: [UInt8]
    /// Where the change is in the stream.
    package var slot: Int
    /// Its number there.
    package var sequence: Int64
    /// The change's version.
    package var version: UInt64
    /// The version that the node showed.
    package var shown: UInt64
    /// The version that the store had; nil where it was not to be learned, or has no row.
    package var stored: UInt64?
    /// How long after the change, in seconds.
    package var seconds: Int
    /// Why.
    package var cause: InconsistencyCause
    /// What the node remembered, and how long after the change it was asked for that, in microseconds.
    package var trace: CopyTrace?
    /// How long after the change that was asked for, in microseconds.
    package var askedMicroseconds: UInt64
}

/// What a monitor asks its shell to do. A number says which call the answer is for.
package enum MonitorAction: Sendable, Equatable {
    /// Ask every node what it has of keys: ``ConsistencyMonitor/asked(_:_:)`` and what follows it.
    case look(UInt64, keys: [[UInt8]])
    /// Ask one node what it remembers of a key: ``ConsistencyMonitor/explained(_:_:at:into:)``.
    case explain(UInt64, replica: String, key: [UInt8])
    /// Look up a key's row in the store: ``ConsistencyMonitor/read(_:_:at:into:)``.
    case read(UInt64, key: [UInt8])
    /// Tell of an inconsistency.
    case found(Inconsistency)
}

/// Follows changes up: asks every node, some times after a change, what it has of the key, and counts copies that are
/// older. Goes to the store for those only, within a rate, and has the node explain them. Pure: records, answers and
/// time come in, actions go out.
///
/// Sources: Meta, "Cache made consistent" (2022), whose Polaris does this; Uber, "How Uber serves over 150 million
/// reads per second" (2025), whose Cache Inspector does.
package struct ConsistencyMonitor: Sendable {
    /// A change that is followed up.
    private struct Sample {
        var key: [UInt8]
        var version: UInt64
        var epoch: Int64
        var slot: Int
        var sequence: Int64
        var since: UInt64
    }

    /// A question to all nodes.
    private struct Look {
        var window: Int
        var samples: [Sample]
        /// Who is to answer; nil until that is known.
        var waiting: Set<String>?
        var end: UInt64
    }

    /// A copy that seems to be older than a change.
    private struct Suspect {
        var sample: Sample
        var window: Int
        var replica: String
        var shown: UInt64
        var trace: CopyTrace?
        var stored: UInt64?
        var asked: UInt64
        var missing = 2
        var end: UInt64
    }

    private let configuration: ConsistencyConfiguration
    /// Changes, oldest first, and the number of the first; by window, the number of the next that is due.
    private var samples: [Sample] = []
    private var first = 0
    private var next: [Int]
    private var looks: [UInt64: Look] = [:]
    private var suspects: [UInt64: Suspect] = [:]
    private var number: UInt64 = 0
    private var sampling: Budget
    private var reading: Budget

    /// What was found, by window.
    package private(set) var windows: [ConsistencyWindow]
    /// By cause, how many inconsistencies.
    package private(set) var causes = [UInt64](repeating: 0, count: InconsistencyCause.allCases.count)
    /// Changes that were followed up.
    package private(set) var followed: UInt64 = 0
    /// Rows that were looked up.
    package private(set) var reads: UInt64 = 0
    /// Stale copies that were counted without looking into them: there were too many.
    package private(set) var unexplained: UInt64 = 0
    /// The nodes that were asked last.
    package private(set) var replicas = 0

    /// A monitor that follows up changes from `now` on, in monotonic nanoseconds.
    package init(_ configuration: ConsistencyConfiguration, at now: UInt64) {
        self.configuration = configuration
        windows = configuration.windowSeconds.map { ConsistencyWindow(seconds: $0) }
        next = [Int](repeating: 0, count: configuration.windowSeconds.count)
        sampling = Budget(perSecond: configuration.changesPerSecond, now: now)
        reading = Budget(perSecond: configuration.readsPerSecond, now: now)
    }

    /// Changes that wait for their last look.
    package var waiting: Int { samples.count }

    // MARK: Changes

    /// How many changes may be followed up by now.
    package mutating func quota(at now: UInt64) -> Int { sampling.left(at: now) }

    /// Follows a change up, which was seen at `now`.
    package mutating func follow(_ record: OutboxRecord, at now: UInt64) {
        guard !record.key.isEmpty, [.set, .delete, .touch].contains(record.operation) else { return }
        sampling.take()
        followed += 1
        samples.append(
            Sample(
                key: record.key, version: record.version, epoch: record.epoch, slot: Int(record.slot),
                sequence: record.sequence, since: now))
    }

    /// The stream is numbered anew: what was followed up means nothing any more.
    package mutating func reset() {
        first += samples.count
        samples.removeAll()
        next = next.map { _ in first }
        looks.removeAll()
        suspects.removeAll()
    }

    // MARK: Looks

    /// Asks what is due, and gives up what was not answered in time. To be called ten times a second.
    package mutating func tick(at now: UInt64, into actions: inout [MonitorAction]) {
        for (number, look) in looks where look.end <= now {
            for _ in 0..<(look.waiting?.count ?? 0) * look.samples.count { windows[look.window].note(.failed) }
            looks[number] = nil
        }
        for (number, suspect) in suspects where suspect.end <= now {
            conclude(number, suspect, at: now, into: &actions)
        }
        for window in windows.indices { ask(window, at: now, into: &actions) }
        let done = (next.min() ?? first) - first
        // Not each time: it moves all the rest.
        if done >= 256 || done == samples.count {
            samples.removeFirst(done)
            first += done
        }
    }

    private mutating func ask(_ window: Int, at now: UInt64, into actions: inout [MonitorAction]) {
        let delay = UInt64(windows[window].seconds) * 1_000_000_000
        while looks.count < configuration.looksMax {
            let rest = samples[(next[window] - first)...].prefix(configuration.keysPerLook)
            let due = Array(rest.prefix { $0.since &+ delay <= now })
            if due.isEmpty { return }
            next[window] += due.count
            number += 1
            looks[number] = Look(
                window: window, samples: due, waiting: nil, end: now &+ configuration.answerNanoseconds)
            actions.append(.look(number, keys: due.map(\.key)))
        }
    }

    /// The nodes that a question went to.
    package mutating func asked(_ number: UInt64, _ replicas: [String]) {
        guard looks[number] != nil else { return }
        self.replicas = replicas.count
        looks[number]?.waiting = replicas.isEmpty ? nil : Set(replicas)
        if replicas.isEmpty { looks[number] = nil }
    }

    /// A node's answer to a question: a report for each key, in their order.
    package mutating func answered(
        _ number: UInt64, _ replica: String, _ reports: [CopyReport], at now: UInt64,
        into actions: inout [MonitorAction]
    ) {
        guard let look = looks[number], looks[number]?.waiting?.remove(replica) != nil else { return }
        if looks[number]?.waiting?.isEmpty ?? false { looks[number] = nil }
        for (index, sample) in look.samples.enumerated() {
            let sight = index < reports.count ? reports[index].sight : nil
            let verdict = CopyVerdict(sight, version: sample.version)
            if verdict == .stale, case .copy(let shown) = sight {
                suspect(sample, look.window, replica, shown, at: now, into: &actions)
            } else {
                windows[look.window].note(verdict)
            }
        }
    }

    // MARK: Suspects

    private mutating func suspect(
        _ sample: Sample, _ window: Int, _ replica: String, _ shown: UInt64, at now: UInt64,
        into actions: inout [MonitorAction]
    ) {
        guard suspects.count < configuration.suspectsMax, reading.left(at: now) > 0 else {
            windows[window].note(.stale)
            unexplained += 1
            return
        }
        reading.take()
        number += 1
        suspects[number] = Suspect(
            sample: sample, window: window, replica: replica, shown: shown, asked: now,
            end: now &+ configuration.answerNanoseconds)
        actions.append(.explain(number, replica: replica, key: sample.key))
        actions.append(.read(number, key: sample.key))
    }

    /// What a suspect's node remembers; nil where it does not say.
    package mutating func explained(
        _ number: UInt64, _ trace: CopyTrace?, at now: UInt64, into actions: inout [MonitorAction]
    ) {
        suspects[number]?.trace = trace
        note(number, at: now, into: &actions)
    }

    /// The version of a suspect's row in the store; nil where it has none, or could not be asked.
    package mutating func read(
        _ number: UInt64, _ version: UInt64?, at now: UInt64, into actions: inout [MonitorAction]
    ) {
        guard suspects[number] != nil else { return }
        reads += 1
        suspects[number]?.stored = version
        note(number, at: now, into: &actions)
    }

    private mutating func note(_ number: UInt64, at now: UInt64, into actions: inout [MonitorAction]) {
        suspects[number]?.missing -= 1
        if let suspect = suspects[number], suspect.missing == 0 { conclude(number, suspect, at: now, into: &actions) }
    }

    private mutating func conclude(
        _ number: UInt64, _ suspect: Suspect, at now: UInt64, into actions: inout [MonitorAction]
    ) {
        suspects[number] = nil
        let sample = suspect.sample
        // A store that was put back: the copy is what it has, and the change is not there any more.
        if let stored = suspect.stored, stored < sample.version { return windows[suspect.window].note(.refuted) }
        windows[suspect.window].note(.stale)
        let asked = (suspect.asked &- sample.since) / 1000
        let cause = InconsistencyCause(
            suspect.trace, epoch: sample.epoch, sequence: sample.sequence, version: sample.version,
            ageMicroseconds: asked)
        causes[cause.rawValue] += 1
        actions.append(
            .found(
                Inconsistency(
                    replica: suspect.replica, key: sample.key, slot: sample.slot, sequence: sample.sequence,
                    version: sample.version, shown: suspect.shown, stored: suspect.stored,
                    seconds: windows[suspect.window].seconds, cause: cause, trace: suspect.trace,
                    askedMicroseconds: asked)))
    }
}

/// So many a second, and as many at once after a second without any.
private struct Budget: Sendable {
    private let interval: UInt64
    private let burst: UInt64
    /// Until when all was taken.
    private var paid: UInt64

    init(perSecond: Int, now: UInt64) {
        burst = UInt64(max(perSecond, 0))
        interval = 1_000_000_000 / max(burst, 1)
        paid = now
    }

    mutating func left(at now: UInt64) -> Int {
        guard burst > 0, now > paid else { return 0 }
        paid = max(paid, now &- min(now, burst * interval))
        return Int((now - paid) / interval)
    }

    mutating func take() { paid += interval }
}
