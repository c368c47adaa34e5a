// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Storage
internal import Synchronization
internal import Telemetry

/// The stream of a database that nodes share: each of them publishes what is committed, whoever wrote it, and reads
/// what was published. A thread of its own goes round; a proof is a round that began behind the question.
final class PostgresChanges: ChangeSource, ChangeIntake {
    let tail: ChangeTail
    private let core: SQLCore
    private let configuration: PostgresConfiguration
    private let parking = Parking()
    private let isStopping = Atomic<Bool>(false)
    private let state = Guarded(State())
    /// Where the stream's thread has statements run between rounds.
    private let desk = QuestionDesk<String, Result<SQLRows, SQLFailure>>()

    private struct State {
        var position: StreamPosition?
        var kept = [Int64](repeating: 0, count: StreamSlots.count)
        /// Rounds that have begun, and the last one that found everything, with what it found.
        var begun: UInt64 = 0
        var whole: UInt64 = 0
        var proven: [Int64]?
        var isAsked = false
        var isConnected = false
        var succession: StreamSuccession?
        var takeover: StreamSuccession?
        var surroundings = Surroundings()
    }

    /// What a database says of its stream now and then.
    struct Surroundings {
        /// Records that were not published yet, up to ``waitingLimit``.
        var waiting: Int64 = 0
        /// About how many bytes one record takes.
        var recordBytes: Int64 = 0
        /// Whether what other programs do gets into the stream; nil before the first look.
        var captures: Bool?
    }

    /// How many records that wait are counted.
    static let waitingLimit = 100_000

    /// What the thread of the rounds knows. It outlives a connection: the next one is compared with it.
    private struct Walk {
        /// Behind which record the next ones are.
        var place: Int64 = 0
        var mark: PublishedMark?
        var known: PublishedState?
        /// Behind which record the oldest are.
        var trimPlace: Int64 = 0
        /// How many of them go because all together are too large.
        var excess: Int64 = 0
        var nextTrim: UInt64 = 0
        var nextHeartbeat: UInt64 = 0
    }

    init(_ core: SQLCore) {
        self.core = core
        configuration = core.configuration
        tail = ChangeTail(limitBytes: configuration.streamTailBytes)
    }

    var position: StreamPosition? { state.withLock { $0.position } }
    var keptSequences: [Int64] { state.withLock { $0.kept } }
    var succession: StreamSuccession? { state.withLock { $0.succession } }
    var takeover: StreamSuccession? { state.withLock { $0.takeover } }
    var surroundings: Surroundings { state.withLock { $0.surroundings } }

    /// Records that are kept.
    var keptCount: Int64 {
        state.withLock { state in zip(state.position?.sequences ?? [], state.kept).reduce(0) { $0 + $1.0 - $1.1 } }
    }

    func beginProof() -> UInt64 {
        let ticket = state.withLock { state in
            state.isAsked = true
            return state.begun + 1
        }
        parking.announce()
        return ticket
    }

    func proof(_ ticket: UInt64) -> [Int64]? { state.withLock { $0.whole >= ticket ? $0.proven : nil } }

    /// Other nodes' consumers are not known here: time alone lets records go.
    func release(through sequences: [Int64]) {}

    /// Ends the thread's rounds.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        parking.announce()
    }

    // MARK: Rounds

    /// Publishes and reads until the end. On a thread of its own.
    func run() {
        var retry = configuration.firstRetryMilliseconds
        var walk = Walk()
        // Only where rounds go well is the next failure the first one.
        var isGoing = false
        while !isStopping.load(ordering: .acquiring) {
            do throws(SQLFailure) {
                let connection = try core.connect()
                _ = try connection.run(texts: [PostgresSchema.session(configuration)])
                try begin(connection, &walk)
                state.withLock { $0.isConnected = true }
                try goRound(connection, &walk, &isGoing)
            } catch {
                state.withLock { $0.isConnected = false }
                core.counters.streamFailures.add(1)
                core.note(.stream, failure: error.reason)
                if isGoing { retry = configuration.firstRetryMilliseconds }
                isGoing = false
                pause(milliseconds: retry)
                retry = min(retry * 2, configuration.lastRetryMilliseconds)
            }
        }
        state.withLock { $0.isConnected = false }
        desk.close(.failure(.lostBefore(reason: PostgresBackend.stopped.reason)))
    }

    private func pause(milliseconds: Int) {
        let ticket = parking.ticket
        if isStopping.load(ordering: .acquiring) { return }
        parking.wait(ticket, timeoutNanoseconds: UInt64(milliseconds) * 1_000_000)
    }

    private func goRound(
        _ connection: borrowing SQLConnection, _ walk: inout Walk, _ isGoing: inout Bool
    ) throws(SQLFailure) {
        walk.nextTrim = Clock.monotonicNanoseconds() + trimNanoseconds
        // How many rounds in a row failed for what passes.
        var passing = 0
        while !isStopping.load(ordering: .acquiring) {
            let ticket = parking.ticket
            var found = (isWhole: false, isIdle: false)
            do throws(SQLFailure) {
                try core.requireCurrent(connection)
                found = try round(connection, &walk)
                try trim(connection, &walk)
                try answerQuestion(connection)
                if !isGoing || passing > 0 { core.note(.stream, failure: nil) }
                (isGoing, passing) = (true, 0)
            } catch .refused(let state, let reason) where Self.isPassing(state) {
                // Somebody held the lock for long: the connection is as good as another. Unless that goes on.
                passing += 1
                if passing >= Self.passingLimit {
                    core.counters.streamFailures.add(1)
                    core.note(.stream, failure: "\(reason) (SQLSTATE \(state))")
                }
                pause(milliseconds: configuration.firstRetryMilliseconds)
                continue
            }
            guard found.isWhole, !state.withLock({ $0.isAsked }) else { continue }
            let pause = found.isIdle ? configuration.publishIdleMilliseconds : configuration.publishMilliseconds
            parking.wait(ticket, timeoutNanoseconds: UInt64(pause) * 1_000_000)
        }
    }

    /// So many such failures in a row are told.
    private static let passingLimit = 3

    /// A statement that took too long, or met another's: canceled, lock not available, or class 40.
    private static func isPassing(_ state: String) -> Bool {
        state == "57014" || state == "55P03" || state.hasPrefix("40")
    }

    /// Publishes and reads once. Whether that was everything, and whether it was nothing.
    private func round(
        _ connection: borrowing SQLConnection, _ walk: inout Walk
    ) throws(SQLFailure) -> (isWhole: Bool, isIdle: Bool) {
        let round = state.withLock { state in
            state.begun += 1
            state.isAsked = false
            return state.begun
        }
        let limit = configuration.publishLimit
        let started = Clock.monotonicNanoseconds()
        let says = started >= walk.nextHeartbeat
        let results = try connection.run(
            texts: [
                StreamSchema.lock, StreamSchema.publish(limit: limit),
                StreamSchema.read(after: walk.place, limit: 2 * limit), StreamSchema.state,
                CaptureSchema.unplaced(limit: limit), HomeSchema.isFenced,
            ] + (says ? [HomeSchema.heartbeat] : []))
        if says { walk.nextHeartbeat = started + Self.heartbeatNanoseconds }
        guard let found = results[3].first.flatMap(PublishedState.init) else { throw Self.strange }
        if let known = walk.known, found.epoch != known.epoch || found.isBehind(known) {
            // Another numbering, with the connection unharmed.
            try begin(connection, &walk)
            return (false, false)
        }
        walk.known = found
        let entries = try take(results[2], &walk)
        // All numbers that were given, also those of records that were let go before they were read here: whoever
        // follows finds them missing.
        state.withLock { state in
            state.position?.sequences = found.last
            state.kept = found.kept
        }
        // Also with none: somebody may wait for the proof, which comes behind what it proves.
        let published = Self.number(results[1].first?.first ?? nil) ?? 0
        // What is committed and has no slot yet was not published.
        try place(results[4], connection)
        let isWhole = published < Int64(limit) && results[2].count < 2 * limit && results[4].isEmpty
        if !entries.isEmpty { tail.append(entries) }
        // Another region may be home, and have more.
        let isFenced = results[5].first?.first == Array("t".utf8)
        try core.requireCurrent(connection)
        if isWhole, !isFenced {
            state.withLock { state in (state.whole, state.proven) = (round, found.last) }
            tail.append([])
        }
        return (isWhole, isWhole && entries.isEmpty)
    }

    /// Works out the slots of records that other programs' changes left: they are published in the next round.
    private func place(_ rows: SQLRows, _ connection: borrowing SQLConnection) throws(SQLFailure) {
        guard !rows.isEmpty else { return }
        let records = try rows.map { row throws(SQLFailure) -> (id: Int64, slot: Int) in
            guard row.count == 2, let id = Self.number(row[0]), let key = row[1].flatMap(Self.bytes) else {
                throw Self.strange
            }
            return (id, StreamSlots.slot(keyHash: stableHash(key.span)))
        }
        _ = try connection.run(texts: [StreamSchema.lock, CaptureSchema.place(records)])
    }

    /// Between what home says of itself to the copies of its database.
    private static let heartbeatNanoseconds: UInt64 = 1_000_000_000

    private static let strange = SQLFailure.refused(
        state: "XX001", reason: "the database has no stream: run `martletctl storage init`")

    /// Learns where the stream is. Where it went back, another epoch begins.
    private func begin(_ connection: borrowing SQLConnection, _ walk: inout Walk) throws(SQLFailure) {
        var (row, found, mark) = try look(connection, walk.mark)
        if let known = walk.known,
            found.isBehind(known) || found.epoch == known.epoch && walk.mark?.isReplaced(by: mark) ?? false
        {
            _ = try connection.run(texts: [StreamSchema.lock, StreamSchema.beginEpoch(after: found.epoch)])
            (row, found, mark) = try look(connection, walk.mark)
        }
        guard let source = Self.number(row[0]), let epoch = Self.number(row[1]), let place = Self.number(row[2])
        else { throw Self.strange }
        let position = StreamPosition(
            source: String(UInt64(bitPattern: source), radix: 16), epoch: epoch, sequences: found.last)
        let takeover = try connection.run(texts: [HomeSchema.succession]).first?.first.flatMap(HomeSchema.succession)
        if found.epoch != walk.known?.epoch { walk.mark = nil }
        (walk.place, walk.known, walk.trimPlace) = (place, found, 0)
        // What was published since the last round is read from the table by those who follow; what the tail has of
        // another numbering must not be taken for this one's.
        tail.begin(position)
        state.withLock { state in
            state.kept = found.kept
            state.position = position
            state.takeover = takeover?.succession
            // Behind a server's failover, or a table that went back, it says nothing of what is there.
            state.succession = takeover?.epoch == epoch ? takeover?.succession : nil
        }
        // What is published in a numbering is not without its name in the copies of the database.
        walk.nextHeartbeat = 0
    }

    /// What the database says of its stream, and what is in the place of a record.
    private func look(
        _ connection: borrowing SQLConnection, _ mark: PublishedMark?
    ) throws(SQLFailure) -> (row: [[UInt8]?], found: PublishedState, mark: SQLRows) {
        let results = try connection.run(texts: [
            StreamSchema.lock, StreamSchema.identity, StreamSchema.state, StreamSchema.mark(mark?.place ?? -1),
        ])
        guard let row = results[1].first, let found = results[2].first.flatMap(PublishedState.init) else {
            throw Self.strange
        }
        return (row, found, results[3])
    }

    /// The records of some rows; `walk` moves behind them.
    private func take(_ rows: SQLRows, _ walk: inout Walk) throws(SQLFailure) -> [ChangeTail.Entry] {
        guard let last = rows.last, let position else { return [] }
        let entries = try rows.map { row throws(SQLFailure) in try entry(row, position) }
        let numbers = [0, 1, 2, 6].compactMap { Self.number(last[$0]) }
        guard numbers.count == 4 else { throw Self.strange }
        walk.place = numbers[0]
        walk.mark = PublishedMark(
            place: numbers[0], slot: numbers[1], sequence: numbers[2], version: numbers[3])
        return entries
    }

    /// How often is looked for what is old: often enough for a short time of keeping.
    private var trimNanoseconds: UInt64 {
        UInt64(min(10_000, max(1_000, configuration.streamKeepMilliseconds / 8))) * 1_000_000
    }

    /// Lets some of what is too old go, when it is time; the rest goes in the rounds that follow. That it fails does no
    /// harm to anything else.
    private func trim(_ connection: borrowing SQLConnection, _ walk: inout Walk) throws(SQLFailure) {
        guard Clock.monotonicNanoseconds() >= walk.nextTrim else { return }
        walk.nextTrim = Clock.monotonicNanoseconds() + trimNanoseconds
        do throws(SQLFailure) {
            let limit = configuration.trimLimit
            // Without its figures, what is too old goes all the same.
            if walk.excess == 0 {
                do throws(SQLFailure) { try look(around: connection) } catch .refused(let state, _)
                    where Self.isPassing(state)
                {}
            }
            walk.excess = excess(isTrimming: walk.excess > 0)
            let rows = try connection.run(texts: [
                StreamSchema.old(
                    after: walk.trimPlace, keepMilliseconds: configuration.streamKeepMilliseconds,
                    excess: walk.excess, limit: limit)
            ])[0].map { row in row.compactMap { Self.number($0) } }.filter { $0.count == 4 }
            guard let end = rows.map({ $0[2] }).max() else { return }
            _ = try connection.run(texts: [
                StreamSchema.lock, StreamSchema.release(rows.map { (slot: $0[0], through: $0[1]) }),
            ])
            _ = try connection.run(texts: [StreamSchema.remove(after: walk.trimPlace, through: end)])
            walk.trimPlace = end
            let isMore = walk.excess > 0 || rows.reduce(0, { $0 + $1[3] }) >= Int64(limit)
            if isMore { walk.nextTrim = 0 }
        } catch .refused(let state, _) where Self.isPassing(state) {}
    }

    private func look(around connection: borrowing SQLConnection) throws(SQLFailure) {
        let row = try connection.run(texts: [StreamSchema.surroundings(limit: Self.waitingLimit)])[0].first
        let numbers = (row ?? []).compactMap { Self.number($0) }
        guard numbers.count == 3 else { throw Self.strange }
        let found = Surroundings(
            waiting: numbers[0], recordBytes: numbers[1], captures: numbers[2] == CaptureSchema.triggers)
        state.withLock { $0.surroundings = found }
    }

    /// How many records go because all together are larger than they may be: once that is so, an eighth.
    private func excess(isTrimming: Bool) -> Int64 {
        let size = surroundings.recordBytes
        guard size > 0 else { return 0 }
        let (kept, most) = (keptCount, Int64(configuration.streamKeepBytes) / size)
        return isTrimming || kept > most ? max(0, kept - most / 8 * 7) : 0
    }

    // MARK: Records

    private func entry(_ row: [[UInt8]?], _ position: StreamPosition) throws(SQLFailure) -> ChangeTail.Entry {
        let numbers = [1, 2, 3, 4, 6, 7, 8].compactMap { $0 < row.count ? Self.number(row[$0]) : nil }
        guard row.count == 10, numbers.count == 7, let key = row[5].flatMap(Self.bytes),
            (0..<Int64(StreamSlots.count)).contains(numbers[0])
        else { throw .refused(state: "XX001", reason: "a record of the stream has other columns") }
        var record = OutboxRecord()
        record.slot = Int32(numbers[0])
        (record.firstSequence, record.sequence) = (numbers[1], numbers[1])
        let isCaptured = numbers[2] >= CaptureSchema.captured
        let operation = numbers[2] - (isCaptured ? CaptureSchema.captured : 0)
        record.operation = UInt8(exactly: operation).flatMap(OutboxRecord.Operation.init) ?? .set
        let pool = Int(numbers[3])
        let isKnown = configuration.poolNames.indices.contains(pool)
        record.pool = isKnown ? configuration.poolNames[pool] : pool < 0 ? "" : String(pool)
        record.key = key
        record.keyHash = stableHash(key.span)
        record.version = UInt64(bitPattern: numbers[4])
        // Another program's row may say that it never was there, as memcached's clients do with a negative time.
        record.expiryMilliseconds = numbers[5] < 0 ? 1 : numbers[5]
        record.timeMilliseconds = max(0, numbers[6])
        record.region = configuration.region
        (record.source, record.epoch) = (position.source, position.epoch)
        record.position = Self.number(row[0]).map { String($0) } ?? ""
        record.reason = isCaptured ? "cdc" : "write"
        // Of the length of a W3C traceparent: others write to the table too.
        record.trace = row[9].flatMap { $0.count == 55 ? String(decoding: $0, as: UTF8.self) : nil }
        var bytes: [UInt8] = []
        record.encodeObject(into: &bytes)
        return ChangeTail.Entry(slot: Int(record.slot), sequence: record.sequence, bytes: bytes)
    }

    func records(slot: Int, after sequence: Int64, limitBytes: Int) throws(StorageFailure) -> ChangeSlice {
        let limit = max(1, min(1_000, limitBytes / 100))
        guard let position else { return ChangeSlice(records: [], isLast: true) }
        do throws(SQLFailure) {
            let rows = try ask(StreamSchema.read(slot: slot, after: sequence, limit: limit))
            let entries = try rows.map { row throws(SQLFailure) in try entry(row, position) }
            guard entries.allSatisfy({ $0.slot == slot }) else { throw Self.strange }
            return ChangeSlice(records: entries, isLast: entries.count < limit)
        } catch { throw StorageFailure(.refused, error.reason) }
    }

    func rows(_ keys: [[UInt8]], limitBytes: Int, valueMax: Int) throws(StorageFailure) -> [StoredRow?] {
        guard !keys.isEmpty else { return [] }
        let digits = keys.map { Hexadecimal.digits($0) }
        let rows: SQLRows
        do throws(SQLFailure) {
            rows = try ask(StreamSchema.rows(digits, limitBytes: limitBytes, valueMax: valueMax))
        } catch { throw StorageFailure(.refused, error.reason) }
        var found = [StoredRow?](repeating: nil, count: keys.count)
        for row in rows {
            guard row.count == 7, let number = Self.number(row[0]), (1...Int64(keys.count)).contains(number) else {
                throw StorageFailure(.refused, "a row has other columns")
            }
            if row[4]?.first != UInt8(ascii: "t") { return Array(found.prefix(Int(number) - 1)) }
            guard let version = Self.number(row[1]), let expiry = Self.number(row[2]), let flags = Self.number(row[3]),
                let length = Self.number(row[6])
            else { continue }
            let value = row[5].flatMap(Self.bytes)
            var one = StoredRow(
                version: UInt64(bitPattern: version), expiryMilliseconds: expiry,
                clientFlags: UInt32(truncatingIfNeeded: flags), value: value ?? [])
            if value == nil { one.partialLength = Int(length) }
            found[Int(number) - 1] = one
        }
        return found
    }

    // MARK: Changes that another log tells of

    func places(of log: String) throws(StorageFailure) -> [Int: Int64] {
        let rows: SQLRows
        do throws(SQLFailure) { rows = try ask(IntakeSchema.places(log)) } catch {
            throw StorageFailure(.refused, error.reason)
        }
        var found: [Int: Int64] = [:]
        for row in rows where row.count == 2 {
            guard let partition = Self.number(row[0]), let next = Self.number(row[1]) else { continue }
            found[Int(partition)] = next
        }
        return found
    }

    func take(
        _ changes: [LoggedChange], of log: String, partition: Int, from place: Int64?, to next: Int64
    ) throws(StorageFailure) -> Bool {
        let text = IntakeSchema.take(changes, of: log, partition: partition, from: place, to: next)
        do throws(SQLFailure) { return try !ask(text).isEmpty } catch {
            throw StorageFailure(.refused, error.reason)
        }
    }

    // MARK: Questions between rounds

    /// Has the thread run a statement between two rounds. Blocks, but not where there is no
    /// connection.
    private func ask(_ text: String) throws(SQLFailure) -> SQLRows {
        guard state.withLock({ $0.isConnected }) else { throw .lostBefore(reason: "there is no connection") }
        let timeout = UInt64(configuration.statementTimeoutMilliseconds) * 1_000_000
        let answer = desk.ask(text, timeoutNanoseconds: timeout) {
            state.withLock { $0.isAsked = true }
            parking.announce()
        }
        guard let answer else { throw .lostBefore(reason: "the database does not answer") }
        return try answer.get()
    }

    private func answerQuestion(_ connection: borrowing SQLConnection) throws(SQLFailure) {
        guard let (number, text) = desk.waiting else { return }
        let answer: Result<SQLRows, SQLFailure>
        do throws(SQLFailure) { answer = .success(try connection.run(texts: [text]).first ?? []) } catch {
            desk.answer(number, .failure(error))
            // A statement that is refused is rolled back, and the connection as good as before, unless it leads to a
            // database that takes no writes.
            if case .refused(let state, _) = error, state != "25006" { return }
            throw error
        }
        desk.answer(number, answer)
    }

    private static func number(_ column: [UInt8]?) -> Int64? {
        column.flatMap { Int64(String(decoding: $0, as: UTF8.self)) }
    }

    private static func bytes(_ digits: [UInt8]) -> [UInt8]? {
        Hexadecimal.bytes(String(decoding: digits, as: UTF8.self))
    }
}
