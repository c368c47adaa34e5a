// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A time that a machine waits for.
struct RouteTimer {
    let due: UInt64
    let routed: Int
    let generation: Int
    let token: Int
}

/// Times, of which the earliest is at hand: a binary heap. Adding and taking cost the logarithm of how many there are.
struct TimerHeap {
    private var items: [RouteTimer] = []

    var isEmpty: Bool { items.isEmpty }
    var count: Int { items.count }

    /// When the earliest is due.
    var next: UInt64? { items.first?.due }

    mutating func add(_ timer: RouteTimer) {
        items.append(timer)
        var index = items.count - 1
        while index > 0 {
            let parent = (index - 1) / 2
            guard items[index].due < items[parent].due else { return }
            items.swapAt(index, parent)
            index = parent
        }
    }

    /// Takes the earliest, if it is due.
    mutating func take(due time: UInt64) -> RouteTimer? {
        guard let first = items.first, first.due <= time else { return nil }
        let last = items.removeLast()
        guard !items.isEmpty else { return first }
        items[0] = last
        var index = 0
        while true {
            let left = 2 * index + 1
            guard left < items.count else { return first }
            let right = left + 1
            let least = right < items.count && items[right].due < items[left].due ? right : left
            guard items[least].due < items[index].due else { return first }
            items.swapAt(index, least)
            index = least
        }
    }
}
