// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Storage
import Testing

/// Answers, by their tokens.
private final class SinkAnswers: StorageSink {
    struct State {
        var reads: [UInt64: ReadOutcome] = [:]
        var writes: [UInt64: WriteOutcome] = [:]
        var settled = 0
    }

    let state = Guarded(State())

    func readsCompleted(_ results: [(token: UInt64, outcome: ReadOutcome)]) {
        state.withLock { for (token, outcome) in results { $0.reads[token] = outcome } }
    }

    func writesCompleted(_ results: [(token: UInt64, outcome: WriteOutcome)]) {
        state.withLock { for (token, outcome) in results { $0.writes[token] = outcome } }
    }

    func unknownOutcomesSettled() { state.withLock { $0.settled += 1 } }
}

/// The store of a node whose region may become home.
struct SwitchedBackendTests {
    private static func write(_ token: UInt64, _ value: String) -> SubmittedWrite {
        var write = StorageWrite(.set, key: Array("k".utf8))
        write.value = Array(value.utf8)
        return SubmittedWrite(token: token, write: write)
    }

    private static func value(_ outcome: ReadOutcome?) -> String? {
        guard case .found(let row) = outcome else { return nil }
        return String(decoding: row.value, as: UTF8.self)
    }

    private static func make(_ choice: SwitchedBackend.Choice) -> (any StorageBackend)? {
        choice == .home("gone") ? nil : MemoryBackend(execution: .inline)
    }

    @Test func readsAndWritesGoWhereTheHomeIs() throws {
        let (answers, made) = (SinkAnswers(), Guarded<[SwitchedBackend.Choice]>([]))
        let store = SwitchedBackend(database: nil, .home("us-east")) { choice in
            made.withLock { $0.append(choice) }
            return Self.make(choice)
        }
        try store.start(answers)
        store.write([Self.write(1, "there")])
        store.read([StorageRead(token: 2, key: Array("k".utf8))])
        #expect(Self.value(answers.state.withLock { $0.reads[2] }) == "there")
        try store.choose(.own)
        store.read([StorageRead(token: 3, key: Array("k".utf8))])
        #expect(answers.state.withLock { $0.reads[3] } == .absent, "it is another store")
        #expect(answers.state.withLock { $0.settled } == 1, "what the first one left open is over")
        try store.choose(.own)
        #expect(made.withLock { $0 } == [.home("us-east"), .own], "what is chosen is not opened again")
        store.stop()
        store.write([Self.write(4, "late")])
        guard case .failed(let failure) = answers.state.withLock({ $0.writes[4] }) else {
            return #expect(Bool(false), "a stopped store answers")
        }
        #expect(failure.kind == .notSent && failure.reason == "the store is stopped")
    }

    @Test func beforeTheStartTheChoiceIsFree() throws {
        let store = SwitchedBackend(database: nil, .home("gone"), make: Self.make)
        try store.choose(.own)
        #expect(store.chosen.choice == .own && !store.chosen.isOpen)
        try store.start(SinkAnswers())
        #expect(store.chosen.isOpen && store.health == .ready)
        store.stop()
    }

    @Test func whereTheHomeCannotBeReachedEverythingIsRefusedWithNothingDone() throws {
        let answers = SinkAnswers()
        let store = SwitchedBackend(database: nil, .own, make: Self.make)
        try store.start(answers)
        #expect(throws: StorageStartError.self) { try store.choose(.home("gone")) }
        store.write([Self.write(1, "v")])
        store.read([StorageRead(token: 2, key: Array("k".utf8))])
        let reason = "this region is not home any more, and cannot reach the one that is"
        guard case .failed(let write) = answers.state.withLock({ $0.writes[1] }),
            case .failed(let read) = answers.state.withLock({ $0.reads[2] })
        else { return #expect(Bool(false), "both are refused") }
        #expect(write == StorageFailure(.notSent, reason) && read == StorageFailure(.notSent, reason))
        #expect(store.health == .unavailable(reason))
        // And it may be chosen again.
        try store.choose(.own)
        #expect(store.health == .ready)
        store.stop()
    }
}
