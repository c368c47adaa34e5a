// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Synchronization

/// What is left of a rate that several threads take from. Without a lock, and without allocation: one atomic number.
package final class RateMeter: Sendable {
    /// What it lets through.
    package let rate: CellRate
    /// When the next unit is due; see ``CellRate``. Alone on its cache lines, since every thread writes it.
    private let due: FixedArray<Atomic<UInt64>>

    /// A meter that nothing was taken from, or that what was taken from `before` is owed to, where there was one.
    package init(_ rate: CellRate, before: RateMeter? = nil, now: UInt64 = 0) {
        self.rate = rate
        let first = before.map { rate.due(owing: $0.moment, of: $0.rate, at: now) } ?? 0
        due = FixedArray(count: 16) { _ in Atomic(first) }
    }

    private var moment: UInt64 { due[0].load(ordering: .relaxed) }

    /// Takes up to `count` units at `now`, in monotonic nanoseconds. Returns how many there were. Who comes `ahead` may
    /// take so many seconds' units beyond the burst.
    package func take(upTo count: Int, at now: UInt64, ahead: UInt64 = 0) -> Int {
        var seen = moment
        while true {
            let (granted, next) = rate.take(upTo: count, due: seen, at: now, ahead: ahead)
            guard granted > 0 else { return 0 }
            let (isDone, current) = due[0].weakCompareExchange(expected: seen, desired: next, ordering: .relaxed)
            if isDone { return granted }
            seen = current
        }
    }

    /// How many units there are at `now`; 0 while what was charged is owed.
    package func available(at now: UInt64, ahead: UInt64 = 0) -> Int {
        rate.available(due: moment, at: now, ahead: ahead)
    }

    /// Takes units whether they are there or not.
    package func charge(_ count: Int, at now: UInt64) { update { rate.charge(count, due: $0, at: now) } }

    /// Gives back units that were taken and not used.
    package func giveBack(_ count: Int) { update { rate.giveBack(count, due: $0) } }

    private func update(_ change: (UInt64) -> UInt64) {
        var seen = moment
        while true {
            let (isDone, current) = due[0].weakCompareExchange(
                expected: seen, desired: change(seen), ordering: .relaxed)
            if isDone { return }
            seen = current
        }
    }
}
