// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The time that the pure core is told.
package struct StorageTime: Sendable, Equatable {
    /// For limits: any clock that never steps, in nanoseconds.
    package var monotonicNanoseconds: UInt64
    /// For expiry: Unix time in milliseconds.
    package var unixMilliseconds: Int64

    /// A reading of both clocks.
    package init(monotonicNanoseconds: UInt64, unixMilliseconds: Int64) {
        self.monotonicNanoseconds = monotonicNanoseconds
        self.unixMilliseconds = unixMilliseconds
    }
}

/// What is to be done with the cache, under the stripe's lock, in order.
package enum CacheStep: Sendable, Equatable {
    case install(StoredRow, key: [UInt8], hash: UInt64, pool: Int)
    case installAbsent(key: [UInt8], hash: UInt64, pool: Int)
    case drop(key: [UInt8], hash: UInt64)
    /// Forgets what the cache says of the row, and not that somebody was told to bring one.
    case forgetRow(key: [UInt8], hash: UInt64)
    /// Forgets a copy that is older than a version that somebody is about to be shown.
    case dropOlder(than: UInt64, key: [UInt8], hash: UInt64)
}

/// What a step of the state machine asks its shell to do: cache steps under the stripe's lock, then what is to be sent
/// in the order given, then the answers, outside of all locks. Empty lists take no memory.
package struct StorageActions: Sendable {
    /// For the cache, in this order.
    package var cacheSteps: [CacheStep] = []
    /// To be sent to storage behind the writes.
    package var reads: [StorageRead] = []
    /// To be sent to storage, in this order.
    package var writes: [SubmittedWrite] = []
    /// For the waiters, by receiver.
    package var answers: [(receiver: UInt32, answer: StorageAnswer)] = []

    /// Nothing to do.
    package init() {}

    mutating func answer(_ waiter: StorageWaiter, _ outcome: ReadOutcome) {
        answers.append((waiter.receiver, .read(token: waiter.token, outcome)))
    }

    mutating func answer(_ waiter: StorageWaiter, _ outcome: WriteOutcome) {
        answers.append((waiter.receiver, .write(token: waiter.token, outcome)))
    }
}
