// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A metric with all the tags of some of its samples: what Prometheus calls a series.
package struct SeriesKey: Hashable, Sendable {
    /// The metric's place in the registry.
    package let metric: Int
    /// All tags of the samples.
    package let tags: [String: String]

    /// A series.
    package init(_ metric: Int, _ tags: [String: String]) {
        self.metric = metric
        self.tags = tags
    }
}

/// What was gathered by metric and tags, of a limited number of them.
package struct SeriesTable: Sendable {
    /// Series at most: a tag with ever new values must not fill the memory. A trend's takes 64 KiB.
    package static let limit = 2000

    /// What each gathered.
    package private(set) var all: [SeriesKey: MetricSink] = [:]
    /// Samples that found no room.
    package private(set) var leftOut: UInt64 = 0

    /// An empty one.
    package init() {}

    /// Whether there is none.
    package var isEmpty: Bool { all.isEmpty }

    /// Adds what another place gathered of a series.
    package mutating func merge(_ key: SeriesKey, _ sink: MetricSink) {
        if all[key] != nil || all.count < Self.limit {
            all[key, default: MetricSink(sink.kind)].add(sink)
        } else {
            leftOut &+= sink.kind == .trend ? sink.trend.count : sink.samples
        }
    }

    /// Takes a sample of a series of that kind.
    package mutating func add(_ key: SeriesKey, _ kind: MetricKind, _ value: Double) {
        if all[key] != nil || all.count < Self.limit {
            all[key, default: MetricSink(kind)].add(value)
        } else {
            leftOut &+= 1
        }
    }

    /// Adds what another thread gathered.
    package mutating func merge(_ other: SeriesTable) {
        for (key, sink) in other.all { merge(key, sink) }
        leftOut &+= other.leftOut
    }
}
