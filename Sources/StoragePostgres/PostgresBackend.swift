// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
package import Storage
internal import Synchronization
package import Telemetry

/// A store behind the PostgreSQL protocol.
///
/// Each connection has a thread. Writers share the keys by their hash, so that the writes of a key go over one
/// connection in their order, and take what waits in one transaction; readers take what waits in one statement.
package final class PostgresBackend: StorageBackend, FollowedStore, SharedStore, HomedStore, DurationSource {
    private let configuration: PostgresConfiguration
    private let core: SQLCore
    private let threads = Guarded<[Thread]>([])
    private let followed: PostgresChanges?
    private let leases: PostgresLeases
    private let scans: PostgresScans
    private let name = Guarded<String?>(nil)
    /// What was found at the start.
    private let early = Guarded<String?>(nil)

    /// The store that `configuration` describes; nothing is connected before ``start(_:)``.
    package init(_ configuration: PostgresConfiguration) {
        self.configuration = configuration
        core = SQLCore(configuration)
        leases = PostgresLeases(core)
        scans = PostgresScans(core)
        followed = configuration.keepsOutbox ? PostgresChanges(core) : nil
    }

    /// The stream of all nodes that share the database; nil where this node was not told to keep one.
    package var changes: (any ChangeSource)? { followed }

    /// The database as what its region is home with.
    package var homeDatabase: (any HomeDatabase)? { PostgresHome(configuration) }

    /// Where nodes that share the database agree on who owns what; answers once the backend was started.
    package var authority: any LeaseAuthority { leases }

    /// Every transaction that writes looks at the epoch: see `FleetSchema.fence`.
    package var refusesOldEpochs: Bool { true }

    /// Has every write go by `fence`. Before the start; with ``PostgresConfiguration/isShared``.
    package func setFence(_ fence: any WriteFence) { core.setFence(fence) }

    deinit { stop() }

    static func complaint(format: Int64) -> String? {
        if format > PostgresSchema.format {
            return "storage: the tables have format \(format); this version knows formats up to "
                + "\(PostgresSchema.format): use the newer version that made them"
        }
        if format < 1 {
            return "storage: the tables have format \(format), which no version made; formats are numbered from 1: "
                + "restore the row format of the table martlet_meta"
        }
        return nil
    }

    static func meta(_ connection: borrowing SQLConnection) throws(SQLFailure) -> [String: Int64] {
        var found: [String: Int64] = [:]
        for row in try connection.run(texts: ["SELECT name, number FROM martlet_meta"]).first ?? [] {
            guard row.count == 2, let name = row[0], let number = row[1] else { continue }
            found[String(decoding: name, as: UTF8.self)] = Int64(String(decoding: number, as: UTF8.self))
        }
        return found
    }

    /// Looks whether the tables are there, and starts the threads. Once. Blocks as long as connecting may take.
    package func start(_ sink: any StorageSink) throws(StorageStartError) {
        if let complaint = configuration.complaint { throw StorageStartError("storage: \(complaint)") }
        precondition(threads.withLock { $0.isEmpty }, "a store is started once")
        let mark = try readMark()
        core.setSink(sink)
        let core = self.core
        var started: [Thread] = []
        do throws(SystemError) {
            for index in 0..<configuration.writers {
                started.append(
                    try Thread(name: "sql-write-\(index)") {
                        var writer = SQLWriter(core: core, index: index, mark: mark)
                        writer.run()
                    })
            }
            for index in 0..<configuration.readers {
                started.append(
                    try Thread(name: "sql-read-\(index)") {
                        var reader = SQLReader(core: core, index: index)
                        reader.run()
                    })
            }
            if let followed { started.append(try Thread(name: "sql-stream") { followed.run() }) }
            let leases = self.leases
            if configuration.isShared { started.append(try Thread(name: "sql-lease") { leases.run() }) }
            let scans = self.scans
            started.append(try Thread(name: "sql-scan") { scans.run() })
            started.append(try Thread(name: "sql-door") { core.door.run(core) })
        } catch {
            for queue in core.writes { queue.close() }
            core.reads.close()
            followed?.stop()
            leases.stop()
            scans.stop()
            throw StorageStartError("storage: a thread cannot be started: \(error)")
        }
        let all = started
        threads.withLock { $0 = all }
    }

    /// Ends the sessions of earlier processes, and gives the clock's mark; throws what is wrong with the database.
    private func readMark() throws(StorageStartError) -> UInt64 {
        let rows: [String: Int64]
        do throws(SQLFailure) {
            let connection = try core.connect()
            try connection.requireSessions()
            if let format = try Self.meta(connection)["format"], let complaint = Self.complaint(format: format) {
                throw .lostBefore(reason: complaint)
            }
            // Says that tables and columns are there.
            try connection.prepare(configuration)
            _ = try connection.identity()
            try requireFollowers(connection)
            if configuration.keepsOutbox {
                _ = try connection.run(texts: [StreamSchema.check])
                let newest = try connection.run([SQLCall(.newest, [])]).first?.first?.first ?? nil
                core.homeEpoch.store(BinaryParameter.number(newest) ?? 0, ordering: .relaxed)
            }
            if configuration.isShared { _ = try connection.run(texts: [FleetSchema.check]) }
            noteSilence()
            try requireRights(connection)
            try endEarlierSessions(connection)
            // After them: what they committed last may have moved the mark.
            rows = try Self.meta(connection)
        } catch {
            switch error {
            case .refused(state: "42P01", _):
                throw StorageStartError(
                    "storage: the database has no tables of ours: make them with `martletctl storage init`")
            case .refused(state: "42703", _):
                throw StorageStartError(
                    "storage: a table of the database is not ours, or older than this version: run `martletctl storage "
                        + "init`: \(error.reason)")
            default:
                let reason = error.reason
                throw StorageStartError(reason.hasPrefix("storage") ? reason : "storage: \(reason)")
            }
        }
        guard rows["format"] != nil, let mark = rows["version_mark"] else {
            throw StorageStartError("storage: the table martlet_meta lacks rows: run `martletctl storage init` again")
        }
        guard SQLRow.versions.contains(mark) else {
            throw StorageStartError("storage: the row version_mark of the table martlet_meta is out of range")
        }
        if let source = rows["stream_source"], let epoch = rows["stream_epoch"] {
            name.withLock { $0 = "\(source)-\(epoch)" }
        }
        return UInt64(bitPattern: mark)
    }

    /// Fails where nodes of regions publish what is in the database, and would not hear of this one's writes.
    private func requireFollowers(_ connection: borrowing SQLConnection) throws(SQLFailure) {
        guard !configuration.keepsOutbox else { return }
        let row = try connection.run(texts: [StreamSchema.isFollowed])[0].first
        let isFollowed = row?.first == Array("t".utf8)
        let isRecorded = row?.last == Array("\(CaptureSchema.recordingTriggers)".utf8)
        if isRecorded, !isFollowed {
            early.withLock {
                $0 =
                    "this node's writes leave records in martlet_outbox, and no node with a region takes them out: "
                    + "start one, or say `martletctl storage init --capture=off`"
            }
        }
        guard isFollowed, !isRecorded else { return }
        throw .lostBefore(
            reason: "storage: nodes with a region publish this database's changes, and the writes of this node, which "
                + "has none, would reach no cache of theirs: give it their `region` and `regions`, or have its "
                + "writes captured (`martletctl storage init --capture=on`)")
    }

    /// Says so where a failover cannot be noticed.
    private func noteSilence() {
        guard let lineage = core.lineage.current, lineage.system == nil || lineage.timeline == nil else { return }
        let missing = [
            lineage.system == nil ? "pg_control_system()" : nil, lineage.timeline == nil ? "pg_walfile_name()" : nil,
        ].compactMap { $0 }.joined(separator: " and ")
        early.withLock {
            $0 =
                "the database does not say by \(missing) which server it is: behind a failover that lost writes, "
                + "copies of them may be shown, and an old primary that still runs may be asked"
        }
    }

    /// Fails where the role lacks a right that it needs later, and nobody would hear of it then. Changes nothing.
    private func requireRights(_ connection: borrowing SQLConnection) throws(SQLFailure) {
        let (nothing, zero) = (SQLColumns(), BinaryParameter.bigint(0))
        _ = try connection.run([nothing.blind, nothing.guarded, SQLCall(.reap, [zero, zero, zero, zero])])
        _ = try connection.run(texts: [PostgresSchema.markRights])
        guard configuration.keepsOutbox else { return }
        _ = try connection.run(texts: StreamSchema.rights + HomeSchema.rights)
        // A sequence is asked for by those only who take a number.
        guard let name = try connection.run(texts: [StreamSchema.closedSequences]).first?.first?.first ?? nil else {
            return
        }
        let sequence = String(decoding: name, as: UTF8.self)
        throw .refused(state: "42501", reason: "permission denied for sequence \(sequence): GRANT USAGE on it")
    }

    /// Waits a while for the sessions of earlier processes to be gone. When they are not, a writer goes on looking.
    private func endEarlierSessions(_ connection: borrowing SQLConnection) throws(SQLFailure) {
        let end = Clock.monotonicNanoseconds() + UInt64(configuration.earlierSessionsMilliseconds) * 1_000_000
        while true {
            // A role that may not end them waits for them.
            do throws(SQLFailure) { _ = try connection.run([SQLCall(.endEarlier, core.nameParameters)]) } catch {
                guard case .refused = error else { throw error }
            }
            let rows = try connection.run([SQLCall(.earlier, core.nameParameters)])
            if BinaryParameter.number(rows.first?.first?.first ?? nil) == 0 { return }
            guard Clock.monotonicNanoseconds() < end else { break }
            Parking().wait(0, timeoutNanoseconds: 20_000_000)
        }
        core.hasEarlier.store(true, ordering: .relaxed)
        core.beginUnsettled()
    }

    /// Whether sessions of this node's earlier processes were still there when it started: they may commit yet.
    package var mayHaveEarlierWrites: Bool { core.hasEarlier.load(ordering: .relaxed) }

    /// The number that the tables were made with, the epoch of their stream, and whose rows they are: another one
    /// behind a failover, a recovery to a point in time, and where tables or databases were made anew.
    package var identity: String? {
        name.withLock { name in name.map { $0 + "-" + (core.lineage.current?.word ?? "") } }
    }

    /// Looks rows up. What finds no room is answered `notSent`.
    package func read(_ reads: [StorageRead]) {
        if reads.isEmpty { return }
        let now = Clock.monotonicNanoseconds()
        let rest = core.reads.offer(reads.map { Waiting(element: $0, sinceNanoseconds: now) })
        if !rest.isEmpty, core.reads.isClosed {
            core.sink?.readsCompleted(rest.map { ($0.element.token, .failed(Self.stopped)) })
        } else if !rest.isEmpty {
            core.refuse(reads: rest.map(\.element.token))
        }
        core.noteWaiting()
    }

    /// Commits changes. What finds no room is answered `notSent`.
    package func write(_ writes: [SubmittedWrite]) {
        let now = Clock.monotonicNanoseconds()
        var parts = [[Waiting<SubmittedWrite>]](repeating: [], count: core.writes.count)
        for write in writes {
            let keyHash = stableHash(write.write.key.span)
            parts[Int(truncatingIfNeeded: keyHash % UInt64(parts.count))].append(
                Waiting(element: write, sinceNanoseconds: now))
        }
        for (queue, part) in zip(core.writes, parts) where !part.isEmpty {
            let rest = queue.offer(part)
            if rest.isEmpty { continue }
            if queue.isClosed {
                core.sink?.writesCompleted(rest.map { ($0.element.token, .failed(Self.stopped)) })
            } else {
                core.refuse(writes: rest.map(\.element.token))
            }
        }
        core.noteWaiting()
    }

    static let stopped = StorageFailure(.notSent, "the store is stopped")

    /// Whether the database can be reached, as far as the connections know.
    package var health: StorageHealth { core.health }

    /// Live rows in the order of their keys, over a session that all scans share, and that is kept from one page to the
    /// next. A row that the server fails to read is passed over and told. Blocks.
    package func scan(
        prefix: [UInt8], after key: [UInt8], _ bounds: ScanBounds
    ) throws(StorageFailure) -> ScanPage {
        try scans.page(ScanQuestion(prefix: prefix, key: key, bounds: bounds))
    }

    /// Answers what was submitted, and closes the connections. May be called more than once. Blocks.
    package func stop() {
        let all = threads.exchange([])
        guard !all.isEmpty else { return }
        for queue in core.writes { queue.close() }
        for thread in all.prefix(configuration.writers) { thread.join() }
        followed?.stop()
        leases.stop()
        scans.stop()
        core.reads.close()
        for thread in all.dropFirst(configuration.writers).dropLast() { thread.join() }
        core.door.end()
        all.last?.join()
        core.door.answerRefused(core.sink)
    }

    private static func statistics(_ changes: PostgresChanges) -> [StorageStatistic] {
        let (around, kept) = (changes.surroundings, changes.keptCount)
        func gauge(_ name: String, _ value: Int64, _ help: String) -> StorageStatistic {
            StorageStatistic("postgres_" + name, .gauge, Double(value), help)
        }
        return [
            gauge(
                "outbox_backlog", around.waiting,
                "Records that are not published yet, up to \(PostgresChanges.waitingLimit), as of the last look."),
            gauge("stream_records", kept, "Records of the stream that are kept."),
            gauge(
                "stream_bytes", kept * around.recordBytes,
                "About how many bytes they take, without what the database has not used again."),
            gauge(
                "captures", around.captures == true ? 1 : 0,
                "1 while triggers put what other programs change into the stream."),
        ]
    }

    /// That what other programs write is not heard of, or what this node writes taken out by nobody.
    package var notice: String? {
        guard followed?.surroundings.captures == false else { return early.withLock { $0 } }
        return "changes that other programs make in martlet_kv reach no cache: "
            + "`martletctl storage init --capture=on` makes or switches on the triggers that see to it"
    }

    /// How long transactions took.
    package func durations() -> [NamedDurations] {
        var commits = NamedDurations(
            "postgres_commit", things: "transactions",
            "Time in transactions that were committed, reading for conditions included.")
        for times in core.commitTimes { times.record.add(to: &commits.summary) }
        return [commits]
    }

    /// Counters and gauges; names say their units.
    package func statistics() -> [StorageStatistic] {
        let counters = core.counters
        func counter(_ name: String, _ value: borrowing SharedCounter, _ help: String) -> StorageStatistic {
            StorageStatistic("postgres_" + name, .counter, Double(value.value), help)
        }
        let waiting = core.writes.reduce(0) { $0 + $1.count }
        let limits = core.writes.map(\.waitingLimit)
        return [
            counter("reads", counters.reads, "Rows that were looked up for reads."),
            counter("read_batches", counters.readBatches, "Statements that read."),
            counter("reads_failed", counters.readsFailed, "Reads that failed."),
            StorageStatistic(
                "postgres_reads_waiting", .gauge, Double(core.reads.count), "Reads that wait for a connection."),
            StorageStatistic(
                "postgres_reads_waiting_limit", .gauge, Double(core.reads.waitingLimit.count),
                "How many reads may wait: fewer while a queue stands."),
            StorageStatistic(
                "postgres_reads_limited", .counter, Double(core.reads.waitingLimit.entries),
                "Times that fewer reads may wait because a queue stood."),
            counter("writes", counters.writes, "Writes that were answered, those that changed nothing included."),
            counter("writes_failed", counters.writesFailed, "Writes that the database refused."),
            counter("writes_unknown", counters.unknown, "Writes of which nobody knew whether they happened."),
            StorageStatistic("postgres_writes_waiting", .gauge, Double(waiting), "Writes that wait for a transaction."),
            StorageStatistic(
                "postgres_writes_waiting_limit", .gauge, Double(limits.reduce(0) { $0 + $1.count }),
                "How many writes may wait: fewer while a queue stands."),
            StorageStatistic(
                "postgres_writes_limited", .counter, Double(limits.reduce(0) { $0 + $1.entries }),
                "Times that fewer writes may wait because a queue stood."),
            counter(
                "refused", counters.refused,
                "Reads and writes that found no room in a queue, or waited there in vain."),
            counter("commits", counters.transactions, "Transactions that were committed."),
            counter(
                "conflicts", counters.conflicts, "Transactions that others got in the way of, and were tried again."),
            counter(
                "fenced", counters.fenced, "Transactions that were refused because the ring had changed meanwhile."),
            counter("reaped", counters.reaped, "Expired rows and tombstones that were deleted."),
            counter("reaps_failed", counters.reapsFailed, "Times that deleting them failed."),
            counter(
                "stream_failures", counters.streamFailures, "Times that the connection that publishes changes failed."),
            counter("connections_made", counters.connections, "Connections that were made."),
        ] + (followed.map(Self.statistics) ?? [])
    }
}
