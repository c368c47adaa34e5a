// Martlet
// SPDX-License-Identifier: Apache-2.0

/// An agent's part of a test: of everything that is numbered (virtual users, shared iterations, arrivals) every
/// ``count``-th, from ``index`` on. So k6's execution segments of equal length deal out what they share.
package struct ExecutionSegment: Sendable, Equatable {
    /// Which of the parts it is, from 0.
    package let index: Int
    /// How many parts there are.
    package let count: Int

    /// Parts at most.
    package static let limit = 256

    /// The only part.
    package static let whole = ExecutionSegment(index: 0, count: 1)

    /// Part `index` of `count`, which is 1 to ``limit``.
    package init(index: Int, count: Int) {
        precondition((1...Self.limit).contains(count) && (0..<count).contains(index), "no such part")
        (self.index, self.count) = (index, count)
    }

    /// The part that k6's options spell: `text` as `1/4:1/2`, `0:25%` or `25%` (the first), of the parts whose limits
    /// `sequence` lists, `0,1/4,1/2,3/4,1`. Throws when the parts are not of equal length.
    package static func parse(_ text: String?, sequence: String? = nil) throws(OptionProblem) -> ExecutionSegment {
        let shown = text.map { "executionSegment '\($0)'" } ?? "executionSegmentSequence '\(sequence ?? "")'"
        let ends = (text ?? "0:1").split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        let numbers = ends.compactMap { Fraction($0) }
        guard (1...2).contains(ends.count), numbers.count == ends.count else {
            throw OptionProblem("\(shown): expected FROM:TO, such as 1/4:1/2, 0:25% or 0.5:1")
        }
        let from = numbers.count == 2 ? numbers[0] : Fraction(0, 1)
        let to = numbers[numbers.count - 1]
        guard from.isBelow(to), !Fraction(1, 1).isBelow(to) else {
            throw OptionProblem("\(shown): expected a part from 0 to 1 that is not empty")
        }
        // Its length is 1/count, and it begins at a multiple of that.
        let length = to.less(from)
        guard length.above == 1, (1...limit).contains(length.below), from.isWhole(in: length.below) else {
            throw OptionProblem(
                "\(shown): a test is cut into 1 to \(limit) parts of equal length here, such as 0:1/3, 1/3:2/3, 2/3:1")
        }
        let part = ExecutionSegment(index: from.above * length.below / from.below, count: length.below)
        guard let sequence else { return part }
        let limits = sequence.split(separator: ",").compactMap { Fraction(String($0)) }
        let expected = (0...part.count).map { Fraction($0, part.count) }
        guard limits == expected else {
            throw OptionProblem(
                "executionSegmentSequence '\(sequence)': expected the limits of \(part.count) parts of equal length: "
                    + (0...min(part.count, 8)).map { "\($0)/\(part.count)" }.joined(separator: ","))
        }
        return part
    }

    /// A rational number from 0 to a few, in lowest terms.
    private struct Fraction: Equatable {
        let above: Int
        let below: Int

        init(_ above: Int, _ below: Int) {
            var (one, other) = (above, below)
            while other != 0 { (one, other) = (other, one % other) }
            (self.above, self.below) = (above / max(1, one), below / max(1, one))
        }

        /// `1/4`, `25%`, `0.25` or a whole number.
        init?(_ text: String) {
            let isShare = text.hasSuffix("%")
            let parts = (isShare ? text.dropLast() : text[...]).split(separator: "/", omittingEmptySubsequences: false)
            if !isShare, parts.count == 2 {
                guard let above = Int(parts[0]), let below = Int(parts[1]), (0...1_000_000).contains(above),
                    (1...1_000_000).contains(below)
                else { return nil }
                self.init(above, below)
                return
            }
            guard parts.count == 1 else { return nil }
            let pieces = parts[0].split(separator: ".", omittingEmptySubsequences: false)
            let decimals = pieces.count == 2 ? pieces[1] : ""
            guard pieces.count <= 2, decimals.count <= 6, let whole = Int(pieces[0] + decimals),
                (0...1_000_000_000).contains(whole)
            else { return nil }
            let scale = (0..<decimals.count).reduce(isShare ? 100 : 1) { scale, _ in scale * 10 }
            self.init(whole, scale)
        }

        func isBelow(_ other: Fraction) -> Bool { above * other.below < other.above * below }

        func less(_ other: Fraction) -> Fraction {
            Fraction(above * other.below - other.above * below, below * other.below)
        }

        func isWhole(in parts: Int) -> Bool { above * parts % below == 0 }
    }

    /// How many of the first `all` numbers are this part's.
    package func share(of all: Int) -> Int { all <= index ? 0 : (all - index - 1) / count + 1 }

    /// How many of the first `all` numbers are this part's.
    package func share(of all: UInt64) -> UInt64 {
        let (index, count) = (UInt64(index), UInt64(count))
        return all <= index ? 0 : (all - index - 1) / count + 1
    }

    /// The number, in the whole test, of this part's number `own`.
    package func number(of own: Int) -> Int { own &* count &+ index }

    /// The number, in the whole test, of this part's number `own`.
    package func number(of own: UInt64) -> UInt64 { own &* UInt64(count) &+ UInt64(index) }

    /// Whether the number is this part's.
    package func contains(_ number: Int) -> Bool { number % count == index }

    /// Which of this part's numbers `number` is.
    package func own(_ number: Int) -> Int { number / count }
}
