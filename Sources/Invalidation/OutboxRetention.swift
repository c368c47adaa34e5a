// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// How far an outbox may be trimmed: to what every consumer that was seen lately has acknowledged. Its age and its size
/// bound it besides, where it is kept. Pure.
package struct OutboxRetention: Sendable {
    private struct Consumer {
        var sequences: [Int64]
        var seenNanoseconds: UInt64
    }

    /// For how long a consumer that is gone still counts, in nanoseconds.
    private let memoryNanoseconds: UInt64
    /// Consumers that are remembered at most.
    private let consumersMax: Int
    private var consumers: [String: Consumer] = [:]
    /// Until then, consumers of an earlier process may come back.
    private let startsNanoseconds: UInt64

    /// Remembers consumers for `memoryNanoseconds`; nothing is let go before as much time has passed since `now`, as
    /// consumers of an earlier process may come back.
    package init(memoryNanoseconds: UInt64, consumersMax: Int = 4096, now: UInt64) {
        self.memoryNanoseconds = memoryNanoseconds
        self.consumersMax = consumersMax
        startsNanoseconds = now &+ memoryNanoseconds
    }

    /// A consumer has everything up to `sequences`.
    package mutating func note(_ name: String, sequences: [Int64], at now: UInt64) {
        guard consumers[name] != nil || consumers.count < consumersMax else { return }
        consumers[name] = Consumer(sequences: sequences, seenNanoseconds: now)
    }

    /// By slot, the last number that no consumer needs any more.
    package mutating func released(at now: UInt64) -> [Int64] {
        let oldest = now > memoryNanoseconds ? now - memoryNanoseconds : 0
        consumers = consumers.filter { $0.value.seenNanoseconds >= oldest }
        guard now >= startsNanoseconds, !consumers.isEmpty else {
            return [Int64](repeating: 0, count: StreamSlots.count)
        }
        return (0..<StreamSlots.count).map { slot in consumers.values.map { $0.sequences[slot] }.min() ?? 0 }
    }

    /// Consumers that count now.
    package var count: Int { consumers.count }
}
