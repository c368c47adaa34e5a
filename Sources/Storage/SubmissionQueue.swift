// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Platform

/// What waits for a thread of the backend, since when.
package struct Waiting<Element: Sendable>: Sendable {
    /// What waits.
    package var element: Element
    /// Since when, in monotonic nanoseconds.
    package var sinceNanoseconds: UInt64

    /// Something that waits since then.
    @inlinable @inline(__always)
    package init(element: Element, sinceNanoseconds: UInt64) {
        self.element = element
        self.sinceNanoseconds = sinceNanoseconds
    }
}

/// How many may wait for a backend's threads, by how long they do.
package struct QueuePace<Element: Sendable>: Sendable {
    let configuration: QueueLimit.Configuration
    let since: @Sendable (Element) -> UInt64
    let isReserved: @Sendable (Element) -> Bool

    /// A limit for elements that wait since a moment, in monotonic nanoseconds; those that are `reserved` are let in
    /// beyond it.
    @specialized(where Element == Waiting<SubmittedWrite>, Content == SubmittedWrite)
    @specialized(where Element == Waiting<StorageRead>, Content == StorageRead)
    package init<Content>(
        _ configuration: QueueLimit.Configuration, reserved: @escaping @Sendable (Content) -> Bool = { _ in false }
    ) where Element == Waiting<Content> {
        self.configuration = configuration
        since = { $0.sinceNanoseconds }
        isReserved = { reserved($0.element) }
    }
}

/// What waits for a thread of the backend: bounded, any thread puts in, one or several take out, in order.
///
/// Its users are other modules, whose compiler does not see the code: without the specializations it would look up the
/// type of the elements at each step, which was a quarter of a reactor's work for a write or a miss.
package final class SubmissionQueue<Element: Sendable>: Sendable {
    private struct State {
        /// How many may wait, by how long they do; nil where only the queue's own limits hold.
        var limit: QueueLimit?
        /// What was put in, as it came; the first from `first` on.
        var chunks: [[Element]] = []
        /// Where in `chunks` the rest begins: chunks before it are taken.
        var head = 0
        var first = 0
        var count = 0
        var bytes = 0
        var isClosed = false

        /// Appends the elements where all of them fit. One that is larger than `byteLimit` fits where nothing else has
        /// bytes, and what counts for no bytes is not held against their limit.
        mutating func append(
            _ elements: [Element], bytes: Int, countLimit: Int, byteLimit: Int, pace: QueuePace<Element>?
        ) -> Bool {
            guard !isClosed, elements.count <= countLimit - count else { return false }
            if let pace, let first = elements.first, !elements.allSatisfy(pace.isReserved) {
                // Those that come now began to wait now.
                let now = pace.since(first)
                let oldestWait = count > 0 ? now &- min(pace.since(oldest), now) : 0
                let waiting = count + elements.count - 1
                guard limit?.admits(waiting: waiting, oldestWait: oldestWait, at: now) != false else { return false }
            }
            guard bytes == 0 || bytes <= byteLimit - self.bytes || (elements.count == 1 && self.bytes == 0) else {
                return false
            }
            chunks.append(elements)
            count += elements.count
            self.bytes += bytes
            return true
        }

        /// What has waited longest, where something waits.
        var oldest: Element { chunks[head][first] }
    }

    private let state = Guarded(State())
    private let countLimit: Int
    private let byteLimit: Int
    /// How many bytes an element counts for.
    private let size: @Sendable (Element) -> Int
    private let pace: QueuePace<Element>?
    /// Where takers sleep.
    package let parking = Parking()

    /// An empty queue of at most `countLimit` elements and `byteLimit` bytes, as `size` counts them; and of fewer where
    /// `pace` says so.
    package init(
        countLimit: Int, byteLimit: Int, pace: QueuePace<Element>? = nil, size: @escaping @Sendable (Element) -> Int
    ) {
        self.countLimit = countLimit
        self.pace = pace
        if let pace { state.withLock { $0.limit = QueueLimit(pace.configuration) } }
        self.byteLimit = byteLimit
        self.size = size
    }

    /// Puts in what there is room for, and returns the rest; all of it when the queue is closed. An element that counts
    /// for no bytes is not held against their limit; one that is larger than the limit goes in alone.
    @specialized(where Element == Waiting<SubmittedWrite>)
    @specialized(where Element == Waiting<StorageRead>)
    package func offer(_ elements: [Element]) -> [Element] {
        if elements.isEmpty { return [] }
        if append(elements) {
            parking.announce()
            return []
        }
        let rest = elements.filter { !append([$0]) }
        if rest.count < elements.count { parking.announce() }
        return rest
    }

    private func append(_ elements: [Element]) -> Bool {
        let bytes = elements.reduce(0) { $0 + size($1) }
        return state.withLock {
            $0.append(elements, bytes: bytes, countLimit: countLimit, byteLimit: byteLimit, pace: pace)
        }
    }

    /// Takes what waits, in order: at most `limit` elements, no more once they have `byteLimit` bytes, and none from
    /// the first on that is not wanted. Who wants all kinds is one of those who work on what waits: how long it waited
    /// for him says whether a queue stands.
    @specialized(where Element == Waiting<SubmittedWrite>)
    @specialized(where Element == Waiting<StorageRead>)
    package func take(
        into taken: inout [Element], limit: Int, byteLimit: Int = .max, while isWanted: ((Element) -> Bool)? = nil
    ) {
        let isWorker = pace != nil && isWanted == nil
        let now = isWorker ? Clock.monotonicNanoseconds() : 0
        let before = taken.count
        state.withLock { state in
            var (count, bytes) = (0, 0)
            while state.head < state.chunks.count, count < limit, bytes < byteLimit {
                let element = state.chunks[state.head][state.first]
                if let isWanted, !isWanted(element) { break }
                taken.append(element)
                count += 1
                bytes += size(element)
                state.first += 1
                if state.first == state.chunks[state.head].count {
                    state.chunks[state.head] = []
                    state.head += 1
                    state.first = 0
                }
            }
            state.count -= count
            state.bytes -= bytes
            if isWorker, let pace, count > 0 {
                let waits = (before, taken.count - 1)
                state.limit?.took(
                    count, oldestWait: now &- min(pace.since(taken[waits.0]), now),
                    newestWait: now &- min(pace.since(taken[waits.1]), now), at: now)
            }
            if state.head == state.chunks.count {
                state.chunks.removeAll(keepingCapacity: true)
                state.head = 0
            } else if state.head >= 1024, state.head >= state.chunks.count / 2 {
                // A queue that is never quite empty must not grow for ever.
                state.chunks.removeFirst(state.head)
                state.head = 0
            }
        }
    }

    /// How many wait.
    package var count: Int {
        @specialized(where Element == Waiting<SubmittedWrite>)
        @specialized(where Element == Waiting<StorageRead>)
        get { state.withLock { $0.count } }
    }

    /// How many may wait, and how often that became fewer than the queue holds.
    package var waitingLimit: (count: Int, entries: UInt64) {
        state.withLock { (min($0.limit?.value ?? .max, countLimit), $0.limit?.entries ?? 0) }
    }

    /// Whether nothing goes in any more.
    package var isClosed: Bool {
        @specialized(where Element == Waiting<SubmittedWrite>)
        @specialized(where Element == Waiting<StorageRead>)
        get { state.withLock { $0.isClosed } }
    }

    /// Lets nothing in any more; what waits can be taken still.
    package func close() {
        state.withLock { $0.isClosed = true }
        parking.announce()
    }
}
