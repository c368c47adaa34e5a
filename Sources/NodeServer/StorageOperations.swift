// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Memory
internal import Platform
internal import Storage
internal import Synchronization

/// What operators do with a node's store: pages of rows, backups, warming the cache. Safe to use from any thread.
final class StorageOperations: Sendable {
    /// Rows on one page at most.
    static var pageLimit: Int { 10_000 }
    /// Bytes of keys and values after which a page ends.
    static var pageBytes: Int { 4 << 20 }
    /// How long rows are looked for on one page, in nanoseconds: less than whoever asks waits.
    private static let pageNanoseconds: UInt64 = 2_000_000_000

    private let storage: NodeStorage
    private let ownership: NodeOwnership?
    private let hashSeed: UInt64
    private let job = Guarded(Job())
    private let parking = Parking()
    private let isStopping = Atomic<Bool>(false)

    /// The one long operation that may run, and how it goes.
    private struct Job {
        /// One more than the one before; the first is the time, so that none comes again after a restart.
        var number = Int(Clock.realtimeNanoseconds() / 1_000_000)
        var name = "none"
        var isRunning = false
        var done = 0
        var failure: String?
        var thread: Thread?
    }

    init(_ storage: NodeStorage, _ ownership: NodeOwnership?, hashSeed: UInt64) {
        self.storage = storage
        self.ownership = ownership
        self.hashSeed = hashSeed
    }

    /// One page of rows behind `key` that begin with `prefix`, as they stand in a dump: see ``DumpRecord``. Where rows
    /// are damaged it says so, and where it goes on, when time was up behind many dead ones. Rows whose keys no client
    /// can have, which other programs wrote, are passed over. An empty page is the end.
    func page(prefix: [UInt8], after key: [UInt8], limit: Int) throws(StorageFailure) -> [UInt8] {
        var bytes: [UInt8] = []
        var last = key
        var left = min(limit, Self.pageLimit)
        // What the records say: who reads them goes on behind it.
        var told = key
        let deadline = Clock.monotonicNanoseconds() + Self.pageNanoseconds
        while left > 0, bytes.count < Self.pageBytes {
            let bounds = ScanBounds(rows: min(left, 256), bytes: Self.pageBytes - bytes.count)
            let page = try storage.backend.scan(prefix: prefix, after: last, bounds)
            var damage = page.damage[...]
            for (index, (key, row)) in page.rows.enumerated() {
                while let place = damage.first, place.position <= index {
                    if place.key.count <= 250 { DumpRecord.append(damage: place, to: &bytes) }
                    damage.removeFirst()
                }
                guard CacheEngine.allows(keyLength: key.count) else { continue }
                DumpRecord.append(key: key, row: row, to: &bytes)
                left -= 1
            }
            for place in damage where place.key.count <= 250 { DumpRecord.append(damage: place, to: &bytes) }
            for end in [page.rows.last?.key, page.damage.last?.key] {
                if let end, told.lexicographicallyPrecedes(end) { told = end }
            }
            guard let end = page.next else { return bytes }
            last = end
            left -= page.damage.count
            if Clock.monotonicNanoseconds() >= deadline { break }
        }
        if last != told { DumpRecord.append(place: last, to: &bytes) }
        return bytes
    }

    /// What became of the wish to begin an operation.
    enum Beginning {
        /// It runs, under a number that no other has, not even after a restart.
        case begun(Int)
        case refused(String)
    }

    /// Begins a backup into the directory `path`, on a thread of its own; with `keep`, so many are left there.
    func beginBackup(to path: String, keep: Int?) -> Beginning {
        guard let store = storage.backend as? any BackedUpStore else {
            return .refused(
                "a backup copies the files of an embedded store, and this node has none: dump its rows, or back the "
                    + "database up by its own means")
        }
        return begin("backup") { progress in
            do throws(StorageFailure) {
                try store.backup(to: path, keep: keep)
                progress(1)
                return nil
            } catch {
                return error.reason
            }
        }
    }

    /// Begins to read rows whose keys begin with `prefix` into the cache, `rate` of them a second at most.
    func beginWarming(prefix: [UInt8], limit: Int, rate: Int) -> Beginning {
        begin("warm") { [self] progress in
            var warmUp = WarmUp(storage, ownership, hashSeed: hashSeed)
            do throws(StorageFailure) {
                while warmUp.asked < limit, !isStopping.load(ordering: .relaxed) {
                    let ticket = parking.ticket
                    guard try warmUp.readPage(prefix: prefix, limit: limit - warmUp.asked) else { break }
                    progress(warmUp.warmed)
                    let pause = warmUp.pauseNanoseconds(rate: rate)
                    if pause > 0 { parking.wait(ticket, timeoutNanoseconds: pause) }
                }
                warmUp.wait(outstandingAtMost: 0)
                progress(warmUp.warmed)
                return warmUp.complaint
            } catch {
                return error.reason
            }
        }
    }

    private func begin(
        _ name: String, _ body: @escaping @Sendable (_ progress: (Int) -> Void) -> String?
    ) -> Beginning {
        let (number, previous, running) = job.withLock { job -> (Int, Thread?, String?) in
            guard !job.isRunning else { return (job.number, nil, job.name) }
            let previous = job.thread
            job = Job(number: job.number + 1, name: name, isRunning: true)
            return (job.number, previous, nil)
        }
        if let running { return .refused("another operation runs: \(running)") }
        previous?.join()
        // Under the lock: whoever ends the node meanwhile finds either no thread, or one that he can wait for.
        return job.withLock { job in
            guard !isStopping.load(ordering: .relaxed) else {
                job = Job(number: number, name: name, failure: "the node ends")
                return .refused("the node ends")
            }
            do throws(SystemError) {
                job.thread = try Thread(name: "martlet-\(name)") { [self] in
                    let failure = body { done in self.job.withLock { $0.done = done } }
                    self.job.withLock { job in
                        job.isRunning = false
                        job.failure = failure
                    }
                }
                return .begun(number)
            } catch {
                job = Job(number: number, name: name, failure: error.reason)
                return .refused(error.reason)
            }
        }
    }

    /// The operation that runs or ran last.
    var status: (number: Int, name: String, isRunning: Bool, done: Int, failure: String?) {
        job.withLock { ($0.number, $0.name, $0.isRunning, $0.done, $0.failure) }
    }

    /// Ends what runs, at the end. Blocks: a backup is not broken off.
    func finish() {
        isStopping.store(true, ordering: .relaxed)
        storage.warming.stop()
        parking.announce()
        let thread = job.withLock { job in
            defer { job.thread = nil }
            return job.thread
        }
        thread?.join()
    }
}
