// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A condition on a metric's figure, in k6's words: `p(95)<500`, `rate>=0.99`, `count==0`.
package struct Threshold: Sendable, Equatable {
    /// How the figure and the number compare.
    package enum Comparison: String, Sendable, CaseIterable {
        // The longer ones first: one is found at the first place where any matches.
        case identical = "===", notLess = ">=", notGreater = "<=", equal = "==", unequal = "!=", greater = ">"
        case less = "<"

        /// Whether the two compare so.
        package func holds(_ left: Double, _ right: Double) -> Bool {
            switch self {
            case .identical, .equal: left == right
            case .notLess: left >= right
            case .notGreater: left <= right
            case .unequal: left != right
            case .greater: left > right
            case .less: left < right
            }
        }
    }

    /// As it was written.
    package let source: String
    /// The figure's name, as ``MetricSink/figure(_:seconds:)`` takes it.
    package let figure: String
    /// How the figure and ``limit`` compare.
    package let comparison: Comparison
    /// What the figure is compared with.
    package let limit: Double
    /// Whether the test ends when it fails.
    package let abortsOnFail: Bool
    /// For how long from the test's start on it does not end the test, in nanoseconds.
    package let delayNanoseconds: UInt64

    /// The condition that `source` spells; the reason when it spells none.
    package static func parse(
        _ source: String, abortsOnFail: Bool = false, delayNanoseconds: UInt64 = 0
    ) -> Result<Threshold, OptionProblem> {
        var place: (index: String.Index, comparison: Comparison)?
        var index = source.startIndex
        while index < source.endIndex, place == nil {
            if let found = Comparison.allCases.first(where: { source[index...].hasPrefix($0.rawValue) }) {
                place = (index, found)
            }
            index = source.index(after: index)
        }
        guard let place else {
            return .failure(OptionProblem("threshold '\(source)': expected a comparison, such as p(95)<500"))
        }
        let figure = MetricRegistry.trimmed(source[..<place.index]).filter { !$0.isWhitespace }
        let behind = source.index(place.index, offsetBy: place.comparison.rawValue.count)
        let number = MetricRegistry.trimmed(source[behind...])
        guard let limit = Double(number), limit.isFinite else {
            return .failure(OptionProblem("threshold '\(source)': '\(number)' is not a number"))
        }
        let names = ["avg", "min", "max", "med", "count", "rate", "value"]
        guard names.contains(figure) || MetricSink.percentile(figure) != nil else {
            return .failure(
                OptionProblem(
                    "threshold '\(source)': '\(figure)' is none of \(names.joined(separator: ", ")) and p(0 to 100)"))
        }
        return .success(
            Threshold(
                source: source, figure: figure, comparison: place.comparison, limit: limit,
                abortsOnFail: abortsOnFail, delayNanoseconds: delayNanoseconds))
    }
}

/// The thresholds of one metric or part of one.
package struct MetricThresholds: Sendable, Equatable {
    /// What they are on, as it was written: `name` or `name{key:value}`.
    package let metric: String
    /// The conditions.
    package let thresholds: [Threshold]
    /// Where in the options they stand, for messages: `file:line`; empty when unknown.
    package let origin: String

    /// Thresholds on `metric`.
    package init(_ metric: String, _ thresholds: [Threshold], origin: String = "") {
        self.metric = metric
        self.thresholds = thresholds
        self.origin = origin
    }
}

/// What is wrong with an option, in one line.
package struct OptionProblem: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    /// The line.
    package init(_ description: String) { self.description = description }
}

/// The thresholds of a test, with the places of what they are on.
package struct ThresholdSet: Sendable {
    /// One threshold and how it stands.
    package struct Verdict: Sendable {
        /// What it is on, in the registry.
        package let place: Int
        /// The condition.
        package let threshold: Threshold
        /// Its figure; nil of a rate without samples, which passes.
        package let figure: Double?
        /// Whether it holds.
        package let isPassed: Bool
    }

    private let entries: [(place: Int, threshold: Threshold)]

    /// Finds the metrics and makes the parts that `options` name. Throws all that is wrong: metrics that there are not,
    /// and figures that their kind does not have.
    package init(_ options: [MetricThresholds], _ registry: inout MetricRegistry) throws(OptionProblem) {
        var entries: [(place: Int, threshold: Threshold)] = []
        var problems: [String] = []
        for one in options {
            let prefix = one.origin.isEmpty ? "" : one.origin + ": "
            guard let place = registry.resolve(one.metric) else {
                problems.append("\(prefix)thresholds: there is no metric '\(one.metric)'")
                continue
            }
            let kind = registry.definition(place).kind
            for threshold in one.thresholds {
                if MetricSink(kind).figure(threshold.figure, seconds: 1) == nil {
                    problems.append(
                        "\(prefix)threshold '\(threshold.source)': \(one.metric) is a \(kind.rawValue), which has no "
                            + threshold.figure)
                }
                entries.append((place, threshold))
            }
        }
        guard problems.isEmpty else { throw OptionProblem(problems.joined(separator: "\n")) }
        self.entries = entries
    }

    /// Whether there are none.
    package var isEmpty: Bool { entries.isEmpty }

    /// How each stands, in their order.
    package func evaluate(_ sinks: [MetricSink], seconds: Double) -> [Verdict] {
        entries.map { entry in
            let sink = sinks[entry.place]
            // As in k6, figures of what has no samples are 0; but a rate has none then.
            let isKnown = !sink.isEmpty || sink.kind != .rate
            let figure = isKnown ? sink.figure(entry.threshold.figure, seconds: seconds) : nil
            return Verdict(
                place: entry.place, threshold: entry.threshold, figure: figure,
                isPassed: figure.map { entry.threshold.comparison.holds($0, entry.threshold.limit) } ?? true)
        }
    }

    /// The first that fails and ends the test, when it has run for `nanoseconds`; nil when none does. What has no
    /// samples yet ends nothing: so it is in k6.
    package func abort(_ sinks: [MetricSink], nanoseconds: UInt64) -> Verdict? {
        evaluate(sinks, seconds: Double(nanoseconds) / 1e9).first {
            !$0.isPassed && $0.threshold.abortsOnFail && nanoseconds >= $0.threshold.delayNanoseconds
                && !sinks[$0.place].isEmpty
        }
    }
}
