// Martlet
// SPDX-License-Identifier: Apache-2.0

/// So many units a second, and so many at once. Pure: time is given.
///
/// All that is to be remembered is one moment: when the next unit would be due if units had come evenly. One that comes
/// before it is ahead of its time, and may be by as much as the burst is.
///
/// Source: ITU-T I.371, the generic cell rate algorithm in its form of virtual scheduling.
package struct CellRate: Sendable, Equatable {
    /// Units a second, from 1 on.
    package let rate: UInt64
    /// Units at once, from 1 on.
    package let burst: UInt64
    /// Moments count in parts of a nanosecond, since a unit of a high rate takes less than one.
    private static let ticksPerNanosecond: UInt64 = 64
    private static let ticksPerSecond = ticksPerNanosecond * 1_000_000_000
    /// What was had on credit is owed for no longer than this.
    private static let owedTicksMax = 3600 * ticksPerSecond
    /// A burst is no longer than this, which is half a year's units.
    private static let toleranceTicksMax = Double(1 << 60)
    private let ticksPerUnit: Double
    private let toleranceTicks: UInt64

    /// `rate` units a second, and up to `burst` at once.
    package init(rate: UInt64, burst: UInt64) {
        precondition(rate > 0 && burst > 0, "a rate without units")
        self.rate = rate
        self.burst = burst
        ticksPerUnit = Double(Self.ticksPerSecond) / Double(rate)
        toleranceTicks = UInt64(min(Double(burst - 1) * ticksPerUnit, Self.toleranceTicksMax))
    }

    /// How many of `count` units may be had at `now`, in monotonic nanoseconds, and the moment to remember after that.
    /// Who comes `ahead` may be so many seconds' units beyond the burst.
    func take(upTo count: Int, due: UInt64, at now: UInt64, ahead: UInt64 = 0) -> (count: Int, due: UInt64) {
        let time = now &* Self.ticksPerNanosecond
        let granted = min(count, available(due: due, at: now, ahead: ahead))
        guard granted > 0 else { return (0, due) }
        return (granted, max(due, time) &+ ticks(granted))
    }

    /// How many units may be had at `now`.
    func available(due: UInt64, at now: UInt64, ahead: UInt64 = 0) -> Int {
        let time = now &* Self.ticksPerNanosecond
        let latest = time &+ toleranceTicks &+ ahead &* Self.ticksPerSecond
        let next = max(due, time)
        guard next <= latest else { return 0 }
        // A hundredth: what the rounding of ticks took away.
        return Int(Double(latest - next) / ticksPerUnit + 0.01) + 1
    }

    /// The moment after units that were had in any case, on credit if need be.
    func charge(_ count: Int, due: UInt64, at now: UInt64) -> UInt64 {
        let time = now &* Self.ticksPerNanosecond
        return min(max(due, time) &+ ticks(count), time &+ toleranceTicks &+ Self.owedTicksMax)
    }

    /// The moment after units that were taken and not used.
    func giveBack(_ count: Int, due: UInt64) -> UInt64 { due &- min(ticks(count), due) }

    /// The moment of another rate at which the same units are owed.
    func due(owing due: UInt64, of other: CellRate, at now: UInt64) -> UInt64 {
        let time = now &* Self.ticksPerNanosecond
        guard due > time else { return 0 }
        let owed = Double(due - time) / other.ticksPerUnit * ticksPerUnit
        return time &+ UInt64(min(owed, Double(Self.owedTicksMax)))
    }

    private func ticks(_ count: Int) -> UInt64 {
        UInt64(min((Double(count) * ticksPerUnit).rounded(), Double(Self.owedTicksMax)))
    }
}
