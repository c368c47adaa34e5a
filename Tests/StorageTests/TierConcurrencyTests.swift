// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Platform
import Storage
import Synchronization
import Testing

/// The tier on real threads, over the memory backend.
struct TierConcurrencyTests {
    /// A cache behind a lock, as the tier's stripes call it from many threads.
    private final class LockedCopies: CachedCopies {
        private let copies = Guarded<[[UInt8]: StoredRow]>([:])

        func install(_ row: StoredRow, key: [UInt8], hash: UInt64, pool: Int) {
            copies.withLock { $0[key] = row }
        }

        func installAbsent(key: [UInt8], hash: UInt64, pool: Int) { drop(key: key, hash: hash) }
        func drop(key: [UInt8], hash: UInt64) { copies.withLock { $0[key] = nil } }
        func removeAll() { copies.withLock { $0 = [:] } }
        func row(_ key: [UInt8]) -> StoredRow? { copies.withLock { $0[key] } }
    }

    /// A receiver of one thread that waits for one answer at a time.
    private final class Mailbox: StorageReceiver {
        private let answers = Guarded<[UInt64: StorageAnswer]>([:])
        private let parking = Parking()

        func deliver(_ answers: [StorageAnswer]) {
            self.answers.withLock { own in
                for answer in answers {
                    switch answer {
                    case .read(let token, _), .write(let token, _): own[token] = answer
                    }
                }
            }
            parking.announce()
        }

        func wait(_ token: UInt64) -> StorageAnswer {
            while true {
                let ticket = parking.ticket
                if let answer = answers.withLock({ $0.removeValue(forKey: token) }) { return answer }
                parking.wait(ticket, timeoutNanoseconds: 1_000_000_000)
            }
        }
    }

    /// Threads count up shared counters and read them: every count is there, no reader sees a counter go back, and the
    /// cache ends with what storage has.
    @Test(arguments: [MemoryBackend.Execution.inline, .thread])
    func noCountIsLost(_ execution: MemoryBackend.Execution) throws {
        let (threads, rounds, keys) = (4, 2000, 3)
        let backend = MemoryBackend(execution: execution)
        let copies = LockedCopies()
        let mailboxes = (0..<threads).map { _ in Mailbox() }
        var configuration = StorageTierConfiguration()
        configuration.stripes = 2
        configuration.bucketsPerStripe = 1
        let tier = StorageTier(
            backend: backend, copies: copies, receivers: mailboxes, pools: [StoragePoolPolicy()],
            configuration: configuration)
        try tier.start()
        let wentBack = Atomic<Int>(0)
        let running = try (0..<threads).map { number in
            try Thread(name: "count-\(number)") {
                var seen = [UInt64](repeating: 0, count: keys)
                for round in 0..<rounds {
                    let place = (round + number) % keys
                    let key = Array("counter-\(place)".utf8)
                    let hash = stableHash(key.span)
                    let token = UInt64(round) * 2
                    let reader = StorageWaiter(receiver: UInt32(number), token: token)
                    var value: UInt64 = 0
                    if let row = copies.row(key) {
                        value = WriteEvaluation.number(row.value) ?? 0
                    } else {
                        tier.read(key: key, hash: hash, pool: 0, for: reader)
                        if case .read(_, .found(let row)) = mailboxes[number].wait(token) {
                            value = WriteEvaluation.number(row.value) ?? 0
                        }
                    }
                    if value < seen[place] { wentBack.add(1, ordering: .relaxed) }
                    var write = StorageWrite(.increment, key: key)
                    (write.delta, write.initial) = (1, 1)
                    tier.write(write, hash: hash, for: StorageWaiter(receiver: UInt32(number), token: token + 1))
                    guard case .write(_, .stored(let row)) = mailboxes[number].wait(token + 1) else { continue }
                    seen[place] = WriteEvaluation.number(row.value) ?? 0
                    if round % 7 == 0 { copies.drop(key: key, hash: hash) }
                }
            }
        }
        for thread in running { thread.join() }
        #expect(wentBack.load(ordering: .relaxed) == 0)
        let rows = try backend.scan(prefix: Array("counter-".utf8), after: [], limit: 10)
        #expect(rows.reduce(0) { $0 + (WriteEvaluation.number($1.row.value) ?? 0) } == UInt64(threads * rounds))
        for (key, row) in rows { #expect(copies.row(key) == nil || copies.row(key) == row) }
        tier.stop()
    }

    @Test func theMemoryBackendKeepsOrderAndLimits() throws {
        let backend = MemoryBackend(execution: .inline, capacityBytes: 10, unixMilliseconds: { 1000 })
        let copies = LockedCopies()
        let mailbox = Mailbox()
        let tier = StorageTier(
            backend: backend, copies: copies, receivers: [mailbox], pools: [StoragePoolPolicy()],
            configuration: StorageTierConfiguration())
        try tier.start()
        func write(_ key: String, _ value: String, expiry: Int64 = 0) -> WriteOutcome? {
            var write = StorageWrite(.set, key: Array(key.utf8))
            write.value = Array(value.utf8)
            write.expiryMilliseconds = expiry
            tier.write(write, hash: stableHash(write.key.span), for: StorageWaiter(receiver: 0, token: 1))
            if case .write(_, let outcome) = mailbox.wait(1) { return outcome }
            return nil
        }
        guard case .stored = write("a", "1234"), case .stored = write("b", "1234", expiry: 900) else {
            Issue.record("the first two fit")
            return
        }
        #expect(write("a", "12345678901") == .failed(StorageFailure(.refused, "the memory backend is full")))
        guard case .stored = write("a", "123456789") else {
            Issue.record("what has expired makes room")
            return
        }
        let rows = try backend.scan(prefix: [], after: [], limit: 10)
        #expect(rows.map(\.key) == [Array("a".utf8)])
        tier.stop()
    }

    @Test func aFullMemoryBackendLooksAtAllRowsNowAndThenOnly() throws {
        let now = Atomic<Int64>(1_000)
        let backend = MemoryBackend(
            execution: .inline, capacityBytes: 10 * 40_000, unixMilliseconds: { now.load(ordering: .relaxed) })
        let answers = WriteAnswers()
        try backend.start(answers)
        func write(_ number: Int, expiry: Int64 = 0) -> WriteOutcome? {
            var write = StorageWrite(.set, key: Array("\(100_000 + number)".utf8))
            (write.value, write.expiryMilliseconds) = (Array("1234".utf8), expiry)
            backend.write([SubmittedWrite(token: 0, write: write)])
            return answers.last
        }
        for number in 0..<40_000 { _ = write(number, expiry: number < 10 ? 5_000 : 9_000_000) }
        let full = WriteOutcome.failed(StorageFailure(.refused, "the memory backend is full"))
        let began = Clock.monotonicNanoseconds()
        for number in 40_000..<50_000 { #expect(write(number) == full) }
        let seconds = Double(Clock.monotonicNanoseconds() - began) / 1e9
        #expect(seconds < 5, "10,000 refused writes took \(seconds) s beside 40,000 rows")
        now.store(5_000, ordering: .relaxed)
        for number in 40_000..<40_010 {
            guard case .stored? = write(number) else {
                Issue.record("what has expired makes room")
                return
            }
        }
        #expect(write(40_010) == full)
        backend.stop()
    }
}

/// Keeps the last answer to a write.
private final class WriteAnswers: StorageSink {
    private let outcome = Guarded<WriteOutcome?>(nil)
    var last: WriteOutcome? { outcome.withLock { $0 } }
    func readsCompleted(_ results: [(token: UInt64, outcome: ReadOutcome)]) {}
    func writesCompleted(_ results: [(token: UInt64, outcome: WriteOutcome)]) {
        outcome.withLock { $0 = results.last?.outcome }
    }
    func unknownOutcomesSettled() {}
}
