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
