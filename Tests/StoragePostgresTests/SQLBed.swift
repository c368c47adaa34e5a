// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Platform
import Storage
import StoragePostgres

/// Keeps what a backend answers, by token.
final class Answers: StorageSink {
    private struct State {
        var reads: [UInt64: ReadOutcome] = [:]
        var writes: [UInt64: WriteOutcome] = [:]
        var order: [UInt64] = []
        var repeated = 0
        /// Bytes of the rows that were answered at once, each time.
        var deliveries: [Int] = []
        var settled = 0
        var replaced = 0
    }

    private let state = Guarded(State())
    private let parking = Parking()

    func readsCompleted(_ results: [(token: UInt64, outcome: ReadOutcome)]) {
        state.withLock { state in
            state.deliveries.append(results.reduce(0) { $0 + $1.outcome.bytes })
            for (token, outcome) in results {
                if state.reads.updateValue(outcome, forKey: token) != nil { state.repeated += 1 }
            }
        }
        parking.announce()
    }

    func writesCompleted(_ results: [(token: UInt64, outcome: WriteOutcome)]) {
        state.withLock { state in
            for (token, outcome) in results {
                if state.writes.updateValue(outcome, forKey: token) != nil { state.repeated += 1 }
                state.order.append(token)
            }
        }
        parking.announce()
    }

    func unknownOutcomesSettled() {
        state.withLock { $0.settled += 1 }
        parking.announce()
    }

    func rowsReplaced() { state.withLock { $0.replaced += 1 } }

    var replaced: Int { state.withLock { $0.replaced } }
    var repeated: Int { state.withLock { $0.repeated } }
    var deliveries: [Int] { state.withLock { $0.deliveries } }
    var order: [UInt64] { state.withLock { $0.order } }

    func read(_ token: UInt64) -> ReadOutcome? { wait { $0.reads[token] } }
    func write(_ token: UInt64) -> WriteOutcome? { wait { $0.writes[token] } }

    /// Waits until unknown outcomes were settled once; false when that does not happen.
    func awaitSettled() -> Bool { wait { $0.settled > 0 ? true : nil } ?? false }

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
    private let milliseconds = Guarded<Int64>(1_800_000_000_000)
    var now: Int64 {
        get { milliseconds.withLock { $0 } }
        set { milliseconds.withLock { $0 = newValue } }
    }

    /// Two hours behind the database's clock, by which no row is deleted that is alive.
    func fallBehind() { now = Int64(Date().timeIntervalSince1970 * 1_000) - 7_200_000 }
}

/// A server with a backend, and calls that wait for their answers.
final class SQLBed {
    let server: TestServer
    var configuration: PostgresConfiguration
    let clock = TestClock()
    private(set) var answers = Answers()
    private(set) var backend: PostgresBackend
    private var token: UInt64 = 0

    init(_ change: (inout PostgresConfiguration) -> Void = { _ in }) throws {
        server = try TestServer()
        configuration = PostgresConfiguration(url: server.url)
        let clock = self.clock
        configuration.now = { clock.now }
        configuration.statementTimeoutMilliseconds = 2_000
        change(&configuration)
        try PostgresBackend.createTables(configuration)
        backend = PostgresBackend(configuration)
        try backend.start(answers)
        awaitHealth(.ready)
    }

    deinit { backend.stop() }

    func restart() throws {
        backend.stop()
        answers = Answers()
        backend = PostgresBackend(configuration)
        try backend.start(answers)
        awaitHealth(.ready)
    }

    /// Waits until the backend says so; false when it does not.
    @discardableResult
    func awaitHealth(_ wanted: StorageHealth) -> Bool {
        for _ in 0..<400 {
            if backend.health == wanted { return true }
            usleep(25_000)
        }
        return false
    }

    /// Waits until the backend knows that nothing works; false when it does not.
    func awaitDown() -> Bool {
        for _ in 0..<400 {
            if case .unavailable = backend.health { return true }
            usleep(25_000)
        }
        return false
    }

    func nextToken() -> UInt64 {
        token += 1
        return token
    }

    @discardableResult
    func write(
        _ operation: StorageWrite.Operation, _ key: String, _ value: String = "",
        _ change: (inout StorageWrite) -> Void = { _ in }
    ) -> WriteOutcome? {
        let token = nextToken()
        backend.write([SubmittedWrite(token: token, write: SQLBed.make(operation, key, value, change))])
        return answers.write(token)
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

    func read(_ key: String) -> ReadOutcome? {
        let token = nextToken()
        backend.read([StorageRead(token: token, key: Array(key.utf8))])
        return answers.read(token)
    }

    func row(_ key: String) -> StoredRow? {
        if case .found(let row)? = read(key) { return row }
        return nil
    }

    func text(_ key: String) -> String? { row(key).map { String(decoding: $0.value, as: UTF8.self) } }

    func figure(_ name: String) -> Double { backend.statistics().first { $0.name == "postgres_" + name }?.value ?? -1 }
}

extension ReadOutcome {
    /// Bytes of the row's value.
    var bytes: Int {
        if case .found(let row) = self { return row.value.count }
        return 0
    }
}

extension WriteOutcome? {
    var version: UInt64 {
        switch self {
        case .stored(let row)?: row.version
        case .deleted(let version)?: version
        default: 0
        }
    }

    var row: StoredRow? {
        if case .stored(let row)? = self { return row }
        return nil
    }

    var failure: StorageFailure? {
        if case .failed(let failure)? = self { return failure }
        return nil
    }
}
