// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Storage
import StorageRocksDB

/// SplitMix64: the same numbers everywhere for the same seed. Source: Steele, Lea, Flood (OOPSLA 2014).
struct SplitMix {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}

/// Keeps a number of random writes under way, for ever.
final class Writer: StorageSink {
    private struct State {
        var underWay = 0
        /// The last version of a key that was answered.
        var versions: [String: UInt64] = [:]
        var keys: [UInt64: String] = [:]
    }

    private let backend: RocksDBBackend
    private let state = Guarded(State())
    private let parking = Parking()
    private let seed: UInt64
    private let firstToken: UInt64

    init(_ backend: RocksDBBackend, seed: UInt64, firstToken: UInt64) {
        self.backend = backend
        self.seed = seed
        self.firstToken = firstToken
    }

    func start() {
        do throws(StorageStartError) { try backend.start(self) } catch {
            say("E \(error.description)")
            exitProcess(1)
        }
        say("READY")
    }

    func readsCompleted(_ results: [(token: UInt64, outcome: ReadOutcome)]) {}

    func unknownOutcomesSettled() {}

    func writesCompleted(_ results: [(token: UInt64, outcome: WriteOutcome)]) {
        for (token, outcome) in results {
            var version: UInt64 = 0
            let word: String
            switch outcome {
            case .stored(let row): (word, version) = ("stored", row.version)
            case .deleted(let number): (word, version) = ("deleted", number)
            case .failed(let failure): word = "failed-\(failure.kind)"
            default: word = "\(outcome)"
            }
            say("A \(token) \(word) \(version)")
            state.withLock { state in
                state.underWay -= 1
                if let key = state.keys.removeValue(forKey: token), version > 0 { state.versions[key] = version }
            }
            if case .failed(let failure) = outcome { say("F \(failure.reason)") }
        }
        parking.announce()
    }

    /// Writes until the process is killed, or until the store refuses writes.
    func run() {
        var random = SplitMix(state: seed)
        let depth = 1 + random.below(64)
        var token = firstToken
        while true {
            let ticket = parking.ticket
            let room = depth - state.withLock { $0.underWay }
            if case .readOnly(let reason) = backend.health {
                if state.withLock({ $0.underWay }) == 0 {
                    say("READONLY \(reason)")
                    exitProcess(3)
                }
                parking.wait(ticket, timeoutNanoseconds: 10_000_000)
                continue
            }
            if room <= 0 {
                parking.wait(ticket, timeoutNanoseconds: 1_000_000_000)
                continue
            }
            var writes: [SubmittedWrite] = []
            for _ in 0..<min(room, 1 + random.below(8)) {
                writes.append(SubmittedWrite(token: token, write: make(token, &random)))
                token += 1
            }
            state.withLock { state in
                state.underWay += writes.count
                for write in writes { state.keys[write.token] = String(decoding: write.write.key, as: UTF8.self) }
            }
            backend.write(writes)
        }
    }

    /// A random write, which is said before it is done.
    private func make(_ token: UInt64, _ random: inout SplitMix) -> StorageWrite {
        let isNumber = random.below(5) == 0
        let key = isNumber ? "n\(random.below(10))" : "k\(random.below(150))"
        let operations: [StorageWrite.Operation] =
            isNumber
            ? [.set, .increment, .increment, .increment, .decrement, .delete]
            : [.set, .set, .set, .set, .add, .replace, .append, .prepend, .delete, .delete, .touch]
        var write = StorageWrite(operations[random.below(operations.count)], key: Array(key.utf8))
        var length = -1
        switch write.operation {
        case .increment, .decrement: write.delta = UInt64(random.below(1_000))
        case .delete, .touch: break
        default:
            if isNumber {
                write.value = Array(String(token % 1_000).utf8)
            } else {
                // Mostly small; some over several blocks of the log.
                length = random.below(20) == 0 ? random.below(60_000) : random.below(400)
                if write.operation == .append || write.operation == .prepend { length %= 50 }
                let filler = UInt8(ascii: "a") + UInt8(token % 26)
                write.value = Array("\(token):".utf8) + [UInt8](repeating: filler, count: length)
            }
        }
        write.clientFlags = UInt32(truncatingIfNeeded: token &* 2_654_435_761)
        if random.below(3) > 0 { write.expiryMilliseconds = 4_000_000_000_000 + Int64(token) }
        if write.operation == .set, random.below(4) == 0 {
            write.compare = state.withLock { $0.versions[key] ?? 0 }
        }
        say(
            "S \(token) \(write.operation) \(key) \(length) \(write.expiryMilliseconds) \(write.clientFlags) "
                + "\(write.compare) \(write.delta)")
        return write
    }
}
