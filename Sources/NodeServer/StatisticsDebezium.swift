// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import StreamKafka
internal import Telemetry

/// What `stats stream` and /metrics tell of a Debezium connector's topic.
extension Node {
    func add(_ debezium: DebeziumFigures, to list: inout StatisticsList) {
        list.add("debezium_topic", debezium.topic)
        list.add("debezium_reads", debezium.reads)
        if !debezium.reason.isEmpty { list.add("debezium_reason", debezium.reason) }
        for (name, _, value) in Self.counters(debezium) { list.add("debezium_\(name)", value) }
        list.add("debezium_behind", debezium.behind)
        list.add("debezium_stalled_seconds", UInt64(debezium.stalledSeconds))
        list.add("debezium_schemas", debezium.schemas)
    }

    /// What is counted: name, help, value.
    private static func counters(_ debezium: DebeziumFigures) -> [(name: String, help: String, value: UInt64)] {
        [
            ("messages", "Messages of Debezium's that were read.", debezium.messages),
            ("changes", "Changes that came of them.", debezium.changes),
            ("damaged", "Messages that could not be understood.", debezium.damaged),
            ("overruns", "Times that messages were gone before they were read.", debezium.overruns),
            ("snapshots", "Snapshots of the connector, for which all copies were given up.", debezium.snapshots),
            (
                "schema_failures", "Times that the registry did not tell the schema of a message.",
                debezium.schemaFailures
            ),
        ]
    }

    func append(_ debezium: DebeziumFigures, to page: inout Exposition) {
        page.gauge(
            "martlet_stream_debezium_reading", "1 where this node reads, rather than another with the same database.",
            debezium.reads ? 1 : 0)
        page.gauge(
            "martlet_stream_debezium_behind", "Messages that brokers have and that were not read.", debezium.behind)
        page.gauge(
            "martlet_stream_debezium_stalled_seconds",
            "How long this node could not read, or had messages before it and took none; 0 where another node reads.",
            UInt64(debezium.stalledSeconds))
        page.gauge(
            "martlet_stream_debezium_schemas", "Schemas of messages that are known from the registry.",
            debezium.schemas)
        for (name, help, value) in Self.counters(debezium) {
            page.counter("martlet_stream_debezium_\(name)_total", help, value)
        }
    }
}
