// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Requests that wait until there is room with a server: the oldest goes first as long as none waits long, the newest
/// where a queue stands. A queue that stands is served too late from its front; from its back, what is served is in
/// time, and the front is given up when it is overdue.
///
/// Requests of one sender keep their order. Senders share 64 places by their number. Allocates when it is made.
///
/// Source: Maurer, "Fail at Scale", 2015 (adaptive LIFO).
package struct WaitingRoom: Sendable {
    private static let places = 64
    /// Age of the oldest from which on a queue stands, in nanoseconds.
    private static let standingNanoseconds: UInt64 = 2_000_000

    private struct Entry {
        var item: Int32
        var next: Int32
        var since: UInt64
    }

    private struct Place {
        var first: Int32 = -1
        var last: Int32 = -1
    }

    private let limitNanoseconds: UInt64
    private var entries: [Entry]
    private var places = [Place](repeating: Place(), count: Self.places)
    private var free: Int32
    /// How many wait.
    package private(set) var count = 0

    /// Room for `capacity` requests that wait at most `limitNanoseconds`.
    package init(capacity: Int, limitNanoseconds: UInt64) {
        self.limitNanoseconds = limitNanoseconds
        entries = (0..<capacity).map { Entry(item: -1, next: $0 + 1 < capacity ? Int32($0 + 1) : -1, since: 0) }
        free = capacity > 0 ? 0 : -1
    }

    /// Takes a request in; false when there is no room.
    package mutating func add(_ item: Int, sender: UInt64, now: UInt64) -> Bool {
        guard free >= 0 else { return false }
        let entry = free
        free = entries[Int(entry)].next
        entries[Int(entry)] = Entry(item: Int32(truncatingIfNeeded: item), next: -1, since: now)
        // Numbers of connections differ in their lower bits.
        let place = Int(truncatingIfNeeded: (sender ^ sender >> 32) & UInt64(Self.places - 1))
        if places[place].last >= 0 {
            entries[Int(places[place].last)].next = entry
        } else {
            places[place].first = entry
        }
        places[place].last = entry
        count += 1
        return true
    }

    /// Takes out the request that goes next; nil when none waits.
    package mutating func take(now: UInt64) -> Int? {
        guard count > 0 else { return nil }
        var (oldest, newest) = (-1, -1)
        var (oldestSince, newestSince) = (UInt64.max, UInt64.min)
        for place in 0..<Self.places where places[place].first >= 0 {
            let (first, last) = (entries[Int(places[place].first)].since, entries[Int(places[place].last)].since)
            if oldest < 0 || first < oldestSince { (oldest, oldestSince) = (place, first) }
            if newest < 0 || last >= newestSince { (newest, newestSince) = (place, last) }
        }
        return removeFirst(now &- oldestSince > Self.standingNanoseconds ? newest : oldest)
    }

    /// Takes out a request that waited too long; nil when there is none.
    package mutating func takeOverdue(now: UInt64) -> Int? {
        for place in 0..<Self.places where places[place].first >= 0 {
            if now &- entries[Int(places[place].first)].since >= limitNanoseconds { return removeFirst(place) }
        }
        return nil
    }

    /// When the next one is overdue, in monotonic nanoseconds; .max when none waits.
    package var deadline: UInt64 {
        var earliest = UInt64.max
        for place in 0..<Self.places where places[place].first >= 0 {
            earliest = min(earliest, entries[Int(places[place].first)].since &+ limitNanoseconds)
        }
        return earliest
    }

    /// Names each that waits.
    package func forEach(_ body: (Int) -> Void) {
        for place in 0..<Self.places {
            var entry = places[place].first
            while entry >= 0 {
                body(Int(entries[Int(entry)].item))
                entry = entries[Int(entry)].next
            }
        }
    }

    private mutating func removeFirst(_ place: Int) -> Int {
        let entry = places[place].first
        let (item, next) = (entries[Int(entry)].item, entries[Int(entry)].next)
        places[place].first = next
        if next < 0 { places[place].last = -1 }
        entries[Int(entry)].next = free
        free = entry
        count -= 1
        return Int(item)
    }
}
