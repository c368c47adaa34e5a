// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory
public import Synchronization

/// The names of the counters in a ``CounterSet``: an enumeration whose raw values are 0, 1, 2 and so on.
@usableFromInline
package protocol CounterIndex: CaseIterable, RawRepresentable<Int>, Sendable {}

/// Counters that one thread writes and any thread reads, on cache lines of their own.
///
/// Every reactor has one. Writing is a plain load, add and store, without a locked instruction, which is why only the
/// owning thread may call ``add(_:_:)`` and ``set(_:to:)``. A reader sees each counter whole, and possibly a little
/// late. Nothing allocates after `init`.
@usableFromInline
package struct CounterSet<Index: CounterIndex>: ~Copyable, Sendable {
    @usableFromInline let cells: FixedArray<Atomic<UInt64>>

    /// Creates the counters at 0. Allocates once.
    package init() {
        precondition(
            Index.allCases.map(\.rawValue) == Array(0..<Index.allCases.count), "counter indices count up from 0")
        cells = makeCounterCells(Index.allCases.count)
    }

    /// Adds `amount`, wrapping at 2^64. Only on the owning thread.
    @inlinable @inline(__always)
    package func add(_ index: Index, _ amount: UInt64 = 1) {
        let value = cells[index.rawValue].load(ordering: .relaxed)
        cells[index.rawValue].store(value &+ amount, ordering: .relaxed)
    }

    /// Subtracts `amount`, for counters that are levels, such as connections open. Only on the owning thread.
    @inlinable @inline(__always)
    package func subtract(_ index: Index, _ amount: UInt64 = 1) {
        let value = cells[index.rawValue].load(ordering: .relaxed)
        cells[index.rawValue].store(value &- amount, ordering: .relaxed)
    }

    /// Overwrites a counter. Only on the owning thread.
    @inlinable @inline(__always)
    package func set(_ index: Index, to value: UInt64) {
        cells[index.rawValue].store(value, ordering: .relaxed)
    }

    /// Reads a counter, from any thread.
    @inlinable @inline(__always)
    package func load(_ index: Index) -> UInt64 {
        cells[index.rawValue].load(ordering: .relaxed)
    }
}

/// Makes `count` atomic cells whose last cache line nobody else gets.
func makeCounterCells(_ count: Int) -> FixedArray<Atomic<UInt64>> {
    // FixedArray starts on a 128-byte boundary; whole pairs of lines (the prefetcher fetches pairs) end on one.
    let perPairOfLines = 16
    let padded = (count + perPairOfLines - 1) / perPairOfLines * perPairOfLines
    return FixedArray(count: padded) { _ in Atomic<UInt64>(0) }
}

/// The sums of several threads' ``CounterSet``s at one moment, for statistics.
package struct CounterTotals<Index: CounterIndex>: Sendable, Equatable {
    /// One sum per index, by raw value.
    package private(set) var values: [UInt64]

    /// Sums of nothing: all 0.
    package init() {
        values = Array(repeating: 0, count: Index.allCases.count)
    }

    /// The sum of `index`.
    package subscript(index: Index) -> UInt64 { values[index.rawValue] }

    /// Adds what `counters` shows now.
    package mutating func add(_ counters: borrowing CounterSet<Index>) {
        for index in Index.allCases { values[index.rawValue] &+= counters.load(index) }
    }

    /// What was counted since `baseline` was taken. This is how statistics are reset: counters themselves never go
    /// back, because only their threads write them.
    package func since(_ baseline: CounterTotals) -> CounterTotals {
        var result = self
        for index in values.indices { result.values[index] &-= baseline.values[index] }
        return result
    }
}
