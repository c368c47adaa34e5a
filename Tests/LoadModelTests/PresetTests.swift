// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import LoadModel

/// What each preset draws is what its source says.
@Suite struct PresetTests {
    /// Numbers of clusters whose published figures are not complete.
    private static let incomplete: Set<Int> = [5, 21, 43, 46]
    static let clusters = (1...54).filter { !incomplete.contains($0) }
    private static let draws = 20_000

    private static func lines() -> [Int: [[String]]] {
        var lines: [Int: [[String]]] = [:]
        for line in twitterClusters.split(separator: "\n") {
            let parts = line.split(separator: "|").map { $0.split(separator: " ").map(String.init) }
            if let number = Int(parts[0][0]) { lines[number] = parts }
        }
        return lines
    }

    /// `get:0.93` and so on, brought to a sum of 1. Words that come twice are one.
    private func shares(_ words: [String]) -> [String: Double] {
        let pairs = words.map { $0.split(separator: ":") }.map { (String($0[0]), Double($0[1]) ?? 0) }
        let sum = pairs.reduce(0) { $0 + $1.1 }
        return pairs.reduce(into: [:]) { $0[$1.0, default: 0] += $1.1 / sum }
    }

    @Test func thereIsOneForEachClusterWithCompleteFigures() {
        #expect(Set(WorkloadPreset.names) == Set(["facebook-etc"] + Self.clusters.map { "twitter-cluster\($0)" }))
        #expect(WorkloadPreset.names.count == 51)
        for number in Self.incomplete { #expect(WorkloadPreset.named("twitter-cluster\(number)") == nil) }
    }

    @Test(arguments: clusters) func aClusterDrawsItsFigures(_ number: Int) throws {
        let line = try #require(Self.lines()[number])
        let workload = try #require(WorkloadPreset.named("twitter-cluster\(number)"))
        var generator = WorkloadGenerator(workload, seed: UInt64(number))
        var (operations, expiries): ([String: Int], [String: Int]) = ([:], [:])
        var (newest, text) = (UInt64(0), [UInt8]())
        for _ in 0..<Self.draws {
            let draw = generator.next()
            operations[draw.operation.name, default: 0] += 1
            expiries["\(draw.expiry)", default: 0] += 1
            newest = max(newest, draw.key)
            #expect(generator.valueLength(draw.key) == Int(line[0][2]))
            generator.writeKey(draw.key, into: &text)
            // A number needs its digits, where a key is shorter.
            #expect(text.count == max(Int(line[0][1]) ?? 0, "\(draw.key)".count))
        }
        for (found, expected) in [(operations, shares(line[1])), (expiries, shares(line[2]))] {
            #expect(Set(found.keys).isSubset(of: expected.keys))
            for (name, share) in expected {
                let (count, mean) = (Double(found[name] ?? 0), Double(Self.draws) * share)
                // Five deviations of a binomial count.
                #expect((count - mean).magnitude < 5 * (mean * (1 - share)).squareRoot() + 1, "\(name)")
            }
        }
        // A compulsory miss is a key that was never there: so many came until now, in the place of the first ones.
        let churn = (Double(line[0][4]) ?? 0) / 100
        #expect(workload.churn == churn)
        let brought = Double(newest) + 1 - Double(workload.keys)
        #expect(brought <= churn * Double(Self.draws) + 1)
        #expect(WorkloadPreset.requestRate("twitter-cluster\(number)") == Double(line[0][3]))
        let isZipf = (Double(line[0][5]) ?? 0) > 0
        #expect(workload.keyDistribution == (isZipf ? .zipf(exponent: Double(line[0][5]) ?? 0) : .uniform))
    }

    /// The table's shares of small values, the generalised Pareto of the others, and the generalised extreme value of
    /// keys: sections 3 and 5 of the paper.
    @Test func facebooksPoolDrawsItsFigures() throws {
        let workload = try #require(WorkloadPreset.named("facebook-etc"))
        var generator = WorkloadGenerator(workload, seed: 5)
        var (gets, lengths, keys, text) = (0, [Int](), [Int](), [UInt8]())
        for number in 0..<200_000 as Range<UInt64> {
            if generator.next().operation == .get { gets += 1 }
            lengths.append(generator.valueLength(number))
            generator.writeKey(number, into: &text)
            keys.append(text.count)
        }
        #expect((Double(gets) / 200_000 - 30.0 / 31).magnitude < 0.002)
        func share(_ length: Int) -> Double { Double(lengths.count { $0 == length }) / 200_000 }
        for (length, expected) in [(0, 0.00536), (2, 0.17820), (3, 0.09239), (11, 0.08989), (14, 0.01980)] {
            #expect((share(length) - expected).magnitude < 0.003, "\(length) bytes")
        }
        // Beyond 14 bytes, quantile q of a Pareto: 15 + 214.476 / 0.348238 ((1 - q)^-0.348238 - 1).
        let large = lengths.filter { $0 > 14 }.sorted()
        for (fraction, expected) in [(0.5, 183.1), (0.9, 772.4), (0.99, 2461.0)] {
            let found = Double(large[Int(fraction * Double(large.count))])
            #expect((found / expected - 1).magnitude < 0.03, "\(fraction): \(found)")
        }
        // Quantiles of a generalised extreme value: 30.7984 + 8.20449 / 0.078688 ((-ln q)^-0.078688 - 1).
        let sorted = keys.sorted()
        for (fraction, expected) in [(0.1, 24.17), (0.5, 33.85), (0.9, 50.99)] {
            #expect((Double(sorted[Int(fraction * 200_000)]) - expected).magnitude < 1.01, "\(fraction)")
        }
    }
}
