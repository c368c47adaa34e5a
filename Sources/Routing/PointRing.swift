// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Points on a circle, in order, each with its owner, in flat arrays.
///
/// The first bits of a position say where in the array to look, so that with points spread evenly a place or two is
/// left to compare; the rest of a beginning that many points share is halved. A position belongs to the first point at
/// or after it, and after the last point to the first one.
struct PointRing<Position: FixedWidthInteger & UnsignedInteger & Sendable>: Sendable {
    /// The points' positions, and a few of the highest behind them that are no points.
    private let positions: [Position]
    private let owners: [UInt32]
    /// For each beginning, where its points start; one more at the end.
    private let starts: [UInt32]
    /// What a position is moved by to leave its beginning.
    private let shift: Position

    /// Places that are compared without a branch.
    private static var window: Int { 4 }

    /// A point: where it is and whose.
    struct Point {
        let position: Position
        let owner: Int
    }

    /// A ring of `points`. Where several stand at one position, the first in the list is found.
    init(_ points: [Point]) {
        var entries: [(position: Position, order: UInt32, owner: UInt32)] = []
        entries.reserveCapacity(points.count)
        for point in points { entries.append((point.position, UInt32(entries.count), UInt32(point.owner))) }
        entries.sort { $0.position != $1.position ? $0.position < $1.position : $0.order < $1.order }
        let bits = min(max(1, Int.bitWidth - points.count.leadingZeroBitCount), 31)
        let shift = Position(Position.bitWidth - bits)
        var starts = [UInt32](repeating: 0, count: (1 << bits) + 1)
        for entry in entries { starts[Int(entry.position >> shift) + 1] += 1 }
        for index in 1..<starts.count { starts[index] += starts[index - 1] }
        positions = entries.map(\.position) + Array(repeating: .max, count: Self.window)
        owners = entries.map(\.owner)
        self.starts = starts
        self.shift = shift
    }

    /// How many points there are.
    var count: Int { owners.count }

    /// The index of the first point at or after `position`; `count` when there is none. Does not allocate.
    @inline(__always)
    private func place(atOrAfter position: Position) -> Int {
        let beginning = Int(truncatingIfNeeded: position &>> shift)
        var low = Int(truncatingIfNeeded: starts[beginning])
        var below = 0
        for offset in 0..<Self.window { below &+= positions[low &+ offset] < position ? 1 : 0 }
        low &+= below
        guard below == Self.window else { return low }
        var length = Int(truncatingIfNeeded: starts[beginning &+ 1]) &- low
        while length > 0 {
            let half = length &>> 1
            if positions[low &+ half] < position {
                low &+= half &+ 1
                length &-= half &+ 1
            } else {
                length = half
            }
        }
        return low
    }

    /// The index of the point that `position` belongs to. Does not allocate.
    @inline(__always)
    func index(of position: Position) -> Int {
        let found = place(atOrAfter: position)
        return found == owners.count ? 0 : found
    }

    /// How far it is from `position` to the point that it belongs to.
    @inline(__always)
    func distance(from position: Position, to index: Int) -> Position { positions[index] &- position }

    /// Whose a point is.
    @inline(__always)
    func owner(_ index: Int) -> Int { Int(truncatingIfNeeded: owners[index]) }

    /// The owner of the first point at or after `position` plus `step`.
    @inline(__always)
    func owner(of position: Position, step: Position) -> Int {
        let (sum, isPast) = position.addingReportingOverflow(step)
        return owner(isPast ? 0 : index(of: sum))
    }

    /// The circle's part in front of a point.
    func arc(_ index: Int) -> Double {
        guard count > 1 else { return 1 }
        let before = positions[index == 0 ? count - 1 : index - 1]
        return Double(positions[index] &- before) / (Double(Position.max) + 1)
    }

    /// The circle's part that each of `count` owners has: exact, because it is the sum of its arcs.
    func shares(count: Int) -> [Double] {
        var shares = [Double](repeating: 0, count: count)
        for index in owners.indices { shares[owner(index)] += arc(index) }
        return shares
    }
}
