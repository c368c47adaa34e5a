// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import Invalidation
internal import Storage
internal import StreamDirect
internal import Synchronization
internal import Telemetry

/// `stats stream`, and the same figures in /metrics.
extension Node {
    func streamStatistics() -> StatisticsList {
        var list = StatisticsList()
        let settings = configuration.regions
        guard settings.isOn else { return list }
        list.add("region", settings.own)
        list.add("role", (isHome.load(ordering: .acquiring) ? RegionSettings.Role.home : .replica).rawValue)
        if let term = home?.term {
            list.add("home_region", term.region)
            list.add("promotion", term.number)
        }
        if let (fence, seconds) = home?.standstill {
            list.add("standstill_by", fence.term.words)
            list.add("standstill_seconds", seconds)
        }
        guard let figures = streamFigures else { return list }
        list.add("source", figures.source)
        list.add("epoch", figures.epoch)
        if let stream { add(stream, figures, to: &list) }
        if let kafka = kafkaFigures { add(kafka, to: &list) }
        if let debezium = debeziumFigures { add(debezium, to: &list) }
        list.add("consumers", figures.consumers.count)
        list.add("consumers_refused", figures.refused)
        for (number, consumer) in figures.consumers.enumerated() {
            list.add("consumer:\(number):name", "\(consumer.region)/\(consumer.name)")
            list.add("consumer:\(number):backlog", consumer.backlog)
            list.add("consumer:\(number):sent_records", consumer.sentRecords)
            list.add("consumer:\(number):sent_bytes", consumer.sentBytes)
            list.add("consumer:\(number):wire_bytes", consumer.wireBytes)
        }
        addMonitor(to: &list)
        return list
    }

    private func add(_ stream: NodeStream, _ figures: StreamFigures, to list: inout StatisticsList) {
        if let home = figures.home {
            list.add("home", home)
            list.add("peer", figures.peer.isEmpty ? "none" : figures.peer)
            list.add("connections", figures.connections)
            list.add("losses", figures.losses)
        }
        if !figures.reason.isEmpty { list.add("reason", figures.reason) }
        if configuration.regions.monitorRate > 0 { list.add("monitored", figures.isMonitored) }
        list.add("trusted", stream.isTrusted)
        list.add("lag_seconds", stream.lagNanoseconds.map { fixedPoint(Double($0) / 1e9, decimals: 3) } ?? "unknown")
        list.add("quarantined_slots", stream.quarantinedSlots)
        list.add("backlog", figures.backlog)
        list.add("missing_slots", figures.missingSlots)
        for (name, _, value) in streamCounters(stream, figures) { list.add(name, value) }
    }

    /// What is counted of a stream that is followed: name, help, value.
    private func streamCounters(
        _ stream: NodeStream, _ figures: StreamFigures
    ) -> [(name: String, help: String, value: UInt64)] {
        let follower = figures.follower
        let followed: [(name: String, help: String, value: UInt64)] = [
            ("records", "Records that came in their order.", follower.records),
            ("duplicates", "Records that had come before.", follower.duplicates),
            ("gaps", "Times that records of a slot were missing.", follower.gaps),
            ("repairs", "Gaps that the source filled in time.", follower.repairs),
            ("quarantines", "Slots whose copies were given up.", follower.quarantines),
            ("epochs", "New epochs of the source.", follower.epochs),
            ("fenced", "Records of another epoch or source that were dropped.", follower.fenced),
            ("damaged", "Records that could not be read.", figures.damaged),
        ]
        return followed + StreamCounter.allCases.map { ("\($0)", $0.help, stream.counts[$0]) }
    }

    func appendStreamMetrics(to page: inout Exposition) {
        guard configuration.regions.isOn, let figures = streamFigures else { return }
        page.gauge(
            "martlet_stream_home", "1 while the node's region is home.", isHome.load(ordering: .acquiring) ? 1 : 0)
        let promotion = home?.term.number ?? 0
        page.gauge("martlet_stream_promotion", "The last promotion that is known; 0 before any.", promotion)
        page.gauge(
            "martlet_stream_standstill_seconds",
            "For how long the database has been fenced while the node's region is home, and nobody takes writes.",
            home?.standstill?.seconds ?? 0)
        if let stream {
            page.family(
                "martlet_stream_trusted", .gauge, help: "1 while copies are shown: the stream is within its bound.")
            page.sample(UInt64(stream.isTrusted ? 1 : 0))
            page.family(
                "martlet_stream_lag_seconds", .gauge,
                help: "Time since the stream was last known to be complete; -1 before the first time.")
            page.sample(stream.lagNanoseconds.map { Double($0) / 1e9 } ?? -1)
            page.gauge("martlet_stream_quarantined_slots", "Slots in quarantine.", stream.quarantinedSlots)
            page.gauge("martlet_stream_backlog", "Records that are known of and did not come yet.", figures.backlog)
            page.gauge("martlet_stream_missing_slots", "Slots that wait for missing records.", figures.missingSlots)
            for (name, help, value) in streamCounters(stream, figures) {
                page.counter("martlet_stream_\(name)_total", help, value)
            }
            page.counter("martlet_stream_connections_total", "Connections to the source.", figures.connections)
            page.counter("martlet_stream_losses_total", "Connections to it that failed or were lost.", figures.losses)
            if configuration.regions.monitorRate > 0 {
                page.gauge(
                    "martlet_stream_monitored", "1 while a consistency monitor can ask what the node has cached.",
                    figures.isMonitored ? 1 : 0)
            }
            var delay = HistogramSnapshot()
            delay.add(stream.delays)
            delay.add(stream.exemplars)
            page.family(
                "martlet_stream_delay_seconds", .histogram,
                help: "From a change's commit to its application here, by the clocks of both machines.")
            page.sample(delay)
        }
        if let kafka = kafkaFigures { append(kafka, to: &page) }
        if let debezium = debeziumFigures { append(debezium, to: &page) }
        page.gauge("martlet_stream_consumers", "Nodes that follow this one.", figures.consumers.count)
        page.counter("martlet_stream_refused_total", "Nodes that were refused.", figures.refused)
        page.family("martlet_stream_consumer_backlog", .gauge, help: "Records that a consumer was not sent yet.")
        for consumer in figures.consumers {
            page.sample(
                UInt64(clamping: consumer.backlog), ("region", consumer.region), ("consumer", consumer.name))
        }
        page.family("martlet_stream_consumer_sent_bytes_total", .counter, help: "Bytes of records that it was sent.")
        for consumer in figures.consumers {
            page.sample(consumer.sentBytes, ("region", consumer.region), ("consumer", consumer.name))
        }
        page.family(
            "martlet_stream_consumer_wire_bytes_total", .counter,
            help: "Bytes that this took on the wire, frames and packing included.")
        for consumer in figures.consumers {
            page.sample(consumer.wireBytes, ("region", consumer.region), ("consumer", consumer.name))
        }
        appendMonitorMetrics(to: &page)
    }
}
