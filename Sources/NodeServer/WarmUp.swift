// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Memory
internal import Platform
internal import Storage

/// Rows on their way from the store into the cache: read as clients read them, since only that way knows when a row may
/// be cached, and no more at a time than leaves the clients room. Of one thread.
struct WarmUp: ~Copyable {
    /// Rows of one page.
    private static let pageRows = 256
    /// Reads that may wait for the store at a time.
    private static let outstandingMax = 512

    private let storage: NodeStorage
    private let ownership: NodeOwnership?
    private let hashSeed: UInt64
    private let before: WarmingReads.Tally
    private let began = Clock.monotonicNanoseconds()
    private var last: [UInt8] = []
    /// Rows that were asked for.
    private(set) var asked = 0
    /// Rows of those that are not cached here: another pool keeps their keys out of the store, they are another
    /// node's, or they are no keys for clients, though somebody wrote them to the store.
    private var skipped = 0
    /// Places in the store that are damaged.
    private var damaged = 0

    init(_ storage: NodeStorage, _ ownership: NodeOwnership?, hashSeed: UInt64) {
        self.storage = storage
        self.ownership = ownership
        self.hashSeed = hashSeed
        before = storage.warming.tally
    }

    /// Asks for the next rows whose keys begin with `prefix`, at most `limit`, once there is room. False when there are
    /// no more. Ends with an error when the store fails everything.
    mutating func readPage(prefix: [UInt8], limit: Int) throws(StorageFailure) -> Bool {
        wait(outstandingAtMost: Self.outstandingMax - Self.pageRows)
        let failed = storage.warming.tally.failed - before.failed
        if failed >= Self.pageRows, failed * 2 > asked { throw StorageFailure(.refused, complaint ?? "") }
        let bounds = ScanBounds(rows: min(Self.pageRows, limit), hasValues: false)
        let page = try storage.backend.scan(prefix: prefix, after: last, bounds)
        damaged += page.damage.count
        let view = ownership?.view
        for (key, _) in page.rows {
            guard CacheEngine.allows(keyLength: key.count), !Self.isForeign(key, view),
                let pool = storage.pools.pool(of: key.span)
            else {
                skipped += 1
                continue
            }
            storage.tier.read(
                key: key, hash: stableHash(key.span, seed: hashSeed), pool: pool, for: storage.warmer)
        }
        asked += page.rows.count
        guard let end = page.next else { return false }
        last = end
        return true
    }

    private static func isForeign(_ key: [UInt8], _ view: OwnershipView?) -> Bool {
        if case .foreign? = view?.verdict(of: key.span) { true } else { false }
    }

    /// Waits until so few reads are left unanswered, or the node ends. Each is answered within the store's timeout.
    func wait(outstandingAtMost limit: Int) {
        while true {
            let ticket = storage.warming.parking.ticket
            if storage.warming.isStopped { return }
            if asked - skipped - (storage.warming.tally.answered - before.answered) <= limit { return }
            storage.warming.parking.wait(ticket, timeoutNanoseconds: 1_000_000_000)
        }
    }

    /// How long to wait for `rate` rows a second.
    func pauseNanoseconds(rate: Int) -> UInt64 {
        let due = began + UInt64(asked) * 1_000_000_000 / UInt64(max(rate, 1))
        let now = Clock.monotonicNanoseconds()
        return due > now ? due - now : 0
    }

    /// Rows that the store gave.
    var warmed: Int {
        let tally = storage.warming.tally
        return max(0, tally.answered - before.answered - (tally.failed - before.failed))
    }

    /// What went wrong with some of them; nil when nothing did.
    var complaint: String? {
        let tally = storage.warming.tally
        let failed = tally.failed - before.failed
        if failed > 0 { return "\(failed) of \(asked) rows could not be read: \(tally.reason)" }
        return damaged == 0 ? nil : "\(damaged) places of the store are damaged; what can be read is in the cache"
    }
}
