// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// Who was home behind whom, and what was acknowledged by each: the judge of what may be missing at a home.
///
/// Promotions make a tree: each goes on with what a home before it had. A write of one home is at every home behind it,
/// unless a promotion between them was with loss accepted, and the write is not from before the time that was printed.
/// Where two homes part, neither has what the other took: one of the two promotions at which they part must have been
/// with loss accepted.
struct PromotionHistory {
    private struct Step {
        let base: HomeTerm
        let isWhole: Bool
        /// Up to when nothing is missing.
        let seen: UInt64
    }

    private let first: HomeTerm
    private var steps: [HomeTerm: Step] = [:]
    private(set) var acknowledged: [(number: Int, time: UInt64, term: HomeTerm)] = []

    /// Before any promotion, when `first` is home.
    init(_ first: HomeTerm) { self.first = first }

    /// Whether a promotion with loss accepted was among them.
    private(set) var hasLoss = false

    /// A write was acknowledged by the home of `term`; gives its number.
    mutating func acknowledge(at time: UInt64, by term: HomeTerm) -> Int {
        acknowledged.append((acknowledged.count, time, term))
        return acknowledged.count - 1
    }

    /// A promotion has made a region home, with what the home of `base` had.
    mutating func promoted(_ term: HomeTerm, behind base: HomeTerm, isWhole: Bool, seen: UInt64) {
        if !isWhole { hasLoss = true }
        if term != base, steps[term] == nil { steps[term] = Step(base: base, isWhole: isWhole, seen: seen) }
    }

    /// The promotions that lead to one, with it, the first one first.
    private func line(_ term: HomeTerm) -> [HomeTerm] {
        var line = [term]
        // No longer than there are promotions, also where two of them are one.
        while let base = steps[line[line.count - 1]]?.base, line.count <= steps.count { line.append(base) }
        return line.reversed()
    }

    /// The promotions at which two homes part; nil for one that the other is behind.
    private func parting(_ one: HomeTerm, _ other: HomeTerm) -> (one: HomeTerm?, other: HomeTerm?) {
        let (left, right) = (line(one), line(other))
        let common = zip(left, right).prefix { $0 == $1 }.count
        return (left.dropFirst(common).first, right.dropFirst(common).first)
    }

    private func isLossy(_ term: HomeTerm?) -> Bool { term.flatMap { steps[$0] }.map { !$0.isWhole } ?? false }

    /// Whether a home is behind another one, or that itself.
    func isBehind(_ term: HomeTerm, _ other: HomeTerm) -> Bool { line(term).contains(other) }

    /// Whether two homes may be there at once.
    func mayBothBeHome(_ one: HomeTerm, _ other: HomeTerm) -> Bool {
        let parting = parting(one, other)
        return isLossy(parting.one) || isLossy(parting.other)
    }

    /// The first write that is missing at the home of `term` and must not be, of those that it has.
    func lost(at term: HomeTerm, having writes: Set<Int>) -> (time: UInt64, term: HomeTerm)? {
        var limits: [HomeTerm: UInt64] = [:]
        for write in acknowledged where !writes.contains(write.number) {
            let limit = limits[write.term] ?? keptUntil(write.term, at: term)
            limits[write.term] = limit
            if write.time < limit { return (write.time, write.term) }
        }
        return nil
    }

    /// Up to when everything that the home of `taker` acknowledged is at that of `term`.
    private func keptUntil(_ taker: HomeTerm, at term: HomeTerm) -> UInt64 {
        let parting = parting(term, taker)
        if parting.other == nil {
            guard let one = parting.one, let step = steps[one], !step.isWhole else { return .max }
            return step.seen
        }
        // One that is behind this home has what it took, unless it gave it up.
        return parting.one != nil && (isLossy(parting.one) || isLossy(parting.other)) ? 0 : .max
    }
}
