// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Invalidation
internal import Platform
package import Storage
internal import Synchronization
package import Telemetry

/// How the reading of Debezium's topic goes.
package struct DebeziumFigures: Sendable, Equatable {
    /// The topic.
    package var topic = ""
    /// Whether this node reads it, rather than another with the same database.
    package var reads = false
    /// Messages that were taken.
    package var messages: UInt64 = 0
    /// Changes that came of them.
    package var changes: UInt64 = 0
    /// Messages that could not be understood.
    package var damaged: UInt64 = 0
    /// Snapshots of the connector's, for which all copies were given up.
    package var snapshots: UInt64 = 0
    /// Schemas of messages that a registry has told, and that are kept.
    package var schemas = 0
    /// Times that a registry did not tell the schema of a message.
    package var schemaFailures: UInt64 = 0
    /// Times that messages of a partition were gone before they were read.
    package var overruns: UInt64 = 0
    /// Messages that the brokers have and that were not taken yet, as far as is known.
    package var behind: Int64 = 0
    /// Why nothing is read; empty while it is.
    package var reason = ""
    /// Since when this node has neither had all that there is, nor taken any of it, nor left that to another one, in
    /// monotonic nanoseconds; 0 while that is not so.
    var stalledSince: UInt64 = 0

    /// How long that has been so, in seconds.
    package var stalledSeconds: Double {
        let now = Clock.monotonicNanoseconds()
        return stalledSince == 0 || now < stalledSince ? 0 : Double(now - stalledSince) / 1e9
    }
}

/// Reads the topic of a Debezium connector that tells of the table of rows, and puts what it tells into the store's
/// stream. A thread of its own. Of the nodes that share a database one reads at a time: where it is stands in the
/// database. Safe to use from any thread.
package final class DebeziumInput: Sendable {
    let configuration: StreamKafkaConfiguration
    let intake: any ChangeIntake
    let log: Log?
    let noted: Guarded<DebeziumFigures>
    private let isStopping = Atomic<Bool>(false)
    private let thread = Guarded<Thread?>(nil)

    /// Whether the thread is to end.
    var isStopped: Bool { isStopping.load(ordering: .acquiring) }

    /// A reader of the configuration's topic that is not started. Fails where the library refuses a setting.
    package init(
        _ configuration: StreamKafkaConfiguration, intake: any ChangeIntake, log: Log?
    ) throws(StreamStartError) {
        self.configuration = configuration
        self.intake = intake
        self.log = log
        noted = Guarded(DebeziumFigures(topic: configuration.topic))
        try KafkaService.checkFiles(configuration)
        do throws(KafkaFailure) {
            let settings = configuration.settings(.consumer).filter { $0.name != "bootstrap.servers" }
            _ = try KafkaHandle(.consumer, settings: settings, topic: configuration.topic, log: nil)
        } catch { throw StreamStartError(description: "stream.kafka: \(error.reason)") }
    }

    /// How it goes.
    package var figures: DebeziumFigures { noted.withLock { $0 } }

    /// Starts the thread.
    package func start() throws(StreamStartError) {
        do throws(SystemError) {
            let thread = try Thread(name: "kafka-debezium") { [self] in
                let reader = DebeziumReader(self)
                while !isStopped { reader.step() }
            }
            self.thread.withLock { $0 = thread }
        } catch { throw StreamStartError(description: "stream.kafka.debezium: \(error)") }
    }

    /// Ends the thread. Blocks, for some seconds at most where the brokers, or the database, are away.
    package func stop() {
        isStopping.store(true, ordering: .releasing)
        thread.exchange(nil)?.join()
    }
}

/// The work of a ``DebeziumInput``, on its thread.
private final class DebeziumReader {
    private let owner: DebeziumInput
    private let schemas: WriterSchemas
    private var handle: KafkaHandle?
    /// By partition, the next message as the database has it; nil while nothing is read.
    private var next: [Int64]?
    /// Whether it moved a place since it began to read.
    private var hasMoved = false
    /// By partition, where another node was when this one began to stand by, or looked last; nil while it does not.
    private var others: [Int: Int64]?
    /// The message that cannot be read without a schema, and that schema's number.
    private var awaited: (schema: UInt32, partition: Int, offset: Int64)?
    /// The snapshots that all copies were given up for since it began to read; of many, the last. Where partitions were
    /// added, the rows of two come in turn.
    private var snapshots: [Int64] = []
    /// By partition, the end to which it was read: some of what is before it may be no messages, but marks of brokers.
    private var readEnds: [Int: Int64] = [:]
    /// Whether something was taken since figures were noted.
    private var hasTaken = false
    private var retryAt: UInt64 = 0
    private var nextLook: UInt64 = 0
    /// Whether a message could not be had since the last look.
    private var hasFailed = false
    private var failures = 0
    private var figures: DebeziumFigures
    private var nextNote: UInt64 = 0
    private var loggedReason = ""

    /// What came of one partition and was not taken yet.
    private struct Pending {
        var changes: [LoggedChange] = []
        var next: Int64
    }

    /// Messages that are taken together at most: they are one statement.
    private static let batchMessages = 500
    /// How long another node that reads is left alone, in nanoseconds.
    private static let standbyNanoseconds: UInt64 = 5_000_000_000
    /// How long messages are taken together at most, in nanoseconds.
    private static let batchNanoseconds: UInt64 = 500_000_000
    /// Snapshots that are remembered at most.
    private static let snapshotsMax = 16
    /// Between looks at how many partitions there are, in nanoseconds.
    private static let lookNanoseconds: UInt64 = 5_000_000_000

    init(_ owner: DebeziumInput) {
        self.owner = owner
        schemas = WriterSchemas(owner.configuration.registry.map { RegistryClient($0) { owner.isStopped } })
        figures = owner.figures
        figures.stalledSince = Clock.monotonicNanoseconds()
    }

    private var configuration: StreamKafkaConfiguration { owner.configuration }
    private var topic: String { configuration.topic }

    /// Does what there is to do; waits a little for more.
    func step() {
        let now = Clock.monotonicNanoseconds()
        defer { note(now) }
        if next == nil {
            if now < retryAt { return Thread.sleep(microseconds: 10_000) }
            if isReadable() && !othersMoved(now) { open(now) }
        } else {
            read(now)
            look(now)
        }
    }

    // MARK: Places

    private func open(_ now: UInt64) {
        do throws(KafkaFailure) {
            if handle == nil || handle?.fatal != nil {
                handle = nil
                let settings = configuration.settings(.consumer) + [("enable.partition.eof", "true")]
                handle = try KafkaHandle(.consumer, settings: settings, topic: topic, log: owner.log)
            }
            guard let handle else { return }
            let limit = configuration.questionMilliseconds
            // Before the ends: of another node's place, which moves meanwhile, none is behind them then.
            let known = try knownPlaces()
            let count = try handle.partitionCount(milliseconds: limit)
            let starts = try handle.offsets(ofEnds: false, partitions: count, milliseconds: limit)
            let ends = try handle.offsets(ofEnds: true, partitions: count, milliseconds: limit)
            guard let places = try settle(known, starts, ends) else { return standBy(now) }
            // What is still here of what was assigned before is from further on, perhaps.
            try handle.assign([])
            while handle.receive(milliseconds: 0) != nil {}
            try handle.assign(places)
            (next, hasMoved, failures, figures.reads) = (places, false, 0, true)
            (nextLook, hasFailed, snapshots, readEnds) = (now &+ Self.lookNanoseconds, false, [], [:])
            say("")
        } catch { fail("the brokers: \(error.reason)", now) }
    }

    private func knownPlaces() throws(KafkaFailure) -> [Int: Int64] {
        do throws(StorageFailure) { return try owner.intake.places(of: topic) } catch {
            throw KafkaFailure(code: 0, reason: "the store: \(error.reason)")
        }
    }

    /// Where all partitions go on: where the database says. The first time they are passed over to their ends, and what
    /// is cached is given up: nobody knows which of these messages are younger. From the highest partition down, so
    /// that those above the known ones are such as were added since: all of their messages are read. Messages that are
    /// gone may have told of anything. Nil where another node reads.
    private func settle(
        _ known: [Int: Int64], _ starts: [Int64], _ ends: [Int64]
    ) throws(KafkaFailure) -> [Int64]? {
        do throws(StorageFailure) {
            let last = known.keys.max() ?? .max
            var places = starts
            var isGivenUp = false
            for partition in ends.indices.reversed() {
                let place = known[partition]
                if let place, place >= starts[partition], place <= ends[partition] {
                    places[partition] = place
                    continue
                }
                // Where there was a place, at the start, so that nothing is passed over that comes meanwhile.
                if place == nil, partition < last { places[partition] = ends[partition] }
                // The ends were told before: one flush is behind all that is passed over.
                let isLost = place != nil || partition < last || starts[partition] > 0
                let lost = isLost && !isGivenUp ? [Self.everything] : []
                let fresh = places[partition]
                guard try owner.intake.take(lost, of: topic, partition: partition, from: place, to: fresh)
                else { return nil }
                isGivenUp = isGivenUp || isLost
                if place != nil {
                    figures.overruns += 1
                    owner.log?.warning(
                        "debezium: messages are gone that were not read: all copies are given up",
                        ["topic": .text(topic), "partition": .count(partition)])
                }
            }
            return places
        } catch { throw KafkaFailure(code: 0, reason: "the store: \(error.reason)") }
    }

    /// All copies are given up. Its version is not one that rows have: the rows are still there, and are cached again.
    private static var everything: LoggedChange {
        let time = Int64(clamping: Clock.realtimeNanoseconds() / 1_000_000)
        return LoggedChange(.flush, key: [], version: time, timeMilliseconds: time, isUnconditional: true)
    }

    /// Another node has read on. Where this one did as well, it may stand by already: then this one reads.
    private func standBy(_ now: UInt64) {
        (next, figures.reads) = (nil, false)
        if hasMoved {
            (hasMoved, retryAt) = (false, now)
            return
        }
        do throws(KafkaFailure) {
            others = try knownPlaces()
            retryAt = now &+ Self.standbyNanoseconds
            say("")
        } catch { fail(error.reason, now) }
    }

    /// Whether another node read on while this one stood by: it stands by for longer.
    private func othersMoved(_ now: UInt64) -> Bool {
        guard let before = others else { return false }
        others = nil
        do throws(KafkaFailure) {
            let found = try knownPlaces()
            guard found != before else { return false }
            others = found
            retryAt = now &+ Self.standbyNanoseconds
        } catch { fail(error.reason, now) }
        return true
    }

    /// Looks now and then whether partitions were added, which have to be read as well. What was wrong is over where
    /// nothing was since the last look: said sooner, one partition's trouble would fill the log.
    private func look(_ now: UInt64) {
        guard let handle, let next, now >= nextLook else { return }
        defer { (nextLook, hasFailed) = (now &+ Self.lookNanoseconds, false) }
        do throws(KafkaFailure) {
            let count = try handle.partitionCount(milliseconds: configuration.questionMilliseconds)
            if count != next.count {
                (self.next, retryAt) = (nil, now)
            } else if !hasFailed {
                say("")
            }
        } catch { say("the brokers: \(error.reason)") }
    }

    private func fail(_ reason: String, _ now: UInt64) {
        (next, figures.reads) = (nil, false)
        let wait = min(
            configuration.firstRetryNanoseconds << UInt64(min(failures, 10)), configuration.lastRetryNanoseconds)
        failures += 1
        retryAt = now &+ wait
        say(reason)
    }

    private func say(_ reason: String) {
        figures.reason = reason
        guard reason != loggedReason else { return }
        loggedReason = reason
        if reason.isEmpty {
            owner.log?.info("debezium: reading", ["topic": .text(topic)])
        } else {
            owner.log?.warning("debezium: nothing is read", ["topic": .text(topic), "reason": .text(reason)])
        }
    }

    // MARK: Messages

    /// Asks for the schema that the next message has, where it is not known. Whether there is none to be asked for.
    private func isReadable() -> Bool {
        guard let message = awaited else { return true }
        defer { (figures.schemas, figures.schemaFailures) = (schemas.count, schemas.failures) }
        do throws(SchemaAwaited) {
            _ = try schemas.ask(message.schema)
            awaited = nil
            return true
        } catch {
            if isPassed(message.partition, message.offset) {
                awaited = nil
                return true
            }
            fail(error.reason, Clock.monotonicNanoseconds())
            return false
        }
    }

    /// Whether a message is not to be read any more: somebody moved the place beyond it, or it is gone.
    private func isPassed(_ partition: Int, _ offset: Int64) -> Bool {
        do throws(KafkaFailure) {
            guard let place = try knownPlaces()[partition], place <= offset else { return true }
            guard let handle, handle.fatal == nil else { return false }
            let limit = configuration.questionMilliseconds
            let count = try handle.partitionCount(milliseconds: limit)
            let starts = try handle.offsets(ofEnds: false, partitions: count, milliseconds: limit)
            return partition >= starts.count || starts[partition] > offset
        } catch { return false }
    }

    private func read(_ now: UInt64) {
        guard let handle, let next else { return }
        var pending: [Int: Pending] = [:]
        var patience: Int32 = 20
        // Messages that take long to read hold up neither an end nor what was read.
        let end = Clock.monotonicNanoseconds() &+ Self.batchNanoseconds
        for _ in 0..<Self.batchMessages where !owner.isStopped && Clock.monotonicNanoseconds() < end {
            guard let event = handle.receive(milliseconds: patience) else { break }
            patience = 0
            switch event {
            case .message(let message):
                guard next.indices.contains(message.partition) else { continue }
                // Some may be from before it was told to go on elsewhere.
                guard message.offset >= pending[message.partition]?.next ?? next[message.partition] else { continue }
                var part = pending[message.partition] ?? Pending(next: message.offset)
                do throws(SchemaAwaited) { part.changes += try changes(of: message) } catch {
                    awaited = (error.number, message.partition, message.offset)
                }
                // It is read again, once its schema is known.
                guard awaited == nil else { break }
                part.next = message.offset + 1
                pending[message.partition] = part
            case .failure(let problem, let partition?) where KafkaHandle.isEnd(problem.code):
                readEnds[partition] = handle.knownEnd(partition: partition)
            case .failure(let problem, _):
                // What was read before it is read again.
                if KafkaHandle.isOutOfRange(problem.code) || handle.fatal != nil {
                    return fail("the brokers: \(problem.reason)", now)
                }
                say(problem.reason)
                hasFailed = true
            }
            if awaited != nil { break }
        }
        take(pending, now)
        if awaited != nil, self.next != nil { (self.next, retryAt) = (nil, now) }
    }

    private func changes(of message: KafkaMessage) throws(SchemaAwaited) -> [LoggedChange] {
        let event = try DebeziumEvent.read(key: message.key, value: message.value, schema: schemas.known)
        figures.messages += 1
        var changes: [LoggedChange] = []
        switch event {
        case .changes(let found): changes = found
        case .snapshot(let place):
            if !snapshots.contains(place) {
                if snapshots.count == Self.snapshotsMax { snapshots.removeFirst() }
                snapshots.append(place)
                changes = [Self.everything]
                figures.snapshots += 1
                owner.log?.warning(
                    "debezium: the connector made a snapshot, and may have missed changes: all copies are given up",
                    ["topic": .text(topic), "partition": .count(message.partition), "place": .integer(place)])
            }
        case .damaged(let reason):
            figures.damaged += 1
            if figures.damaged == 1 {
                owner.log?.error(
                    "debezium: a message cannot be understood, and is passed over",
                    [
                        "topic": .text(topic), "partition": .count(message.partition),
                        "offset": .integer(message.offset), "reason": .text(reason),
                    ])
            }
        }
        figures.changes += UInt64(changes.count)
        return changes
    }

    /// Puts them into the stream, each partition's by itself.
    private func take(_ pending: [Int: Pending], _ now: UInt64) {
        // In the same order on every node: of two, one is first with all of it.
        for (partition, part) in pending.sorted(by: { $0.key < $1.key }) {
            guard let place = next?[partition] else { return }
            do throws(StorageFailure) {
                let changes = DebeziumEvent.lastOfEachKey(part.changes)
                guard try owner.intake.take(changes, of: topic, partition: partition, from: place, to: part.next)
                else { return standBy(now) }
                next?[partition] = part.next
                (hasMoved, hasTaken) = (true, true)
            } catch { return fail("the store: \(error.reason)", now) }
        }
    }

    private func note(_ now: UInt64) {
        guard now >= nextNote else { return }
        nextNote = now &+ 50_000_000
        figures.behind = 0
        if let next, let handle {
            for partition in next.indices {
                guard let end = handle.knownEnd(partition: partition), end > readEnds[partition] ?? 0 else { continue }
                figures.behind += max(0, end - next[partition])
            }
        }
        let isWell = next == nil ? others != nil : figures.behind == 0 || hasTaken
        hasTaken = false
        if isWell && figures.reason.isEmpty {
            figures.stalledSince = 0
        } else if figures.stalledSince == 0 {
            figures.stalledSince = now
        }
        let figures = figures
        owner.noted.withLock { $0 = figures }
    }
}
