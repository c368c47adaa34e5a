// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which keys one reactor is asked for most just now, by their hashes: those of a sample's reads of the last second or
/// so. A stream summary as ``SpaceSaving``, begun anew each second. Notes allocate nothing.
struct RecentReads: Sendable {
    private struct Place {
        var hash: UInt64
        var count: UInt32
        /// By how much `count` may be too high.
        var error: UInt32
    }

    private static var places: Int { 64 }
    private static var periodNanoseconds: UInt64 { 1_000_000_000 }

    private var current: [Place] = []
    private var last: [Place] = []
    private var began: UInt64 = 0
    /// How long what `last` counts took.
    private var lastNanoseconds: UInt64 = 1

    init() {
        current.reserveCapacity(Self.places)
        last.reserveCapacity(Self.places)
    }

    mutating func note(_ hash: UInt64, now: UInt64) {
        turn(now)
        var least = 0
        for index in current.indices {
            if current[index].hash == hash {
                current[index].count &+= 1
                return
            }
            if current[index].count < current[least].count { least = index }
        }
        guard current.count == Self.places else { return current.append(Place(hash: hash, count: 1, error: 0)) }
        let count = current[least].count
        current[least] = Place(hash: hash, count: count &+ 1, error: count)
    }

    private mutating func turn(_ now: UInt64) {
        // Another thread may have looked at the clock later, and turned already.
        guard now > began, now - began >= Self.periodNanoseconds else { return }
        let elapsed = now - began
        swap(&current, &last)
        current.removeAll(keepingCapacity: true)
        // What was before a pause says nothing of now.
        if elapsed >= 2 * Self.periodNanoseconds { last.removeAll(keepingCapacity: true) }
        (began, lastNanoseconds) = (now, elapsed)
    }

    /// Reads of the sample a second, at least, by hash.
    mutating func rates(now: UInt64) -> [(hash: UInt64, perSecond: Double)] {
        turn(now)
        return last.map { ($0.hash, Double($0.count - $0.error) * 1e9 / Double(lastNanoseconds)) }
    }
}
