// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What requests of each level cost lately, to find the level beyond which a share of the cost lies.
///
/// A level is a class and within it one of 128 cohorts: whole callers are refused rather than a part of each one's
/// requests, so that a caller which needs many answers for one result still gets some results.
///
/// Source: Zhou et al., "Overload Control for Scaling WeChat Microservices", SoCC 2018.
struct CostHistogram {
    /// Cohorts of a class.
    static let cohorts = 128
    /// Levels: those of the classes, and one band beyond for what a tenant has too much of.
    static let levels = (RequestClass.allCases.count + 1) * cohorts

    /// Beyond which level requests are refused, and which part of that level itself.
    struct Threshold: Equatable {
        var level = levels
        var refusedPart = 0.0

        /// Refuses all.
        static var everything: Threshold { Threshold(level: 0, refusedPart: 1) }
    }

    private var costs = [Double](repeating: 0, count: levels)

    /// Notes a request, admitted or not.
    mutating func note(_ level: Int, cost: Double) { costs[level] += cost }

    /// Lets the past count less.
    mutating func decay(_ factor: Double) { for level in costs.indices { costs[level] *= factor } }

    /// The share of the cost that lies from a level on.
    func share(from level: Int) -> Double {
        let total = costs.reduce(0, +)
        return total > 0 ? costs[min(level, Self.levels)...].reduce(0, +) / total : 0
    }

    /// The threshold that refuses `ratio` of the cost.
    func threshold(_ ratio: Double) -> Threshold {
        let total = costs.reduce(0, +)
        guard ratio > 0, total > 0 else { return Threshold() }
        var left = ratio * total
        for level in costs.indices.reversed() where costs[level] > 0 {
            if costs[level] > left { return Threshold(level: level, refusedPart: left / costs[level]) }
            left -= costs[level]
        }
        return Threshold(level: 0, refusedPart: 1)
    }
}
