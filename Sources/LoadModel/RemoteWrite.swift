// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A test's metrics as Prometheus takes them: messages of its remote-write protocol. Pure.
///
/// Names are k6's: `k6_`, the metric's name, and `_total` behind counters, `_rate` behind rates, the figure behind
/// trends (`_p99`, `_avg`). Times are in seconds. Each set of tags is a series of its own; where samples were not kept
/// apart by tags, the metric is, and the parts of it that thresholds name. Sources: "Prometheus remote write" in k6's
/// documentation; Prometheus's remote write specification 1.0; Google's snappy format description.
package struct RemoteWrite: Sendable {
    /// The figures of trends that are sent: `count`, `sum`, `min`, `max`, `avg`, `med` and `p(N)`.
    package var trendStats = ["p(99)"]
    /// Tags of all samples.
    package var tags: [String: String] = [:]

    /// With k6's ordinary figures.
    package init() {}

    /// Whether a trend has a figure of that name.
    package static func isTrendStat(_ name: String) -> Bool {
        ["count", "sum", "min", "max", "avg", "med"].contains(name) || MetricSink.percentile(name) != nil
    }

    /// One series' latest value.
    package struct Sample: Sendable, Equatable {
        /// Names and values, in the order of the names' bytes.
        package var labels: [(name: String, value: String)]
        /// The value.
        package var value: Double

        /// The mark that the series has ended.
        package var stale: Sample { Sample(labels: labels, value: RemoteWrite.staleMarker) }

        /// Whether both have the same labels and value.
        package static func == (one: Sample, other: Sample) -> Bool {
            one.value == other.value && one.labels.elementsEqual(other.labels) { $0 == $1 }
        }
    }

    /// The value that says that a series has ended. Source: Prometheus's value.StaleNaN.
    package static let staleMarker = Double(bitPattern: 0x7ff0_0000_0000_0002)

    /// What `sinks` and `series`, all that was gathered so far, come to. As in k6, a metric that was gathered by tags
    /// is sent by tags only: their sum is the metric's.
    package func samples(
        _ registry: MetricRegistry, _ sinks: [MetricSink], _ series: SeriesTable = SeriesTable()
    ) -> [Sample] {
        var all: [(place: Int, sink: MetricSink, tags: [String: String])] = []
        let known = Set(series.all.keys.map(\.metric))
        for place in sinks.indices where !sinks[place].isEmpty && !known.contains(place) {
            var own = tags
            if case .part(let part) = registry.places[place] {
                // Among the series there are its own.
                if !series.isEmpty { continue }
                own.merge(part.tags) { $1 }
            }
            all.append((place, sinks[place], own))
        }
        for (key, sink) in series.all where !sink.isEmpty {
            all.append((key.metric, sink, tags.merging(key.tags) { $1 }))
        }
        var samples: [Sample] = []
        for (place, sink, own) in all {
            let definition = registry.definition(place)
            func add(_ suffix: String, _ value: Double) {
                samples.append(Sample(labels: labels("k6_\(definition.name)\(suffix)", own), value: value))
            }
            switch definition.kind {
            case .counter: add("_total", sink.value)
            case .gauge: add("", sink.value)
            case .rate: add("_rate", sink.rate)
            case .trend:
                for stat in trendStats {
                    let figure =
                        stat == "sum" ? sink.trend.mean * Double(sink.trend.count) : sink.figure(stat, seconds: 1)
                    guard let figure else { continue }
                    let isTime = definition.content == .time && stat != "count"
                    add("_" + Self.suffix(stat), isTime ? figure / 1_000 : figure)
                }
            }
        }
        return samples
    }

    private static func suffix(_ stat: String) -> String {
        String(stat.filter { $0 != "(" && $0 != ")" }.map { $0 == "." ? "_" : $0 })
    }

    private func labels(_ name: String, _ tags: [String: String]) -> [(name: String, value: String)] {
        var labels = tags.map { (name: Self.labelName($0.key), value: $0.value) }.filter { !$0.value.isEmpty }
        labels.append((name: "__name__", value: name))
        return labels.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
    }

    private static func labelName(_ tag: String) -> String {
        let mapped = String(
            tag.unicodeScalars.map { scalar -> Character in
                let isAllowed =
                    scalar == "_" || ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar)
                    || ("0"..."9").contains(scalar)
                return isAllowed ? Character(scalar) : "_"
            })
        return mapped.first?.isNumber == true ? "_" + mapped : mapped
    }

    /// The message that says so: a WriteRequest, compressed. `milliseconds` are since 1970.
    package static func message(_ samples: [Sample], milliseconds: Int64) -> [UInt8] {
        var request: [UInt8] = []
        for sample in samples {
            var series: [UInt8] = []
            for label in sample.labels {
                var pair: [UInt8] = []
                append(Array(label.name.utf8), field: 1, to: &pair)
                append(Array(label.value.utf8), field: 2, to: &pair)
                append(pair, field: 1, to: &series)
            }
            var point: [UInt8] = [1 << 3 | 1]
            for shift in stride(from: 0, to: 64, by: 8) {
                point.append(UInt8(truncatingIfNeeded: sample.value.bitPattern >> UInt64(shift)))
            }
            point.append(2 << 3)
            append(UInt64(bitPattern: milliseconds), to: &point)
            append(point, field: 2, to: &series)
            append(series, field: 1, to: &request)
        }
        return snappy(request)
    }

    /// A field of bytes. Source: Protocol Buffers' encoding, wire type 2.
    private static func append(_ bytes: [UInt8], field: UInt8, to target: inout [UInt8]) {
        target.append(field << 3 | 2)
        append(UInt64(bytes.count), to: &target)
        target += bytes
    }

    private static func append(_ number: UInt64, to target: inout [UInt8]) {
        var rest = number
        while rest >= 128 {
            target.append(UInt8(truncatingIfNeeded: rest) | 128)
            rest >>= 7
        }
        target.append(UInt8(rest))
    }

    /// Snappy's format with nothing but literals: whoever reads snappy reads it, and messages are small.
    package static func snappy(_ bytes: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        append(UInt64(bytes.count), to: &result)
        var start = 0
        while start < bytes.count {
            let length = min(bytes.count - start, 1 << 16)
            // A literal whose length less one follows in two bytes.
            result.append(61 << 2)
            result.append(UInt8(truncatingIfNeeded: length - 1))
            result.append(UInt8(truncatingIfNeeded: (length - 1) >> 8))
            result += bytes[start..<start + length]
            start += length
        }
        return result
    }
}
