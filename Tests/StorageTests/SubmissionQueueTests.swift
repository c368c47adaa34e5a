// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

/// What finds room among what waits for a backend.
struct SubmissionQueueTests {
    /// A queue of numbers, each of which counts for as many bytes as it says.
    private func queue(count: Int = 100, bytes: Int = 100) -> SubmissionQueue<Int> {
        SubmissionQueue(countLimit: count, byteLimit: bytes) { $0 }
    }

    private func taken(_ queue: SubmissionQueue<Int>, limit: Int = .max, bytes: Int = .max) -> [Int] {
        var all: [Int] = []
        queue.take(into: &all, limit: limit, byteLimit: bytes)
        return all
    }

    @Test func takesWhatFitsAndGivesTheRestBack() {
        let queue = queue(count: 4)
        #expect(queue.offer([10, 20]).isEmpty)
        #expect(queue.offer([30, 50, 40]) == [50])
        #expect(queue.offer([0]) == [0], "four are in")
        #expect(queue.count == 4)
        #expect(taken(queue, limit: 1) == [10])
        #expect(queue.offer([70, 5]) == [70])
        #expect(taken(queue) == [20, 30, 40, 5])
    }

    @Test func nothingIsNothing() {
        let queue = queue()
        #expect(queue.offer([]).isEmpty && taken(queue).isEmpty)
        #expect(queue.offer([7]).isEmpty && queue.offer([]).isEmpty && taken(queue) == [7])
    }

    @Test func oneThatIsLargerThanTheLimitGoesInAlone() {
        let queue = queue()
        #expect(queue.offer([500, 600]) == [600], "an empty queue does not let a batch past its limit")
        #expect(queue.offer([1]) == [1])
        #expect(taken(queue) == [500])
        #expect(queue.offer([60]).isEmpty)
        #expect(queue.offer([500]) == [500])
    }

    @Test func whatCountsForNoBytesIsBoundByTheCountAlone() {
        let queue = queue(count: 5)
        #expect(queue.offer([100]).isEmpty)
        #expect(queue.offer([1, 0, 2, 0]) == [1, 2])
        #expect(queue.offer([0, 0]).isEmpty)
        #expect(queue.offer([0]) == [0])
        #expect(taken(queue) == [100, 0, 0, 0, 0])
        // Nor does it keep one out that is larger than the limit.
        #expect(queue.offer([0, 0]).isEmpty)
        #expect(queue.offer([101]).isEmpty)
    }

    @Test func aClosedQueueTakesNothing() {
        let queue = queue()
        #expect(queue.offer([1]).isEmpty)
        queue.close()
        #expect(queue.offer([2, 0]) == [2, 0])
        #expect(queue.isClosed && taken(queue) == [1])
    }

    @Test func takesNoMoreThanItIsAskedFor() {
        let queue = queue(count: 5000, bytes: .max)
        for number in 1...4000 { #expect(queue.offer([number]).isEmpty) }
        var all: [Int] = []
        while queue.count > 0 {
            all += taken(queue, limit: 7)
            if all.count == 3500 { #expect(queue.offer([4001]).isEmpty) }
        }
        #expect(all == Array(1...4001))
        #expect(queue.offer([40, 40, 40]).isEmpty)
        #expect(taken(queue, bytes: 50) == [40, 40], "with the one that reaches the bytes")
    }
}
