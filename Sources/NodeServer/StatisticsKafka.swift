// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import StreamKafka
internal import Telemetry

/// What `stats stream` and /metrics tell of the Kafka transport.
extension Node {
    func add(_ kafka: KafkaFigures, to list: inout StatisticsList) {
        list.add("transport", "kafka")
        list.add("kafka_topic", kafka.topic)
        if let publisher = kafka.publisher {
            list.add("kafka_leads", publisher.leads)
            if !kafka.registryReason.isEmpty { list.add("kafka_registry_reason", kafka.registryReason) }
            add(publisher, "kafka", to: &list)
        }
        if let state = kafka.state {
            list.add("kafka_state_topic", kafka.stateTopic)
            add(state, "kafka_state", to: &list)
        }
        if let follower = kafka.follower {
            list.add("kafka_connected", follower.isConnected)
            list.add("kafka_ahead_ms", follower.aheadMilliseconds)
            for (name, _, value) in Self.counters(follower) { list.add("kafka_\(name)", value) }
            list.add("kafka_behind", follower.behind)
        }
    }

    private func add(_ publisher: KafkaFigures.Publisher, _ prefix: String, to list: inout StatisticsList) {
        if !publisher.reason.isEmpty { list.add("\(prefix)_reason", publisher.reason) }
        for (name, _, value) in Self.counters(publisher) { list.add("\(prefix)_\(name)", value) }
        list.add("\(prefix)_waiting", publisher.waiting)
        list.add("\(prefix)_backlog", publisher.backlog)
        list.add("\(prefix)_schema", publisher.schema.map { "\($0)" } ?? "none")
    }

    /// What is counted of a publisher: name, help, value.
    private static func counters(
        _ publisher: KafkaFigures.Publisher
    ) -> [(name: String, help: String, value: UInt64)] {
        [
            ("published", "Records that brokers have acknowledged.", publisher.published),
            ("published_bytes", "Bytes of such records.", publisher.publishedBytes),
            ("heartbeats", "Heartbeats that brokers have acknowledged.", publisher.heartbeats),
            ("failures", "Messages that brokers refused for good.", publisher.failures),
            ("restarts", "Producers that were made anew after a failure.", publisher.restarts),
            ("restored", "Rows put into the topic of states again, behind others' messages.", publisher.restored),
            ("lost", "Times that records of a slot were gone before they were published.", publisher.lost),
        ]
    }

    /// What is counted of a follower: name, help, value.
    private static func counters(
        _ follower: KafkaFigures.Follower
    ) -> [(name: String, help: String, value: UInt64)] {
        [
            ("messages", "Messages that came.", follower.messages),
            ("overruns", "Times that brokers had let go what comes next of a partition.", follower.overruns),
            ("rejoins", "Partitions that were joined anew, because brokers had lost messages.", follower.rejoins),
            ("fetches", "Times that the home region was asked for what was missing.", follower.fetches),
            ("replayed", "Records that were read again on an operator's behalf.", follower.replayed),
            ("skewed", "Heartbeats from further in the future than clocks may differ.", follower.skewed),
        ]
    }

    func append(_ kafka: KafkaFigures, to page: inout Exposition) {
        appendPublishers(kafka, to: &page)
        guard let follower = kafka.follower else { return }
        page.gauge("martlet_stream_kafka_connected", "1 while messages come.", follower.isConnected ? 1 : 0)
        page.gauge("martlet_stream_kafka_behind", "Messages that brokers have and that did not come.", follower.behind)
        for (name, help, value) in Self.counters(follower) {
            page.counter("martlet_stream_kafka_\(name)_total", help, value)
        }
        page.family(
            "martlet_stream_kafka_ahead_seconds", .gauge,
            help: "By how much the source's clock was ahead of this node's at most.")
        page.sample(Double(follower.aheadMilliseconds) / 1000)
    }

    private func appendPublishers(_ kafka: KafkaFigures, to page: inout Exposition) {
        let all = [(kafka.topic, kafka.publisher), (kafka.stateTopic, kafka.state)]
        let publishers = all.compactMap { topic, figures in figures.map { (topic: topic, figures: $0) } }
        guard let first = publishers.first?.figures else { return }
        func gauge(_ name: String, _ help: String, _ value: (KafkaFigures.Publisher) -> UInt64) {
            page.family("martlet_stream_kafka_\(name)", .gauge, help: help)
            for (topic, figures) in publishers { page.sample(value(figures), ("topic", topic)) }
        }
        gauge("leads", "1 where this node publishes, rather than another with the same stream.") { $0.leads ? 1 : 0 }
        gauge("publishing", "1 while this node publishes, and nothing hinders it.") {
            $0.leads && $0.reason.isEmpty ? 1 : 0
        }
        gauge("waiting", "Messages that no broker has yet.") { UInt64($0.waiting) }
        gauge("backlog", "Committed records that brokers have not acknowledged.") { UInt64(clamping: $0.backlog) }
        gauge("schema", "The number of the records' schema in the registry; 0 while there is none.") {
            UInt64($0.schema ?? 0)
        }
        for (index, counter) in Self.counters(first).enumerated() {
            page.family("martlet_stream_kafka_\(counter.name)_total", .counter, help: counter.help)
            for (topic, figures) in publishers { page.sample(Self.counters(figures)[index].value, ("topic", topic)) }
        }
    }
}
