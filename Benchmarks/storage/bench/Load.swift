// Martlet
// SPDX-License-Identifier: Apache-2.0

import CStorageBench
import Platform
import Storage
import StorageRocksDB

/// Keeps a number of operations under way, as a reactor with as many connections does: what is answered is asked again.
final class Load: StorageSink {
    private let answered = Guarded<[UInt64]>([])
    private let failures = Guarded<[String]>([])
    private let parking = Parking()

    func readsCompleted(_ results: [(token: UInt64, outcome: ReadOutcome)]) {
        for (_, outcome) in results {
            if case .found = outcome { continue }
            failures.withLock { $0.append("\(outcome)") }
        }
        answered.withLock { for (token, _) in results { $0.append(token) } }
        parking.announce()
    }

    func writesCompleted(_ results: [(token: UInt64, outcome: WriteOutcome)]) {
        for (_, outcome) in results {
            if case .stored = outcome { continue }
            failures.withLock { $0.append("\(outcome)") }
        }
        answered.withLock { for (token, _) in results { $0.append(token) } }
        parking.announce()
    }

    func unknownOutcomesSettled() {}

    /// Runs `count` operations, `depth` at a time; nanoseconds. `submit` gets the tokens to ask for.
    func run(count: Int, depth: Int, _ submit: ([UInt64]) -> Void) -> UInt64 {
        let began = Clock.monotonicNanoseconds()
        var next = UInt64(min(depth, count))
        submit(Array(0..<next))
        var done = 0
        var tokens: [UInt64] = []
        while done < count {
            let ticket = parking.ticket
            tokens.removeAll(keepingCapacity: true)
            answered.withLock { swap(&$0, &tokens) }
            if tokens.isEmpty {
                parking.wait(ticket, timeoutNanoseconds: 1_000_000_000)
                continue
            }
            done += tokens.count
            let more = min(tokens.count, count - Int(next))
            if more > 0 {
                submit(Array(next..<next + UInt64(more)))
                next += UInt64(more)
            }
        }
        let failed = failures.withLock { $0 }
        precondition(failed.isEmpty, "\(failed.count) failed: \(failed.first ?? "")")
        return Clock.monotonicNanoseconds() - began
    }
}

/// The key that stands for a number, the same as the bare loop's.
func benchKey(_ number: UInt64) -> [UInt8] {
    var key = [UInt8](repeating: 0, count: bare_key_bytes)
    // SAFETY: the array has the bytes that the function writes.
    unsafe key.withUnsafeMutableBytes { bytes in
        unsafe bare_key(number, bytes.baseAddress?.assumingMemoryBound(to: CChar.self))
    }
    return key
}
