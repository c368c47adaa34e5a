// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
package import Admin
internal import Platform
package import Telemetry

/// What `/stats.json` says of a server beside its lists, alike for nodes and routers: the console and `martletctl top`
/// read it.
package struct StatusDocument: Sendable {
    /// `node` or `router`.
    package var role: String
    /// How far the program is: ``Drain/Phase``.
    package var phase: Drain.Phase
    /// What readiness looks at.
    package var checks: [HealthCheck]
    /// Latencies since the start, by name.
    package var latencies: [(name: String, histogram: HistogramSnapshot)]
    /// The configuration's digest and what became of others: ``ConfigurationRecord/json``.
    package var configuration: String
    /// What happened; the last of it is shown.
    package var events: EventLog

    /// A server's status.
    package init(
        role: String, phase: Drain.Phase, checks: [HealthCheck],
        latencies: [(name: String, histogram: HistogramSnapshot)], configuration: String, events: EventLog
    ) {
        self.role = role
        self.phase = phase
        self.checks = checks
        self.latencies = latencies
        self.configuration = configuration
        self.events = events
    }

    /// Events that are shown.
    private static let eventLimit = 24

    /// The members of the object, without its braces. Counts of a histogram are by bucket, the unbounded one last.
    package var members: String {
        let checks = self.checks.map { check in
            "{\"name\":\(JSONString.quoted(check.name)),\"failure\":\(check.failure.map(JSONString.quoted) ?? "null"),"
                + "\"advisory\":\(check.isAdvisory)}"
        }
        let bounds = (0..<LatencyHistogram.boundedBucketCount).map { index in
            "\(LatencyHistogram.boundNanoseconds(index) / 1000)"
        }
        let histograms = latencies.map { name, histogram in
            "\(JSONString.quoted(name)):[\(histogram.counts.map { "\($0)" }.joined(separator: ","))]"
        }
        return "\"role\":\(JSONString.quoted(role)),\"phase\":\"\(phase.rawValue)\","
            + "\"version\":\(JSONString.quoted(ProductVersion.martlet)),"
            + "\"monotonicMicroseconds\":\(Clock.monotonicNanoseconds() / 1000),"
            + "\"checks\":[\(checks.joined(separator: ","))],"
            + "\"latencyBoundsMicroseconds\":[\(bounds.joined(separator: ","))],"
            + "\"latencies\":{\(histograms.joined(separator: ","))},\"configuration\":\(configuration),"
            + "\"events\":[\(events.last(Self.eventLimit).joined(separator: ","))]"
    }
}
