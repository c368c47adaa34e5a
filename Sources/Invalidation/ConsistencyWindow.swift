// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What looks at copies found, all of them so long after the changes that they were held against.
package struct ConsistencyWindow: Sendable, Equatable {
    /// How long after.
    package let seconds: Int
    private var counts = [UInt64](repeating: 0, count: CopyVerdict.allCases.count)

    /// A window in which nothing was looked at yet.
    package init(seconds: Int) { self.seconds = seconds }

    /// How many looks had this verdict.
    package subscript(_ verdict: CopyVerdict) -> UInt64 { counts[verdict.rawValue] }

    /// Counts a look.
    package mutating func note(_ verdict: CopyVerdict) { counts[verdict.rawValue] += 1 }

    /// All looks that a node answered.
    package var looks: UInt64 { counts.reduce(0, +) - self[.failed] }

    /// Looks that tell something of consistency: how large the sample is.
    package var samples: UInt64 {
        CopyVerdict.allCases.reduce(0) { $0 + ($1.isSample ? self[$1] : 0) }
    }

    /// How consistent copies are, in nines: what the sample shows with 95% confidence. 3.0 is that at most one of 1,000
    /// is stale. 0 where too little was seen.
    package var nines: Double { Self.nines(stale: self[.stale], of: samples) }

    /// What the sample shows, in words.
    package var confidence: String { Self.confidence(stale: self[.stale], of: samples) }

    /// What so many looks show. Source of the bound: Hanley and Lippman-Hand, "If nothing goes wrong, is everything all
    /// right?" (1983).
    package static func confidence(stale: UInt64, of looks: UInt64) -> String {
        guard looks > 0 else { return "nothing was seen" }
        if stale > 0 { return "\(stale) of \(looks) were stale" }
        return "fewer than 3 of \(looks) are, with 95% confidence"
    }

    /// The nines that so many looks show with 95% confidence.
    static func nines(stale: UInt64, of looks: UInt64) -> Double {
        guard looks > 0 else { return 0 }
        let share = mostExpected(seen: Double(stale)) / Double(looks)
        return share >= 1 ? 0 : -commonLogarithm(share)
    }

    /// How many are to be expected at most, with 95% confidence, where so many were seen. Source: Wilson and Hilferty,
    /// "The distribution of chi-square" (1931), for the upper bound of a Poisson distribution's mean.
    static func mostExpected(seen: Double) -> Double {
        let degrees = seen + 1
        let root = 1 - 1 / (9 * degrees) + 1.6449 / (3 * degrees.squareRoot())
        return degrees * root * root * root
    }

    /// To six places. Bit by bit: the square of the significand says whether the next bit of its logarithm is set.
    private static func commonLogarithm(_ number: Double) -> Double {
        var (power, rest, bit) = (Double(number.exponent), number.significand, 0.5)
        for _ in 0..<24 {
            rest *= rest
            if rest >= 2 {
                power += bit
                rest /= 2
            }
            bit /= 2
        }
        return power * 0.301_029_995_663_981_2
    }
}
