// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RouterProxy

@Suite struct TimerHeapTests {
    @Test func givesTimersInTheOrderOfTheirTimes() {
        var random = SystemRandomNumberGenerator()
        var heap = TimerHeap()
        var waiting: [UInt64] = []
        var taken: [UInt64] = []
        for now in stride(from: UInt64(0), to: 5_000, by: 10) {
            for _ in 0..<Int.random(in: 0...5, using: &random) {
                let due = now + UInt64.random(in: 0...300, using: &random)
                heap.add(RouteTimer(due: due, routed: 0, generation: 0, token: waiting.count))
                waiting.append(due)
            }
            while let timer = heap.take(due: now) {
                #expect(timer.due <= now && waiting[timer.token] == timer.due)
                taken.append(timer.due)
            }
            if let next = heap.next { #expect(next > now) }
        }
        while let timer = heap.take(due: .max) { taken.append(timer.due) }
        #expect(taken.count == waiting.count && taken.sorted() == waiting.sorted())
        #expect(heap.isEmpty && heap.next == nil)
    }

    @Test func takesNothingBeforeItsTime() {
        var heap = TimerHeap()
        for due in [30, 10, 20] as [UInt64] { heap.add(RouteTimer(due: due, routed: 0, generation: 0, token: 0)) }
        #expect(heap.take(due: 9) == nil && heap.next == 10 && heap.count == 3)
        #expect(heap.take(due: 25)?.due == 10 && heap.take(due: 25)?.due == 20 && heap.take(due: 25) == nil)
    }
}
