// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// A store in memory: for tests, and for trying out what a node does with storage (`backend: memory`). What it holds
/// ends with the process.
///
/// Work is done strictly in the order of its submission, by whichever thread finds nobody at it (`inline`) or by a
/// thread of the backend's own.
package final class MemoryBackend: StorageBackend {
    /// Who does the work.
    package enum Execution: Sendable {
        /// The submitting thread, before its call returns, unless another is at it already.
        case inline
        /// A thread of its own.
        case thread
    }

    /// Work that is not done yet.
    private enum Work: Sendable {
        case reads([StorageRead])
        case writes([SubmittedWrite])
    }

    private struct State {
        var rows: [[UInt8]: StoredRow] = [:]
        var bytes = 0
        var clock = HybridLogicalClock(persistedMark: 0)
        /// No row expires before this time; and when expired ones were last looked for. In milliseconds of Unix time.
        var earliestExpiry = Int64.max
        var lastReap = Int64.min
        var queue: [Work] = []
        var isWorking = false
        var isStopping = false
        var sink: (any StorageSink)?
        var thread: Thread?
        var reads: UInt64 = 0
        var writes: UInt64 = 0
    }

    private let state = Guarded(State())
    private let parking = Parking()
    private let execution: Execution
    private let capacityBytes: Int
    private let unixMilliseconds: @Sendable () -> Int64

    /// An empty store that holds up to `capacityBytes` of keys and values; writes past it are refused.
    package init(
        execution: Execution = .thread, capacityBytes: Int = 1 << 30,
        unixMilliseconds: @escaping @Sendable () -> Int64 = StorageTierClock.system.unixMilliseconds
    ) {
        self.execution = execution
        self.capacityBytes = capacityBytes
        self.unixMilliseconds = unixMilliseconds
    }

    /// Starts answering `sink`.
    package func start(_ sink: any StorageSink) throws(StorageStartError) {
        state.withLock { state in
            state.sink = sink
            state.isStopping = false
        }
        guard execution == .thread else { return }
        do throws(SystemError) {
            let thread = try Thread(name: "martlet-memory") { [self] in serve() }
            state.withLock { $0.thread = thread }
        } catch {
            throw StorageStartError("the memory backend has no thread: \(error)")
        }
    }

    /// Answers what was submitted, then forgets the sink; the rows stay.
    package func stop() {
        let thread = state.withLock { state in
            state.isStopping = true
            defer { state.thread = nil }
            return state.thread
        }
        parking.announce()
        thread?.join()
        work()
        state.withLock { $0.sink = nil }
    }

    /// Answers reads, behind whatever was submitted before.
    package func read(_ reads: [StorageRead]) { submit(.reads(reads)) }

    /// Commits writes, behind whatever was submitted before.
    package func write(_ writes: [SubmittedWrite]) { submit(.writes(writes)) }

    /// Always ready.
    package var health: StorageHealth { .ready }

    /// How much it holds and how much it did.
    package func statistics() -> [StorageStatistic] {
        state.withLock { state in
            [
                StorageStatistic("memory_rows", .gauge, Double(state.rows.count), "Rows in the memory backend."),
                StorageStatistic("memory_bytes", .gauge, Double(state.bytes), "Bytes of keys and values in it."),
                StorageStatistic("memory_reads", .counter, Double(state.reads), "Reads that it answered."),
                StorageStatistic("memory_writes", .counter, Double(state.writes), "Writes that it answered."),
            ]
        }
    }

    /// Live rows in the order of their keys. Sorts all that match: for tests.
    package func scan(
        prefix: [UInt8], after key: [UInt8], _ bounds: ScanBounds
    ) throws(StorageFailure) -> ScanPage {
        let now = unixMilliseconds()
        return state.withLock { state in
            let found = state.rows.filter { candidate, row in
                row.isLive(at: now) && candidate.starts(with: prefix) && key.lexicographicallyPrecedes(candidate)
            }
            let sorted = found.sorted { $0.key.lexicographicallyPrecedes($1.key) }
            var bytes = 0
            let rows = sorted.prefix(bounds.rows).prefix { key, row in
                defer { bytes += key.count + (bounds.hasValues ? row.value.count : 0) }
                return bytes < bounds.bytes
            }.map { (key: $0.key, row: bounds.hasValues ? $0.value : $0.value.withoutValue) }
            return ScanPage(rows: rows, next: rows.count < sorted.count ? rows.last?.key : nil)
        }
    }

    // MARK: Work

    private func submit(_ work: Work) {
        state.withLock { $0.queue.append(work) }
        switch execution {
        case .inline: self.work()
        case .thread: parking.announce()
        }
    }

    private func serve() {
        while true {
            let ticket = parking.ticket
            work()
            let (isIdle, isStopping) = state.withLock { ($0.queue.isEmpty, $0.isStopping) }
            if isStopping && isIdle { return }
            if isIdle { parking.wait(ticket, timeoutNanoseconds: 1_000_000_000) }
        }
    }

    /// Empties the queue, unless somebody is at it: that one sees what was added. Answers go out without the lock.
    private func work() {
        while true {
            let next = state.withLock { state -> (Work, (any StorageSink)?)? in
                guard !state.isWorking, !state.queue.isEmpty else { return nil }
                state.isWorking = true
                return (state.queue.removeFirst(), state.sink)
            }
            guard let (work, sink) = next else { return }
            let now = unixMilliseconds()
            switch work {
            case .reads(let reads):
                let results = state.withLock { state in reads.map { Self.answer($0, at: now, &state) } }
                sink?.readsCompleted(results)
            case .writes(let writes):
                let results = state.withLock { state in
                    writes.map { ($0.token, Self.commit($0.write, at: now, limit: capacityBytes, &state)) }
                }
                sink?.writesCompleted(results)
            }
            state.withLock { $0.isWorking = false }
        }
    }

    private static func answer(
        _ read: StorageRead, at now: Int64, _ state: inout State
    ) -> (token: UInt64, outcome: ReadOutcome) {
        state.reads += 1
        guard let row = state.rows[read.key], row.isLive(at: now) else { return (read.token, .absent) }
        return (read.token, .found(row))
    }

    private static func commit(
        _ write: StorageWrite, at now: Int64, limit: Int, _ state: inout State
    ) -> WriteOutcome {
        state.writes += 1
        let stored = state.rows[write.key]
        let live = stored.flatMap { $0.isLive(at: now) ? $0 : nil }
        let old = stored.map { write.key.count + $0.value.count } ?? 0
        switch WriteEvaluation.decide(write, live: live) {
        case .refuse(let outcome): return outcome
        case .tombstone:
            // Versions come from one clock, so nothing need be kept for the key's next one.
            state.rows[write.key] = nil
            state.bytes -= old
            return .deleted(version: state.clock.next(after: stored?.version ?? 0, unixMilliseconds: now))
        case .put(var row):
            let size = write.key.count + row.value.count
            guard state.bytes - old + size <= limit || reap(at: now, sparing: write.key, &state) + size - old <= limit
            else { return .failed(StorageFailure(.refused, "the memory backend is full")) }
            row.version = state.clock.next(after: stored?.version ?? 0, unixMilliseconds: now)
            state.rows[write.key] = row
            state.bytes += size - old
            if row.expiryMilliseconds != 0 { state.earliestExpiry = min(state.earliestExpiry, row.expiryMilliseconds) }
            return .stored(row)
        }
    }

    /// Between looks for expired rows while it is full, in milliseconds: each look is at all rows.
    private static let reapMilliseconds: Int64 = 1_000

    /// Forgets expired rows, where there may be some and it is time to look. Returns the bytes that are left.
    private static func reap(at now: Int64, sparing key: [UInt8], _ state: inout State) -> Int {
        // A clock that was set back is no reason to wait.
        let isTime = state.lastReap > now || now >= state.lastReap &+ reapMilliseconds
        guard now >= state.earliestExpiry, isTime else { return state.bytes }
        state.lastReap = now
        state.earliestExpiry = .max
        var expired: [(key: [UInt8], bytes: Int)] = []
        for (other, row) in state.rows where row.expiryMilliseconds != 0 {
            if row.isLive(at: now) || other == key {
                state.earliestExpiry = min(state.earliestExpiry, row.expiryMilliseconds)
            } else {
                expired.append((other, other.count + row.value.count))
            }
        }
        for (key, bytes) in expired {
            state.rows[key] = nil
            state.bytes -= bytes
        }
        return state.bytes
    }
}
