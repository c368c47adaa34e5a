// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import LoadModel

struct RateSearchTests {
    private static func find(from start: Double, _ keeps: (Double) -> Bool) -> (best: Double?, trials: Int) {
        var search = RateSearch(start: start)
        var trials = 0
        while let rate = search.next {
            search.note(isKept: keeps(rate))
            trials += 1
        }
        return (search.best, trials)
    }

    @Test(arguments: [(1.0, 700.0), (1000, 700), (1e6, 700), (1000, 1e6), (1000, 1.5)])
    func findsTheRate(_ start: Double, _ capacity: Double) throws {
        let (best, trials) = Self.find(from: start) { $0 <= capacity }
        let found = try #require(best)
        #expect(found <= capacity && found >= capacity / RateSearch.precision && trials <= RateSearch.trialLimit)
    }

    @Test func endsWhereNothingHolds() {
        #expect(Self.find(from: 1000) { _ in false }.best == nil)
        #expect(Self.find(from: 1000) { _ in true }.best == RateSearch.rates.upperBound)
    }

    @Test func believesNoSingleFailure() throws {
        var calls = 0
        let (best, _) = Self.find(from: 1000) { rate in
            calls += 1
            return rate <= 5000 && calls % 2 == 0
        }
        let found = try #require(best)
        #expect(found > 5000 / RateSearch.precision)
    }

    @Test func readsObjectives() throws {
        let short = try SearchObjective("p99.9 < 500us")
        #expect(short.figure == "p(99.9)" && short.limitMilliseconds == 0.5)
        #expect(try SearchObjective("p(95)<2").limitMilliseconds == 2)
        #expect(try SearchObjective("avg<=1s").limitMilliseconds == 1000)
        for wrong in ["p99", "p99<", "p101<2ms", "count<2", "<2ms", "p99<0", "p99<-1", "p99>2ms"] {
            #expect(throws: OptionProblem.self) { try SearchObjective(wrong) }
        }
    }
}
