// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization

/// Tokens of reads and writes that found no room in a backend's queues, until one of its threads answers them. Safe to
/// use from any thread.
package final class RefusedTokens: Sendable {
    private let tokens = Guarded<(reads: [UInt64], writes: [UInt64])>(([], []))
    private let hasSome = Atomic<Bool>(false)

    /// None so far.
    package init() {}

    /// Remembers tokens.
    package func add(reads: [UInt64], writes: [UInt64]) {
        tokens.withLock {
            $0.reads += reads
            $0.writes += writes
        }
        hasSome.store(true, ordering: .releasing)
    }

    /// Says of all tokens so far that nothing was done, and forgets them. A load where there are none.
    package func answer(_ sink: (any StorageSink)?) {
        guard hasSome.load(ordering: .acquiring), hasSome.exchange(false, ordering: .acquiring) else { return }
        let (reads, writes) = tokens.exchange(([], []))
        let failure = StorageFailure(.notSent, "too many wait for storage")
        if !reads.isEmpty { sink?.readsCompleted(reads.map { ($0, .failed(failure)) }) }
        if !writes.isEmpty { sink?.writesCompleted(writes.map { ($0, .failed(failure)) }) }
    }
}
