// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Virtual time and what is to happen in it, on one thread: the same seed gives the same run.
final class VirtualWorld: @unchecked Sendable {
    // SAFETY (Sendable): a world and all that is in it stay on the thread that runs it.
    private struct Event {
        var time: UInt64
        var order: UInt64
        var body: () -> Void
    }

    /// The monotonic clock, in microseconds. Unix time runs with it, and may be set forward.
    private(set) var microseconds: UInt64 = 1_000_000
    var random: SimulationRandom
    /// What was injected, by name.
    private(set) var faults: [String: Int] = [:]
    private var heap: [Event] = []
    private var orders: UInt64 = 0
    private var stamps: UInt64 = 0

    /// Unix time of the world's beginning, in milliseconds.
    static let epochMilliseconds: Int64 = 1_700_000_000_000

    init(seed: UInt64) { random = SimulationRandom(seed: seed) }

    /// By how much Unix time was set forward since the world's beginning, in milliseconds.
    private var steppedMilliseconds: Int64 = 0

    var unixMilliseconds: Int64 { Self.epochMilliseconds + steppedMilliseconds + Int64(microseconds / 1000) }

    /// Sets Unix time forward.
    func step(milliseconds: Int) { steppedMilliseconds += Int64(milliseconds) }

    /// When a Unix time is by the monotonic clock, in microseconds, while nobody sets it.
    func microseconds(unixMilliseconds: Int64) -> UInt64 {
        UInt64(max(0, unixMilliseconds - Self.epochMilliseconds - steppedMilliseconds)) * 1000
    }
    var nanoseconds: UInt64 { microseconds * 1000 }
    var faultCount: Int { faults.values.reduce(0, +) }

    func noteFault(_ name: String) { faults[name, default: 0] += 1 }

    /// A number greater than all before it: the order of what clients send and get.
    func stamp() -> UInt64 {
        stamps += 1
        return stamps
    }

    /// Has `body` run at a time; things of one time happen in the order in which they were asked for.
    func at(_ time: UInt64, _ body: @escaping () -> Void) {
        orders += 1
        heap.append(Event(time: max(time, microseconds), order: orders, body: body))
        var child = heap.count - 1
        while child > 0, precedes(child, (child - 1) / 2) {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    func after(_ delay: Int, _ body: @escaping () -> Void) { at(microseconds + UInt64(delay), body) }

    /// Lets the next thing happen; false when there is none.
    func step() -> Bool {
        guard let first = heap.first else { return false }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            sink()
        }
        microseconds = first.time
        first.body()
        return true
    }

    /// Forgets what would happen: it holds whoever asked for it.
    func end() { heap = [] }

    private func sink() {
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && precedes(child, least) {
                least = child
            }
            if least == parent { return }
            heap.swapAt(parent, least)
            parent = least
        }
    }

    private func precedes(_ left: Int, _ right: Int) -> Bool {
        (heap[left].time, heap[left].order) < (heap[right].time, heap[right].order)
    }
}
