// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Workloads that others measured and published.
package enum WorkloadPreset {
    /// All names: `facebook-etc`, and `twitter-cluster1` and so on.
    package static var names: [String] { ["facebook-etc"] + twitter.keys.sorted().map { "twitter-cluster\($0)" } }

    /// The preset of that name; nil when there is none.
    package static func named(_ name: String) -> Workload? {
        if name == "facebook-etc" { return facebookETC }
        let prefix = "twitter-cluster"
        guard name.hasPrefix(prefix), let number = Int(name.dropFirst(prefix.count)) else { return nil }
        return twitter[number]
    }

    /// Facebook's general-purpose pool: thirty gets to a set, key and value sizes as fitted to its traffic, the first
    /// fifteen value sizes by a table. Source: Atikoglu and others, Workload analysis of a large-scale key-value store
    /// (SIGMETRICS 2012), section 5 and its table 5.
    static var facebookETC: Workload {
        var result = Workload()
        result.operations = [(.get, 30.0 / 31), (.set, 1.0 / 31)]
        result.keys = 1_000_000
        result.keyDistribution = .zipf(exponent: 0.99)
        result.keySize = .extreme(location: 30.7984, scale: 8.20449, shape: 0.078688)
        result.valueSize = .discrete(
            [
                (0, 0.00536), (1, 0.00047), (2, 0.17820), (3, 0.09239), (4, 0.00018), (5, 0.02740), (6, 0.00065),
                (7, 0.00606), (8, 0.00023), (9, 0.00837), (10, 0.00837), (11, 0.08989), (12, 0.00092), (13, 0.00326),
                (14, 0.01980),
            ], rest: .pareto(location: 15, scale: 214.476, shape: 0.348238))
        result.keyPrefix = ""
        result.fillsMisses = true
        return result
    }

    /// Twitter's clusters by number. Sizes are their means; what was not published (the spread of the sizes, the
    /// number of keys) is not guessed: sizes are fixed, and `keys` is the user's to set. A compulsory miss is a new
    /// key, so its share is the churn.
    static var twitter: [Int: Workload] {
        var result: [Int: Workload] = [:]
        for line in twitterClusters.split(separator: "\n") {
            let parts = line.split(separator: "|").map { $0.split(separator: " ") }
            guard parts.count == 3, parts[0].count == 6, let number = Int(parts[0][0]) else { continue }
            let figures = parts[0].compactMap { Double($0) }
            guard figures.count == 6 else { continue }
            var one = Workload()
            one.keys = 1_000_000
            one.keyPrefix = ""
            one.keySize = .fixed(figures[1])
            one.valueSize = .fixed(figures[2])
            one.churn = figures[4] / 100
            one.keyDistribution = figures[5] > 0 ? .zipf(exponent: figures[5]) : .uniform
            one.operations = shares(parts[1]).compactMap { name, share in
                Operation.allCases.first { $0.name == name }.map { ($0, share) }
            }
            one.expiries = shares(parts[2]).compactMap { name, share in Int64(name).map { ($0, share) } }
            one.fillsMisses = true
            result[number] = one
        }
        return result
    }

    /// Thousand requests a second that the cluster's machine had; nil when the preset has no such figure.
    package static func requestRate(_ name: String) -> Double? {
        let number = name.drop { !$0.isNumber }
        let line = twitterClusters.split(separator: "\n").first { $0.hasPrefix("\(number) ") }
        return line?.split(separator: " ").dropFirst(3).first.flatMap { Double($0) }
    }

    /// `get:0.93 set:0.07`, the shares brought to a sum of 1.
    private static func shares(_ words: [Substring]) -> [(String, Double)] {
        let pairs = words.compactMap { word -> (String, Double)? in
            guard let colon = word.lastIndex(of: ":"), let share = Double(word[word.index(after: colon)...]) else {
                return nil
            }
            return (String(word[..<colon]), share)
        }
        let sum = pairs.reduce(0) { $0 + $1.1 }
        return sum > 0 ? pairs.map { ($0.0, $0.1 / sum) } : []
    }
}
