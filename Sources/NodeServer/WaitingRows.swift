// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// The rows that wait on one reactor: the store gave them, and their clients do not read what is before them.
///
/// They have a bound in bytes. Where they pass it, those give way who hold the most: rows of theirs are given up, the
/// newest first, until what is left is an eighth below the bound, and the replies in their places are errors. A client
/// that reads has its row at once, and never waits here for long; who holds less than others loses nothing. To close
/// the connections instead would take the replies before them, and to hold reads back would make those wait who read.
struct WaitingRows {
    /// Bytes at most.
    let limitBytes: Int
    private(set) var bytes = 0

    /// A reactor's share of what the node allows.
    init(nodeLimitBytes: Int, reactors: Int) { limitBytes = max(1, nodeLimitBytes / max(1, reactors)) }

    /// Notes that a queue holds more, or less, than before.
    mutating func add(_ change: Int) { bytes += change }

    /// Whether somebody has to give way.
    var isOver: Bool { bytes > limitBytes }

    /// What each may keep, so that those who hold less keep all and the rest an equal part: together seven eighths of
    /// the limit.
    func share(among held: [Int]) -> Int {
        var left = limitBytes - limitBytes / 8
        let sorted = held.sorted()
        for (index, bytes) in sorted.enumerated() {
            let others = sorted.count - index
            if bytes > left / others { return left / others }
            left -= bytes
        }
        return .max
    }
}

/// What is told of a reactor's waiting rows to those who ask from other threads.
final class WaitingRowFigures: Sendable {
    private let current = Atomic<Int>(0)
    private let total = Atomic<UInt64>(0)

    /// Bytes of rows that wait now.
    var bytes: Int { current.load(ordering: .relaxed) }

    /// Rows that were given up.
    var givenUp: UInt64 { total.load(ordering: .relaxed) }

    func set(bytes: Int) { current.store(bytes, ordering: .relaxed) }

    func add(givenUp count: Int) { total.add(UInt64(count), ordering: .relaxed) }
}
