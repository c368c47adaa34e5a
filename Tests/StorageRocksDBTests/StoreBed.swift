// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Platform
import Storage
import StorageRocksDB

/// Keeps what a backend answers, by token.
final class Answers: StorageSink {
    private struct State {
        var reads: [UInt64: ReadOutcome] = [:]
        var writes: [UInt64: WriteOutcome] = [:]
        /// Tokens in the order of their answers.
        var order: [UInt64] = []
        var repeated = 0
        /// Bytes of the rows that were answered at once, each time.
        var deliveries: [Int] = []
        /// How many writes were answered at once, each time.
        var batches: [Int] = []
    }

    private let state = Guarded(State())
    private let parking = Parking()
    /// Holds answers of writes back while it is locked.
    let gate = Lock()

    func readsCompleted(_ results: [(token: UInt64, outcome: ReadOutcome)]) {
        state.withLock { state in
            state.deliveries.append(results.reduce(0) { $0 + $1.outcome.bytes })
            for (token, outcome) in results {
                if state.reads.updateValue(outcome, forKey: token) != nil { state.repeated += 1 }
                state.order.append(token)
            }
        }
        parking.announce()
    }

    func writesCompleted(_ results: [(token: UInt64, outcome: WriteOutcome)]) {
        gate.withLock {}
        state.withLock { state in
            state.batches.append(results.count)
            for (token, outcome) in results {
                if state.writes.updateValue(outcome, forKey: token) != nil { state.repeated += 1 }
                state.order.append(token)
            }
        }
        parking.announce()
    }

    func unknownOutcomesSettled() {}

    /// How many tokens were answered more than once.
    var repeated: Int { state.withLock { $0.repeated } }

    /// Bytes of the rows that were answered at once, each time.
    var deliveries: [Int] { state.withLock { $0.deliveries } }

    /// How many writes each commit answered.
    var batches: [Int] { state.withLock { $0.batches } }

    var order: [UInt64] { state.withLock { $0.order } }

    func read(_ token: UInt64) -> ReadOutcome? { wait { $0.reads[token] } }

    func write(_ token: UInt64) -> WriteOutcome? { wait { $0.writes[token] } }

    func writeIfAnswered(_ token: UInt64) -> WriteOutcome? { state.withLock { $0.writes[token] } }

    private func wait<T>(_ look: (State) -> T?) -> T? {
        let end = Clock.monotonicNanoseconds() + 20_000_000_000
        while Clock.monotonicNanoseconds() < end {
            let ticket = parking.ticket
            if let found = state.withLock({ look($0) }) { return found }
            parking.wait(ticket, timeoutNanoseconds: 100_000_000)
        }
        return nil
    }
}

/// Milliseconds that a test sets.
final class TestClock: Sendable {
    private let milliseconds: Guarded<Int64>
    init(_ start: Int64) { milliseconds = Guarded(start) }
    var now: Int64 {
        get { milliseconds.withLock { $0 } }
        set { milliseconds.withLock { $0 = newValue } }
    }
}

/// A store in a directory of its own, with calls that wait for their answers.
final class StoreBed {
    let directory: String
    var configuration: RocksDBConfiguration
    let clock = TestClock(1_800_000_000_000)
    private(set) var answers = Answers()
    private(set) var backend: RocksDBBackend
    private var token: UInt64 = 0

    /// A store that is open.
    init(_ change: (inout RocksDBConfiguration) -> Void = { _ in }) throws {
        directory = StoreBed.newDirectory()
        configuration = RocksDBConfiguration(path: directory + "/store")
        let clock = self.clock
        configuration.now = { clock.now }
        configuration.blockCacheBytes = 4 << 20
        change(&configuration)
        backend = RocksDBBackend(configuration)
        try backend.start(answers)
    }

    deinit {
        backend.stop()
        try? FileManager.default.removeItem(atPath: directory)
    }

    static func newDirectory() -> String { NSTemporaryDirectory() + "martlet-\(UUID().uuidString)" }

    /// Closes the store and opens it again.
    func restart(_ change: (inout RocksDBConfiguration) -> Void = { _ in }) throws {
        backend.stop()
        change(&configuration)
        answers = Answers()
        backend = RocksDBBackend(configuration)
        try backend.start(answers)
    }

    func nextToken() -> UInt64 {
        token += 1
        return token
    }

    /// Does a write and waits for its outcome.
    @discardableResult
    func write(_ write: StorageWrite) -> WriteOutcome? {
        let token = nextToken()
        backend.write([SubmittedWrite(token: token, write: write)])
        return answers.write(token)
    }

    /// Does an operation with a key and a value, and waits for its outcome.
    @discardableResult
    func write(
        _ operation: StorageWrite.Operation, _ key: String, _ value: String = "",
        _ change: (inout StorageWrite) -> Void = { _ in }
    ) -> WriteOutcome? {
        write(StoreBed.make(operation, key, value, change))
    }

    static func make(
        _ operation: StorageWrite.Operation, _ key: String, _ value: String = "",
        _ change: (inout StorageWrite) -> Void = { _ in }
    ) -> StorageWrite {
        var write = StorageWrite(operation, key: Array(key.utf8))
        write.value = Array(value.utf8)
        change(&write)
        return write
    }

    /// Reads a key and waits for the outcome.
    func read(_ key: String) -> ReadOutcome? {
        let token = nextToken()
        backend.read([StorageRead(token: token, key: Array(key.utf8))])
        return answers.read(token)
    }

    /// The live row of a key.
    func row(_ key: String) -> StoredRow? {
        if case .found(let row)? = read(key) { return row }
        return nil
    }

    /// The value of a key as text.
    func text(_ key: String) -> String? { row(key).map { String(decoding: $0.value, as: UTF8.self) } }

    /// A figure of the backend.
    func figure(_ name: String) -> Double { backend.statistics().first { $0.name == "rocksdb_" + name }?.value ?? -1 }
}

extension ReadOutcome {
    /// Bytes of the row's value.
    var bytes: Int {
        if case .found(let row) = self { return row.value.count }
        return 0
    }
}

extension WriteOutcome? {
    /// The version that a write got.
    var version: UInt64 {
        switch self {
        case .stored(let row)?: row.version
        case .deleted(let version)?: version
        default: 0
        }
    }

    /// The row that a write left.
    var row: StoredRow? {
        if case .stored(let row)? = self { return row }
        return nil
    }

    /// Why a write failed.
    var failure: StorageFailure? {
        if case .failed(let failure)? = self { return failure }
        return nil
    }
}
