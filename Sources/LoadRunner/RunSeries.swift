// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel

/// How a test went over time: a point for about each second, of a fixed number at most.
struct RunSeries: Sendable {
    /// What happened since the point before.
    struct Point: Sendable {
        /// Seconds from the start to the end of the point, and from the point before.
        var time = 0.0
        var length = 0.0
        var requests = 0.0
        var failed = 0.0
        var sheds = 0.0
        var dropped = 0.0
        var users = 0.0
        /// Milliseconds.
        var median = 0.0
        var p90 = 0.0
        var p99 = 0.0
        var p999 = 0.0
        var maximum = 0.0
    }

    /// Points at most: beyond, every second one goes, and the rest are twice as far apart.
    static let limit = 7200

    private(set) var points: [Point] = []
    private var latest: [MetricSink] = []
    private var latestTime = 0.0
    private var stride = 1
    private var skipped = 0

    /// Adds a point up to now; `sinks` are all that was gathered since the start.
    mutating func add(_ sinks: [MetricSink], _ builtIn: BuiltInMetrics, nanoseconds: UInt64) {
        skipped += 1
        guard skipped >= stride else { return }
        skipped = 0
        func change(_ place: Int, _ figure: (MetricSink) -> Double) -> Double {
            figure(sinks[place]) - (latest.isEmpty ? 0 : figure(latest[place]))
        }
        // What a script does without requests is shown by its iterations.
        let hasRequests = sinks[builtIn.requestDuration].trend.count > 0
        let place = hasRequests ? builtIn.requestDuration : builtIn.iterationDuration
        let before = latest.isEmpty ? ValueHistogram() : latest[place].trend
        let trend = sinks[place].trend.since(before)
        var point = Point()
        point.time = Double(nanoseconds) / 1e9
        point.length = point.time - latestTime
        point.requests = change(hasRequests ? builtIn.requests : builtIn.iterations, \.value)
        point.failed = change(builtIn.requestFailed) { Double($0.passes) }
        point.sheds = change(builtIn.sheds, \.value)
        point.dropped = change(builtIn.droppedIterations, \.value)
        point.users = sinks[builtIn.vus].value
        point.median = trend.quantile(0.5)
        point.p90 = trend.quantile(0.9)
        point.p99 = trend.quantile(0.99)
        point.p999 = trend.quantile(0.999)
        point.maximum = trend.maximum
        points.append(point)
        latest = sinks
        latestTime = point.time
        guard points.count >= Self.limit else { return }
        points = points.enumerated().filter { $0.offset % 2 == 1 }.map(\.element)
        stride *= 2
    }
}
