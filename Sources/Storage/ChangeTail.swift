// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// The newest records of an outbox, kept in memory for those who follow closely. Safe to use from any thread.
///
/// A reader keeps its place, a number that counts every record that ever came, and is told when what it has not read is
/// not here any more.
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
        var wake: (@Sendable () -> Void)?
    }

    private let state = Guarded(State())
    private let limitBytes: Int

    /// An empty tail that keeps about so many bytes of records.
    package init(limitBytes: Int) { self.limitBytes = limitBytes }

    /// Has `wake` called whenever something came, by the thread that brought it; it must not block.
    package func setWake(_ wake: (@Sendable () -> Void)?) { state.withLock { $0.wake = wake } }

    /// Adds records that were committed, and lets the oldest go where there are too many. Wakes, also with none.
    package func append(_ entries: [Entry]) {
        let wake = state.withLock { state in
            if !entries.isEmpty {
                let size = entries.reduce(0) { $0 + $1.bytes.count + 48 }
                state.batches.append((state.end, entries, size))
                state.bytes += size
                state.end += UInt64(entries.count)
                while state.bytes > limitBytes, state.head < state.batches.count - 1 {
                    state.bytes -= state.batches[state.head].bytes
                    state.batches[state.head].entries = []
                    state.head += 1
                }
                if state.head > 1024, state.head * 2 > state.batches.count {
                    state.batches.removeFirst(state.head)
                    state.head = 0
                }
            }
            return state.wake
        }
        wake?()
    }

    /// The place behind the last record.
    package var end: UInt64 { state.withLock { $0.end } }

    /// Records from `place` on, at most about `limit` of them; `place` moves behind them. Nil when some of them are
    /// gone; `place` is then at the first that is here.
    package func read(from place: inout UInt64, limit: Int) -> [Entry]? {
        state.withLock { state in
            guard place < state.end else { return [] }
            guard state.head < state.batches.count, place >= state.batches[state.head].place else {
                place = state.head < state.batches.count ? state.batches[state.head].place : state.end
                return nil
            }
            // The batch that the place is in: the last that begins at or before it.
            var (low, high) = (state.head, state.batches.count - 1)
            while low < high {
                let middle = (low + high + 1) / 2
                if state.batches[middle].place <= place { low = middle } else { high = middle - 1 }
            }
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
