// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Synchronization

/// Counters that any thread adds to and reads, with names: for what several threads do, and not so often that each
/// needs a ``CounterSet`` of its own. Safe to use from any thread.
///
/// Adding costs a locked instruction. Nothing allocates after `init`.
package final class SharedCounterSet<Index: CounterIndex>: Sendable {
    private let cells: FixedArray<Atomic<UInt64>>

    /// Creates the counters at 0. Allocates.
    package init() {
        precondition(
            Index.allCases.map(\.rawValue) == Array(0..<Index.allCases.count), "counter indices count up from 0")
        cells = makeCounterCells(Index.allCases.count)
    }

    /// Adds `amount`, wrapping at 2^64.
    package func add(_ index: Index, _ amount: UInt64 = 1) {
        cells[index.rawValue].add(amount, ordering: .relaxed)
    }

    /// What was counted so far.
    package subscript(index: Index) -> UInt64 { cells[index.rawValue].load(ordering: .relaxed) }

    /// All of them in their order, each with the name of its case. Allocates.
    package var listed: [(name: String, count: UInt64)] { Index.allCases.map { ("\($0)", self[$0]) } }
}
