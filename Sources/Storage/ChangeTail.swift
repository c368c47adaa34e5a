// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// The newest records of an outbox, kept in memory for those who follow closely. Safe to use from any thread.
///
/// A reader keeps its place, a number that counts every record that ever came, and is told when what it has not read is
/// not here any more. All that is here is of one numbering: another one begins with an empty tail.
package final class ChangeTail: Sendable {
    /// One record.
    package struct Entry: Sendable {
        /// Its slot.
        package var slot: Int
        /// Its last sequence number.
        package var sequence: Int64
        /// It as an Avro single object.
        package var bytes: [UInt8]

        /// A record with its place in the stream.
        package init(slot: Int, sequence: Int64, bytes: [UInt8]) {
            self.slot = slot
            self.sequence = sequence
            self.bytes = bytes
        }
    }

    private struct State {
        /// What came together, oldest first, each with the place of its first record.
        var batches: [(place: UInt64, entries: [Entry], bytes: Int)] = []
        var head = 0
        var bytes = 0
        /// The place of the next record.
        var end: UInt64 = 0
        /// Oldest first, places that are `markRecords` apart or more, with the last number of each slot before them.
        /// One may be before what is still here.
        var marks: [(place: UInt64, last: [Int64])] = []
        var firstMark = 0
        /// The numbering, and by slot the number that what is here follows; nil before one began.
        var base: StreamPosition?
        /// By slot, the last number that came.
        var last = [Int64](repeating: 0, count: StreamSlots.count)
        var wake: (@Sendable () -> Void)?

        /// Counts a record that came, behind a mark where the last one is far away.
        mutating func take(_ entry: Entry) {
            if end >= (marks.last?.place ?? batches[head].place) + UInt64(ChangeTail.markRecords) {
                marks.append((end, last))
            }
            last[entry.slot] = max(last[entry.slot], entry.sequence)
            end += 1
        }

        /// Lets go the marks that are before what is still here.
        mutating func dropMarks() {
            while firstMark < marks.count, marks[firstMark].place <= batches[head].place { firstMark += 1 }
            if firstMark > 64, firstMark * 2 > marks.count {
                marks.removeFirst(firstMark)
                firstMark = 0
            }
        }

        /// The batch that a place is in: the last that begins at or before it.
        func batch(of place: UInt64) -> Int {
            var (low, high) = (head, batches.count - 1)
            while low < high {
                let middle = (low + high + 1) / 2
                if batches[middle].place <= place { low = middle } else { high = middle - 1 }
            }
            return low
        }
    }

    /// Records between two marks: at most so many are looked at to find a reader's place.
    package static let markRecords = 1024

    private let state = Guarded(State())
    private let limitBytes: Int

    /// An empty tail that keeps about so many bytes of records.
    package init(limitBytes: Int) { self.limitBytes = limitBytes }

    /// Has `wake` called whenever something came, by the thread that brought it; it must not block.
    package func setWake(_ wake: (@Sendable () -> Void)?) { state.withLock { $0.wake = wake } }

    /// Lets everything go: what comes from now on follows these numbers, without a gap as far as is known. To be called
    /// before anybody is told of another numbering, and where records may have been passed over.
    package func begin(_ position: StreamPosition) {
        state.withLock { state in
            (state.batches, state.head, state.bytes) = ([], 0, 0)
            (state.marks, state.firstMark) = ([], 0)
            (state.base, state.last) = (position, position.sequences)
        }
    }

    /// Adds records that were committed, and lets the oldest go where there are too many. Wakes, also with none.
    package func append(_ entries: [Entry]) {
        let wake = state.withLock { state in
            if !entries.isEmpty {
                let size = entries.reduce(0) { $0 + $1.bytes.count + 48 }
                state.batches.append((state.end, entries, size))
                state.bytes += size
                for entry in entries { state.take(entry) }
                while state.bytes > limitBytes, state.head < state.batches.count - 1 {
                    state.bytes -= state.batches[state.head].bytes
                    for entry in state.batches[state.head].entries {
                        state.base?.sequences[entry.slot] = entry.sequence
                    }
                    state.batches[state.head].entries = []
                    state.head += 1
                }
                if state.head > 1024, state.head * 2 > state.batches.count {
                    state.batches.removeFirst(state.head)
                    state.head = 0
                }
                state.dropMarks()
            }
            return state.wake
        }
        wake?()
    }

    /// The place behind the last record.
    package var end: UInt64 { state.withLock { $0.end } }

    /// Where who has everything up to `position` is to read on; nil where something behind that is not here any more,
    /// or the numbering is another one.
    package func place(behind position: StreamPosition) -> UInt64? { find(behind: position).place }

    /// The same, with how many records it looked at: no more than `markRecords`, however many are here, since whoever
    /// commits waits meanwhile.
    package func find(behind position: StreamPosition) -> (place: UInt64?, looked: Int) {
        state.withLock { state in
            let has = { (last: [Int64]) in (0..<StreamSlots.count).allSatisfy { position.sequences[$0] >= last[$0] } }
            guard let base = state.base, position.isNumbered(as: base), has(base.sequences) else { return (nil, 0) }
            guard !has(state.last) else { return (state.end, 0) }
            // The reader has all that is before the last mark that it has passed, and not all that is before the next.
            var (low, high) = (state.firstMark, state.marks.count)
            while low < high {
                let middle = (low + high) / 2
                if has(state.marks[middle].last) { low = middle + 1 } else { high = middle }
            }
            let first = state.batches[state.head].place
            var place = low > state.firstMark ? max(first, state.marks[low - 1].place) : first
            let begin = place
            var index = state.batch(of: place)
            while index < state.batches.count {
                let batch = state.batches[index]
                for entry in batch.entries[Int(place - batch.place)...] {
                    if entry.sequence > position.sequences[entry.slot] { return (place, Int(place - begin) + 1) }
                    place += 1
                }
                index += 1
            }
            return (place, Int(place - begin))
        }
    }

    /// Records from `place` on, at most about `limit` of them; `place` moves behind them. Nil when some of them are
    /// gone; `place` is then at the first that is here.
    package func read(from place: inout UInt64, limit: Int) -> [Entry]? {
        state.withLock { state in
            guard place < state.end else { return [] }
            guard state.head < state.batches.count, place >= state.batches[state.head].place else {
                place = state.head < state.batches.count ? state.batches[state.head].place : state.end
                return nil
            }
            var low = state.batch(of: place)
            var found: [Entry] = []
            while low < state.batches.count, found.count < limit {
                let batch = state.batches[low]
                let part = batch.entries[Int(place - batch.place)...].prefix(limit - found.count)
                found += part
                place += UInt64(part.count)
                low += 1
            }
            return found
        }
    }
}
