// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A store behind the cache. Safe to call from any thread; no call blocks but those that say so.
///
/// Answers go to the ``StorageSink`` that ``start(_:)`` got, in batches, from threads of the backend. Each token is
/// answered once. Writes to one key take effect, and are answered, in the order of their submission; a read sees every
/// write to its key that was answered before the read was submitted.
package protocol StorageBackend: AnyObject, Sendable {
    /// Opens the store and starts answering. May block. Throws what stops the start: a wrong path, corrupt files, a
    /// schema that is missing or newer, a wrong password.
    func start(_ sink: any StorageSink) throws(StorageStartError)

    /// Asked once, after ``start(_:)``: whether writes of an earlier process may still take effect, because its
    /// sessions are not known to be gone. The tier then caches nothing until
    /// ``StorageSink/unknownOutcomesSettled()``. False unless the backend says otherwise.
    var mayHaveEarlierWrites: Bool { get }

    /// Reads rows. A backend that has too many waiting answers `notSent`.
    func read(_ reads: [StorageRead])

    /// Commits changes, each with its record in the outbox in the same transaction. A backend that has too many
    /// waiting answers `notSent`.
    func write(_ writes: [SubmittedWrite])

    /// What is known of the store's health, for readiness; cheap.
    var health: StorageHealth { get }

    /// Counters and gauges for `stats storage` and /metrics, by the names that the backend documents.
    func statistics() -> [StorageStatistic]

    /// What its user should know though nothing fails, for the log; nil unless the backend says otherwise. Cheap.
    var notice: String? { get }

    /// Live rows in the order of their keys, from the first key behind `key` that begins with `prefix`. What is damaged
    /// is passed over and told. A page may have no row and yet not be the last: it looks at so many rows, live or not,
    /// and no more. Blocks: for export and warm-up.
    func scan(prefix: [UInt8], after key: [UInt8], _ bounds: ScanBounds) throws(StorageFailure) -> ScanPage

    /// Answers what was submitted, then closes. Blocks.
    func stop()

    /// What tells the store's content from any other, one line: as it was found by ``start(_:)`` before anything was
    /// written, and after ``stop()`` as it was left. Two that are equal mean that nobody wrote in between. Nil where
    /// others may write to the store while this process is away, or the end was not a clean one.
    var contentMark: String? { get }

    /// What the store is called, one word, from ``start(_:)`` on: the same over restarts, and another one where earlier
    /// rows came back or later ones are gone. Nil where rows go with the process.
    var identity: String? { get }
}

extension StorageBackend {
    /// The rows of ``scan(prefix:after:_:)``, at most `limit`; damage is an error.
    package func scan(
        prefix: [UInt8], after key: [UInt8], limit: Int
    ) throws(StorageFailure) -> [(key: [UInt8], row: StoredRow)] {
        var (rows, next): ([(key: [UInt8], row: StoredRow)], [UInt8]?) = ([], key)
        while let last = next, rows.count < limit {
            let page = try scan(prefix: prefix, after: last, ScanBounds(rows: limit - rows.count))
            if let damage = page.damage.first { throw StorageFailure(.refused, damage.reason) }
            rows += page.rows
            next = page.next
        }
        return rows
    }

    /// A store of one process knows that nobody else writes to it.
    package var mayHaveEarlierWrites: Bool { false }

    /// A store that does not say otherwise goes with the process.
    package var identity: String? { nil }

    /// A store that does not say otherwise may be written to by others.
    package var contentMark: String? { nil }

    /// A store that does not say otherwise has nothing to tell.
    package var notice: String? { nil }
}

/// A read on its way to a backend.
package struct StorageRead: Sendable {
    /// Names the read in the answer.
    package var token: UInt64
    /// Whose row is wanted.
    package var key: [UInt8]

    /// A read of a key's row.
    package init(token: UInt64, key: [UInt8]) {
        self.token = token
        self.key = key
    }
}

/// A write on its way to a backend.
package struct SubmittedWrite: Sendable {
    /// Names the write in the answer.
    package var token: UInt64
    /// What is to be done.
    package var write: StorageWrite

    /// A write with the number that its answer has.
    package init(token: UInt64, write: StorageWrite) {
        self.token = token
        self.write = write
    }
}

/// Where a backend's answers go. Called from the backend's threads; does not block for long.
package protocol StorageSink: AnyObject, Sendable {
    func readsCompleted(_ results: [(token: UInt64, outcome: ReadOutcome)])
    func writesCompleted(_ results: [(token: UInt64, outcome: WriteOutcome)])
    /// The same for a batch, with what was spent on it.
    func readsCompleted(_ results: [(token: UInt64, outcome: ReadOutcome)], timing: StorageTiming)
    func writesCompleted(_ results: [(token: UInt64, outcome: WriteOutcome)], timing: StorageTiming)
    /// The session that an unknown outcome belongs to is gone, so that the outcome cannot change any more: from now on
    /// a read shows what became of every write that was answered `unknownOutcome` before.
    func unknownOutcomesSettled()
    /// Another database took the place of the one that was asked, and may lack rows that were answered: every copy
    /// goes, and no answer to what was submitted before is kept. When it returns, none is left.
    func rowsReplaced()
    /// Returns when those who wait for rows have taken most of what they were given, or after a second. For threads
    /// that read, before they read more. Blocks.
    func waitForRoom()
}

extension StorageSink {
    /// No copies are kept.
    package func rowsReplaced() {}

    /// There is always room.
    package func waitForRoom() {}

    /// Nobody wants to know the times.
    package func readsCompleted(_ results: [(token: UInt64, outcome: ReadOutcome)], timing: StorageTiming) {
        readsCompleted(results)
    }

    /// Nobody wants to know the times.
    package func writesCompleted(_ results: [(token: UInt64, outcome: WriteOutcome)], timing: StorageTiming) {
        writesCompleted(results)
    }
}

/// Whether a store can be used.
package enum StorageHealth: Sendable, Equatable {
    case ready
    /// Reads and writes work, and something behind them does not; with the reason.
    case impaired(String)
    /// Reads work, writes are refused; with the reason.
    case readOnly(String)
    /// Nothing works; with the reason.
    case unavailable(String)
}

/// One figure of a backend.
package struct StorageStatistic: Sendable {
    /// Whether it only ever grows.
    package enum Kind: Sendable { case counter, gauge }
    /// A name like `commit_seconds_sum`: lower case, with its unit.
    package var name: String
    /// Counter or gauge.
    package var kind: Kind
    /// Its value now.
    package var value: Double
    /// One sentence.
    package var help: String

    /// A figure with its one sentence of help.
    package init(_ name: String, _ kind: Kind, _ value: Double, _ help: String) {
        self.name = name
        self.kind = kind
        self.value = value
        self.help = help
    }
}

/// Why a store cannot be opened: what is wrong, and what is allowed.
package struct StorageStartError: Error, Sendable, Equatable, CustomStringConvertible {
    package var description: String

    /// An error with what its reader is to know.
    package init(_ description: String) { self.description = description }
}
