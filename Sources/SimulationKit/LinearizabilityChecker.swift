// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// Whether what clients saw of one key can be explained by its operations having happened one at a time, each between
/// its asking and its answer. A search over orders with memory of failed ones: Wing and Gong (1993), Lowe (2017), as
/// Porcupine does it. Its worst case is exponential; `stepsMax` bounds it.
package struct LinearizabilityChecker: Sendable {
    /// What a history is.
    package enum Verdict: Sendable, Equatable {
        case linearizable
        /// Impossible; with the operation that no order explained.
        case violation(RecordedOperation)
        /// The bound was met first.
        case undecided
    }

    /// How many steps the search may take.
    package var stepsMax: Int

    /// A checker that gives up after so many steps.
    package init(stepsMax: Int = 5_000_000) { self.stepsMax = stepsMax }

    /// Checks a history of one key that begins without a row. Failed reads, and writes that definitely did nothing, say
    /// nothing and must not be in it.
    package func check(_ history: [RecordedOperation]) -> Verdict {
        var search = Search(history.sorted { $0.invoked < $1.invoked })
        return search.run(stepsMax)
    }

    /// Failed places of the search: what had happened, and the state that it led to.
    private struct Memo: Hashable {
        var done: [UInt64]
        var state: RegisterModel
    }

    private struct Frame {
        var operation: Int
        var latestInvoked: UInt64
        /// Everything in `required` before this is done.
        var first: Int
        var successors: [(operation: Int, state: RegisterModel)]
        var next = 0
    }

    private struct Search {
        let operations: [RecordedOperation]
        /// Taken out of them, as the search looks at little else.
        let invoked: [UInt64]
        let returned: [UInt64]
        let isOptional: [Bool]
        /// Operations that must have happened, and those that may not have, in the order of asking.
        var required: [Int] = []
        var optional: [Int] = []
        /// Every time at which some row expires, in order: between two of them the time makes no difference.
        let expiries: [Int64]
        /// What the same client asked before, and must have happened first.
        var predecessors: [Int]
        var done: [UInt64]
        var remaining: Int
        var memory: Set<Memo> = []
        /// The operation that was waited for when the search was furthest.
        var furthest = 0
        var fewest = Int.max

        /// The version that a write's answer or a read row tells; 0 where none does.
        let told: [UInt64]

        init(_ operations: [RecordedOperation]) {
            self.operations = operations
            told = operations.map(\.toldVersion)
            invoked = operations.map(\.invoked)
            returned = operations.map(\.returned)
            isOptional = operations.map { $0.result == .unknown }
            let times = operations.compactMap { operation -> Int64? in
                if case .write(let write) = operation.action { write.expiryMilliseconds } else { nil }
            }
            expiries = Set(times).sorted()
            predecessors = [Int](repeating: -1, count: operations.count)
            done = [UInt64](repeating: 0, count: operations.count / 64 + 1)
            var latest: [Int: Int] = [:]
            for (index, operation) in operations.enumerated() {
                predecessors[index] = latest[operation.client] ?? -1
                if isOptional[index] {
                    optional.append(index)
                } else {
                    required.append(index)
                    if !operation.isLate { latest[operation.client] = index }
                }
            }
            remaining = required.count
        }

        func isDone(_ index: Int) -> Bool { done[index >> 6] & (1 << UInt64(index & 63)) != 0 }

        mutating func flip(_ index: Int) { done[index >> 6] ^= 1 << UInt64(index & 63) }

        mutating func run(_ stepsMax: Int) -> Verdict {
            if remaining == 0 { return .linearizable }
            var stack = [frame(-1, RegisterModel(), 0, from: 0)]
            var steps = 0
            while let top = stack.indices.last {
                guard stack[top].next < stack[top].successors.count else {
                    let undone = stack.removeLast().operation
                    if undone >= 0 { undo(undone) }
                    continue
                }
                steps += 1
                if steps > stepsMax { return .undecided }
                let (operation, state) = stack[top].successors[stack[top].next]
                stack[top].next += 1
                flip(operation)
                guard memory.insert(Memo(done: done, state: state)).inserted else {
                    flip(operation)
                    continue
                }
                if !isOptional[operation] { remaining -= 1 }
                if remaining == 0 { return .linearizable }
                let latest = max(stack[top].latestInvoked, invoked[operation])
                stack.append(frame(operation, state, latest, from: stack[top].first))
            }
            return .violation(operations[furthest])
        }

        private mutating func undo(_ operation: Int) {
            flip(operation)
            if !isOptional[operation] { remaining += 1 }
        }

        /// What may happen next: whatever was asked before the first answer that is still due.
        private mutating func frame(
            _ operation: Int, _ state: RegisterModel, _ latestInvoked: UInt64, from start: Int
        ) -> Frame {
            var first = start
            while first < required.count, isDone(required[first]) { first += 1 }
            var due = UInt64.max
            var pressing = -1
            var candidates: [Int] = []
            for index in required[first...] where !isDone(index) {
                if invoked[index] > due { break }
                candidates.append(index)
                if returned[index] < due { (due, pressing) = (returned[index], index) }
            }
            if remaining < fewest { (fewest, furthest) = (remaining, max(pressing, 0)) }
            candidates.removeAll { invoked[$0] > due }
            candidates.sort { returned[$0] < returned[$1] }
            // Those that may not have happened come last: mostly nothing needs them.
            for index in optional where !isDone(index) {
                if invoked[index] > due { break }
                if returned[index] > latestInvoked { candidates.append(index) }
            }
            var frame = Frame(operation: operation, latestInvoked: latestInvoked, first: first, successors: [])
            // Versions only grow: what tells one that is over, and has not happened, never can.
            for index in candidates where told[index] != 0 && told[index] <= state.highestVersion {
                if !operations[index].isRead || state.version != told[index] { return frame }
            }
            for index in candidates {
                let before = predecessors[index]
                guard before < 0 || isDone(before) else { continue }
                for var next in state.after(operations[index]) {
                    next.milliseconds = lastExpiry(until: next.milliseconds)
                    if next == state, !isOptional[index] {
                        // It may happen now and changes nothing: whatever is possible later is possible after it.
                        frame.successors = [(index, next)]
                        return frame
                    }
                    frame.successors.append((index, next))
                }
            }
            return frame
        }

        private func lastExpiry(until time: Int64) -> Int64 {
            var (low, high) = (0, expiries.count)
            while low < high {
                let middle = (low + high) / 2
                if expiries[middle] <= time { low = middle + 1 } else { high = middle }
            }
            return low == 0 ? .min : expiries[low - 1]
        }
    }
}

extension RecordedOperation {
    fileprivate var isRead: Bool { action == .read }

    /// The version that the answer tells of a row or a tombstone; 0 when it tells none.
    fileprivate var toldVersion: UInt64 {
        switch result {
        case .write(.stored(let row)), .read(.found(let row)): row.version
        case .write(.deleted(let version)): version
        default: 0
        }
    }
}
