// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Settings

/// Why a configuration was refused, and where.
typealias RouteProblem = PlacedProblem

extension PlacedProblem {
    /// The same, with what it was a part of.
    func within(_ what: String) -> RouteProblem { RouteProblem("\(what): \(text)", at: place) }
}
