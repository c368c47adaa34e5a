// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Storage
internal import Telemetry

/// What a reader thread does: takes what waits, looks it up together, answers.
struct ReaderLoop: ~Copyable {
    private let core: BackendCore
    private let database: RocksDatabase
    /// Which of the readers it is.
    private let index: Int
    private var waiting: [Waiting<StorageRead>] = []
    private var taken: [StorageRead] = []
    private var lookup = LookupScratch()
    /// How large rows are lately: of large ones it takes fewer at once.
    private var sizes = RowSizes()

    init(core: BackendCore, database: RocksDatabase, index: Int) {
        self.core = core
        self.database = database
        self.index = index
    }

    /// Reads until the queue is closed and empty.
    mutating func run() {
        while true {
            let ticket = core.reads.parking.ticket
            let isClosed = core.reads.isClosed
            core.sink?.waitForRoom()
            waiting.removeAll(keepingCapacity: true)
            let (bytes, most) = (core.configuration.readBatchBytes, core.configuration.readBatchLimit)
            core.reads.take(into: &waiting, limit: sizes.count(fitting: bytes, in: min(4, most)...most))
            if !waiting.isEmpty {
                taken.removeAll(keepingCapacity: true)
                taken.append(contentsOf: waiting.lazy.map(\.element))
                answer()
            } else if isClosed {
                return
            } else {
                core.reads.parking.wait(ticket, timeoutNanoseconds: BackendCore.checkNanoseconds)
            }
        }
    }

    /// Looks up what was taken, with as many lookups as the largest rows may need, and delivers their rows together
    /// until they are many bytes.
    private mutating func answer() {
        let reads = taken
        let order = reads.count == 1 ? [0] : KeyOrder.order(reads.map(\.key))
        var (next, bytes, began) = (0, 0, Clock.monotonicNanoseconds())
        var results: [(token: UInt64, outcome: ReadOutcome)] = []
        while next < order.count {
            let part = order[next..<min(order.count, next + core.configuration.lookupRows)]
            next = part.endIndex
            core.work.begin(index)
            core.configuration.willRead()
            bytes += look(part.map { reads[$0] }, &results)
            core.work.end(index)
            guard bytes >= core.configuration.readBatchBytes || next == order.count else { continue }
            core.sink?.readsCompleted(
                results,
                timing: StorageTiming(
                    taken: began, began: began, ended: Clock.monotonicNanoseconds(), count: results.count,
                    isCommit: false))
            guard next < order.count else { return }
            results.removeAll()
            core.sink?.waitForRoom()
            (bytes, began) = (0, Clock.monotonicNanoseconds())
        }
    }

    /// Looks up keys that are sorted, and adds what becomes of them; returns the bytes of their rows.
    private mutating func look(
        _ reads: [StorageRead], _ results: inout [(token: UInt64, outcome: ReadOutcome)]
    ) -> Int {
        let keys = reads.map(\.key)
        let now = core.configuration.now()
        let first = results.count
        results += reads.lazy.map { (token: $0.token, outcome: ReadOutcome.absent) }
        var (found, damaged, failed, total) = (0, 0, 0, 0)
        var seen = sizes
        database.values(.rows, sortedKeys: keys, scratch: &lookup) { index, bytes in
            switch RowCodec.decode(bytes, keyHash: hash(of: keys[index])) {
            case .row(let row) where row.isLive(at: now):
                results[first + index].outcome = .found(row)
                seen.note(row.value.count)
                found += 1
                total += row.value.count
            case .row, .tombstone: break
            case .damaged:
                results[first + index].outcome = .failed(StorageFailure(.refused, BackendCore.damaged))
                damaged += 1
            }
        } failed: { index, reason in
            results[first + index].outcome = .failed(StorageFailure(.refused, "reading the row failed: \(reason)"))
            failed += 1
            core.noteFailedRead(RocksDatabase.Failure(reason: reason), database)
        }
        sizes = seen
        let counters = core.counters
        counters.readBatches.add(1)
        counters.reads.add(reads.count)
        counters.readsFound.add(found)
        if damaged + failed > 0 {
            counters.checksumErrors.add(damaged)
            counters.readsFailed.add(damaged + failed)
        }
        return total
    }
}
