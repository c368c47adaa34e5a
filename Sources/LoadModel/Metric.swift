// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a metric makes of its samples.
package enum MetricKind: String, Sendable, CaseIterable {
    case counter, gauge, rate, trend
}

/// What a metric's numbers are, for showing them.
package enum MetricContent: String, Sendable {
    /// A number of no unit.
    case plain = "default"
    /// Milliseconds.
    case time
    /// Bytes.
    case data
}

/// A metric by name.
package struct MetricDefinition: Sendable, Equatable {
    /// The name: a letter or underscore, then letters, digits and underscores, 128 at most.
    package let name: String
    /// What it makes of its samples.
    package let kind: MetricKind
    /// What its numbers are.
    package let content: MetricContent

    /// A metric.
    package init(_ name: String, _ kind: MetricKind, _ content: MetricContent = .plain) {
        self.name = name
        self.kind = kind
        self.content = content
    }

    /// Whether `name` may name a metric.
    package static func isName(_ name: String) -> Bool {
        guard let first = name.unicodeScalars.first, name.utf8.count <= 128 else { return false }
        func isLetter(_ scalar: Unicode.Scalar) -> Bool {
            scalar == "_" || ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar)
        }
        return isLetter(first) && name.unicodeScalars.allSatisfy { isLetter($0) || ("0"..."9").contains($0) }
    }
}

/// What a metric, or a part of it by tags, has gathered.
package struct MetricSink: Sendable {
    /// How its samples are gathered.
    package let kind: MetricKind
    /// Of a trend: its samples.
    package var trend = ValueHistogram()
    /// Of a counter: its sum. Of a gauge: its latest value.
    package var value = 0.0
    /// How many samples there were (of a trend: see ``trend``).
    package var samples: UInt64 = 0
    /// Of a rate: how many samples were not 0.
    package var passes: UInt64 = 0
    /// Of a gauge.
    package var minimum = 0.0
    /// Of a gauge.
    package var maximum = 0.0

    /// An empty one.
    package init(_ kind: MetricKind) { self.kind = kind }

    /// Whether nothing was gathered.
    package var isEmpty: Bool { kind == .trend ? trend.count == 0 : samples == 0 }

    /// Takes a sample.
    package mutating func add(_ sample: Double) {
        switch kind {
        case .trend: trend.record(sample)
        case .counter:
            value += sample
            samples &+= 1
        case .rate:
            samples &+= 1
            if sample != 0 { passes &+= 1 }
        case .gauge:
            value = sample
            minimum = samples == 0 ? sample : min(minimum, sample)
            maximum = samples == 0 ? sample : max(maximum, sample)
            samples &+= 1
        }
    }

    /// Takes so many samples of 1 at once, or of a rate, of which `passes` were not 0.
    package mutating func add(count: UInt64, passes passed: UInt64 = 0) {
        guard count > 0 else { return }
        samples &+= count
        passes &+= passed
        if kind == .counter { value += Double(count) }
    }

    /// Takes what another thread's sink of the same metric gathered. Of two gauges the one with more samples names the
    /// latest value.
    package mutating func add(_ other: MetricSink) {
        guard !other.isEmpty else { return }
        switch kind {
        case .trend: trend.add(other.trend)
        case .counter: value += other.value
        case .rate: passes &+= other.passes
        case .gauge:
            if other.samples >= samples { value = other.value }
            minimum = samples == 0 ? other.minimum : min(minimum, other.minimum)
            maximum = samples == 0 ? other.maximum : max(maximum, other.maximum)
        }
        samples &+= other.samples
    }

    /// The share of samples that were not 0; 0 without samples.
    package var rate: Double { samples == 0 ? 0 : Double(passes) / Double(samples) }

    /// The figure called `name` in thresholds and summaries (`avg`, `min`, `max`, `med`, `p(95)`, `count`, `rate`,
    /// `value`); nil when this kind of metric has none of that name. `seconds` is how long the test has run.
    package func figure(_ name: String, seconds: Double) -> Double? {
        switch (kind, name) {
        case (.counter, "count"): return value
        case (.counter, "rate"): return seconds > 0 ? value / seconds : 0
        case (.gauge, "value"): return value
        case (.rate, "rate"): return rate
        case (.trend, "avg"): return trend.mean
        case (.trend, "min"): return trend.minimum
        case (.trend, "max"): return trend.maximum
        case (.trend, "med"): return trend.quantile(0.5)
        case (.trend, "count"): return Double(trend.count)
        case (.trend, _): return Self.percentile(name).map { trend.quantile($0 / 100) }
        default: return nil
        }
    }

    /// The number in `p(99.9)`: 0 to 100; nil when `name` is no percentile.
    package static func percentile(_ name: String) -> Double? {
        guard name.hasPrefix("p("), name.hasSuffix(")"), let number = Double(name.dropFirst(2).dropLast()),
            (0...100).contains(number)
        else { return nil }
        return number
    }
}
