// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import Platform
internal import Reactor
package import Telemetry
internal import Tracing

/// What one page of metrics is made from: read once, so that its families agree with each other.
struct MetricsReading {
    /// Since the start: /metrics does not know `stats reset`, or rates would break.
    let figures: NodeFigures
    let classes: [QueueClass]
    let usage: ProcessUsage
    /// The clock's second.
    let now: UInt32
}

extension Node {
    /// Writes every metric of the node: those of prometheus/memcached_exporter under its names, types and labels, so
    /// that its dashboards and alerts go on, and our own with the prefix `martlet_`. Takes every shard's lock in turn.
    /// Sources: memcached_exporter's metrics.md; prometheus.io "Metric and label naming".
    package func appendMetrics(to exposition: inout Exposition) {
        let figures = figures()
        let reading = MetricsReading(
            figures: figures, classes: queueClasses(figures), usage: .current(), now: clock.now())
        appendServerMetrics(reading, to: &exposition)
        appendConnectionMetrics(reading, to: &exposition)
        appendCommandMetrics(reading, to: &exposition)
        appendItemMetrics(reading, to: &exposition)
        appendCrawlerMetrics(reading, to: &exposition)
        appendSlabMetrics(reading, to: &exposition)
        appendProcessMetrics(reading, to: &exposition)
        appendLatencyMetrics(to: &exposition)
        appendEngineMetrics(reading, to: &exposition)
        appendMemoryMetrics(to: &exposition)
        appendReactorMetrics(reading, to: &exposition)
        appendPrefixMetrics(to: &exposition)
        appendHotKeyMetrics(to: &exposition)
        appendStorageMetrics(to: &exposition)
        appendStreamMetrics(to: &exposition)
        appendOverloadMetrics(to: &exposition)
        tracing.appendMetrics(to: &exposition, prefix: "martlet_trace")
        configurationRecord.appendMetrics(to: &exposition, prefix: "martlet_config")
        tenants.appendMetrics(to: &exposition, prefix: "martlet_tenant")
    }
}

extension Exposition {
    /// A counter without labels.
    mutating func counter(_ name: String, _ help: String, _ value: UInt64) {
        family(name, .counter, help: help)
        sample(value)
    }

    /// A gauge without labels.
    mutating func gauge(_ name: String, _ help: String, _ value: some BinaryInteger) {
        family(name, .gauge, help: help)
        sample(UInt64(clamping: value))
    }

    /// A counter of seconds without labels.
    mutating func counter(_ name: String, _ help: String, microseconds: UInt64) {
        family(name, .counter, help: help)
        sample(Double(microseconds) / 1e6)
    }
}
