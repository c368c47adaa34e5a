// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Storage
internal import Synchronization
internal import Telemetry

/// What the threads of one backend share.
final class SQLCore: Sendable {
    /// How long a thread sleeps at most, so that it sees what nobody announces.
    static let checkNanoseconds: UInt64 = 1_000_000_000

    let configuration: PostgresConfiguration
    let reads: SubmissionQueue<Waiting<StorageRead>>
    /// One queue for each writer; a key's writes are in one of them.
    let writes: [SubmissionQueue<Waiting<SubmittedWrite>>]
    let counters = SQLCounters()
    /// How long each writer's transactions took.
    let commitTimes: [CommitTimes]
    /// What this node's sessions are called, with what all names of the node begin with.
    let name: (prefix: String, full: String)
    /// Whether sessions of an earlier process may still be there.
    let hasEarlier = Atomic<Bool>(false)
    /// The promotion under which this node writes; 0 before the first.
    let homeEpoch = Atomic<Int64>(0)
    /// How often a writer had to connect again: another server may be the primary since.
    let reconnections = Atomic<UInt64>(0)
    /// Whose rows are the newest that were seen.
    let lineage = KnownLineage()
    private let hosts: SQLHosts
    private let receiver = Guarded<(any StorageSink)?>(nil)
    /// A connection that is not there.
    private struct Outage {
        var reason: String
        /// Whether it was tried in vain to make it.
        var hasFailed: Bool
        /// How many connections had been made by then: another one since says that the server is back.
        var made: UInt64 = 0
    }

    /// The connections that are down; nil for those that are up. Writers first.
    private let down: Guarded<[Outage?]>
    /// Whether one of them has failed to connect.
    private let hasOutage = Atomic<Bool>(false)
    /// Where the thread sleeps that refuses what waits in vain.
    let door = StoreDoor()
    /// Sessions whose last transaction may still be under way.
    private let unsettled = Guarded(0)

    init(_ configuration: PostgresConfiguration) {
        self.configuration = configuration
        hosts = SQLHosts(configuration.url)
        name = Self.sessionName(of: configuration.instance, process: UInt64.random(in: 0...UInt64.max))
        let limit = QueueLimit.Configuration(
            target: configuration.queueTargetNanoseconds, waitingMilliseconds: configuration.waitingMilliseconds)
        reads = SubmissionQueue(
            countLimit: configuration.waitingReadLimit, byteLimit: .max, pace: QueuePace(limit)
        ) { _ in 0 }
        writes = (0..<configuration.writers).map { _ in
            SubmissionQueue(
                countLimit: configuration.waitingWriteLimit, byteLimit: configuration.waitingWriteBytes,
                pace: QueuePace(limit) { $0.write.operation.makesDataDisappear }
            ) { waiting in
                let write = waiting.element.write
                return write.operation.makesDataDisappear ? 0 : write.key.count + write.value.count
            }
        }
        commitTimes = writes.map { _ in CommitTimes() }
        troubles = Guarded(Troubles(refusals: Array(repeating: nil, count: configuration.writers)))
        let outage = Outage(reason: "not connected yet", hasFailed: false)
        down = Guarded(Array(repeating: outage, count: configuration.writers + configuration.readers))
    }

    /// A name for the sessions of one process of a node; a server keeps 63 bytes of it. A node's name holds no space:
    /// none begins with the prefix of another.
    static func sessionName(of instance: String, process: UInt64) -> (prefix: String, full: String) {
        let hash = instance.utf8.count > 36 ? stableHash(Array(instance.utf8).span) : 0
        let prefix = "martlet \(hash == 0 ? instance : String(hash, radix: 16)) "
        return (prefix, prefix + String(process, radix: 36))
    }

    /// A connection to a server that takes writes, and whose place none took that is known. Where it took another's
    /// place itself, the cache is empty when this returns. With other settings than the core's where they are given.
    /// Blocks.
    func connect(_ settings: PostgresConfiguration? = nil) throws(SQLFailure) -> SQLConnection {
        let check = LineageCheck(lineage: lineage) { [self] in sink?.rowsReplaced() }
        return try SQLConnection.open(settings ?? configuration, name: name.full, hosts, check)
    }

    /// Takes note of the table of rows that a session of `generation` finds now.
    func note(_ found: SQLLineage, of generation: UInt64) {
        lineage.note(found, of: generation) { sink?.rowsReplaced() }
    }

    /// Fails where a server took the place of the one that a connection leads to.
    func requireCurrent(_ connection: borrowing SQLConnection) throws(SQLFailure) {
        guard connection.generation == lineage.generation else { throw .lostBefore(reason: KnownLineage.replaced) }
    }

    /// The names as parameters of the statements about earlier sessions.
    var nameParameters: [[UInt8]] { [Array(name.prefix.utf8), Array(name.full.utf8)] }

    /// Where answers go.
    var sink: (any StorageSink)? { receiver.withLock { $0 } }

    /// Sets where answers go; before the threads start.
    func setSink(_ sink: any StorageSink) { receiver.withLock { $0 = sink } }

    private let fenced = Guarded<(any WriteFence)?>(nil)

    /// What writes go by; nil where the node is the only one.
    var fence: (any WriteFence)? { fenced.withLock { $0 } }

    /// Sets what writes go by; before the threads start.
    func setFence(_ fence: any WriteFence) { fenced.withLock { $0 = fence } }

    /// Fails unless this promotion is the newest, and the database is not fenced.
    func homeCall(_ epoch: Int64) -> SQLCall { SQLCall(.home, [BinaryParameter.bigint(epoch)]) }

    // MARK: Health

    /// Notes that a connection is down, for `reason`, and whether it was tried in vain to make it again; or that it is
    /// up.
    func note(_ index: Int, down reason: String?, hasFailed: Bool = false) {
        down.withLock { down in
            let made = counters.connections.value
            down[index] = reason.map { Outage(reason: $0, hasFailed: hasFailed, made: made) }
            hasOutage.store(down.contains { $0?.hasFailed == true }, ordering: .sequentiallyConsistent)
        }
        if hasFailed { door.announce() }
    }

    /// Why what waits for a writer waits in vain; nil where it may yet be done.
    func outage(writer index: Int) -> String? {
        let made = counters.connections.value
        return down.withLock { $0[index].flatMap { $0.hasFailed && $0.made == made ? $0.reason : nil } }
    }

    /// The same for reads, which any reader may do: where none has a connection, one that could make none speaks for
    /// those that are about to find out. It refuses reads itself while it does not try again.
    var outageOfReaders: String? {
        let made = counters.connections.value
        return down.withLock { down in
            let readers = down.suffix(configuration.readers)
            guard readers.allSatisfy({ $0 != nil }) else { return nil }
            return readers.first { $0?.hasFailed == true && $0?.made == made }??.reason
        }
    }

    /// Says that something was put in a queue. Where connections fail, what waits in vain is refused at once.
    func noteWaiting() {
        if hasOutage.load(ordering: .sequentiallyConsistent) { door.announce() }
    }

    /// Whether some reader has a connection: then those without one leave what waits to it.
    var hasReader: Bool { down.withLock { $0.suffix(configuration.readers).contains { $0 == nil } } }

    /// What is known of the store: writes need all writers, reads one reader.
    var health: StorageHealth {
        let states = down.withLock { $0.map { $0?.reason } }
        let readers = states.suffix(configuration.readers)
        if readers.allSatisfy({ $0 != nil }) { return .unavailable((readers.first ?? nil) ?? "stopped") }
        let writers = states.prefix(configuration.writers).compactMap { $0 }
        if let reason = writers.first { return .readOnly(reason) }
        let (refusal, failure) = troubles.withLock { troubles in
            (troubles.refusals.compactMap { $0 }.first, troubles.failures.min { $0.key < $1.key })
        }
        if let refusal { return .readOnly("the database refuses writes: \(refusal.reason)") }
        return failure.map { .impaired("\($0.key.rawValue): \($0.value)") } ?? .ready
    }

    // MARK: What the database refuses

    /// What goes on behind reads and writes, and what is said of it when it does not.
    enum Part: String, Comparable {
        case reaping = "what has expired cannot be deleted"
        case stream = "the stream of changes stands still"

        static func < (left: Part, right: Part) -> Bool { left.rawValue < right.rawValue }
    }

    private struct Troubles {
        /// By writer, why its writes were refused, for a reason that is in none of them, and when that was seen last.
        var refusals: [(reason: String, nanoseconds: UInt64)?]
        var failures: [Part: String] = [:]
    }

    private let troubles: Guarded<Troubles>
    /// Whether there is a refusal.
    private let hasRefusal = Atomic<Bool>(false)

    /// Notes that the database refused a writer's writes for a reason that is in none of them; or that it did them.
    func note(_ index: Int, refusal reason: String?) {
        if reason == nil, !hasRefusal.load(ordering: .relaxed) { return }
        troubles.withLock { troubles in
            troubles.refusals[index] = reason.map { ($0, Clock.monotonicNanoseconds()) }
            hasRefusal.store(troubles.refusals.contains { $0 != nil }, ordering: .relaxed)
        }
    }

    /// Whether the database refused a writer's last writes.
    func isRefusing(_ index: Int) -> Bool {
        hasRefusal.load(ordering: .relaxed) && troubles.withLock { $0.refusals[index] != nil }
    }

    /// Notes that the database did a write of nothing: after a while that counts.
    func noteProbe(_ index: Int, _ now: UInt64) {
        let limit = UInt64(configuration.refusalMilliseconds) * 1_000_000
        let isOld = troubles.withLock { troubles in
            troubles.refusals[index].map { now > $0.nanoseconds + limit } ?? false
        }
        if isOld { note(index, refusal: nil) }
    }

    /// Notes that something behind reads and writes failed; or that it did not.
    func note(_ part: Part, failure reason: String?) { troubles.withLock { $0.failures[part] = reason } }

    // MARK: Unknown outcomes

    /// A session ended, and its transaction may still be under way.
    func beginUnsettled() { unsettled.withLock { $0 += 1 } }

    /// That session is gone from the server. Who tells the sink holds the lock: a session that begins meanwhile, and
    /// whose outcomes are answered after that, must not count as settled.
    func endUnsettled() {
        let sink = self.sink
        unsettled.withLock { count in
            count -= 1
            if count == 0 { sink?.unknownOutcomesSettled() }
        }
    }
}

/// What the thread at the door is told of a database: connecting may hold its threads up for seconds, by a host that
/// answers nothing or by a name that is looked up.
extension SQLCore: StoreBehindDoor {
    var writeQueues: [SubmissionQueue<Waiting<SubmittedWrite>>] { writes }
    var waitingMilliseconds: Int { configuration.waitingMilliseconds }
    var slowReason: String { "the database takes too long" }

    func outage(writes index: Int, nowNanoseconds: UInt64) -> String? { outage(writer: index) }

    func outageOfReads(nowNanoseconds: UInt64) -> String? { outageOfReaders }

    func countRefused(reads: Int, writes: Int) { counters.refused.add(reads + writes) }
}

/// What the backend's threads count.
final class SQLCounters: Sendable {
    let reads = SharedCounter()
    let readBatches = SharedCounter()
    let readsFailed = SharedCounter()
    let writes = SharedCounter()
    let transactions = SharedCounter()
    let conflicts = SharedCounter()
    let fenced = SharedCounter()
    let unknown = SharedCounter()
    let writesFailed = SharedCounter()
    let refused = SharedCounter()
    let connections = SharedCounter()
    let reaped = SharedCounter()
    let reapsFailed = SharedCounter()
    let streamFailures = SharedCounter()
}

/// How long the transactions of one writer took that were committed, reading for conditions included. Written by that
/// writer's thread alone.
final class CommitTimes: Sendable {
    let record = DurationRecord()
}
