// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import Settings
internal import StreamKafka

/// `stream.kafka`: the brokers that carry the stream between regions.
extension RegionSettings {
    /// The settings.
    static let kafkaSettings: [Setting] = [
        Setting("stream.kafka.brokers", .list, "Where brokers are: host:port, several with commas."),
        Setting("stream.kafka.topic", .text, "Topic of the stream, of 64 partitions or more; inv.CLUSTER when absent."),
        Setting(
            "stream.kafka.stateTopic", .text,
            "Compacted topic that gets the last state of each key, of 64 partitions or more; none when absent."),
        Setting(
            "stream.kafka.security",
            .enumeration(StreamKafkaConfiguration.Security.allCases.map(\.rawValue)), default: "plaintext",
            "How brokers are spoken to, in Kafka's words."),
        Setting("stream.kafka.ca", .text, "Certificates that sign those of brokers, in PEM; the system's when absent."),
        Setting(
            "stream.kafka.crl", .text,
            "Certificate revocation lists, in PEM, of the authorities that sign brokers' certificates: who is in them "
                + "is no broker. Read at the start."),
        Setting("stream.kafka.certificate", .text, "Certificate that brokers are shown, in PEM."),
        Setting("stream.kafka.key", .text, "Its private key, when the certificate's file does not hold it."),
        Setting("stream.kafka.keyPassword", .text, secret: true, "What the private key is encrypted with."),
        Setting(
            "stream.kafka.mechanism", .enumeration(["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]), default: "PLAIN",
            "How to log in, with sasl_ssl and sasl_plaintext."),
        Setting("stream.kafka.username", .text, "Who logs in."),
        Setting("stream.kafka.password", .text, secret: true, "The password."),
        Setting(
            "stream.kafka.clockSkew", .duration(0...500_000_000), default: "250ms",
            "By how much the clocks of home and of this node may differ: copies count as so much older."),
        Setting(
            "stream.kafka.registry", .text,
            "Schema registry where home's nodes register the records' schema, and which tells those of Debezium's "
                + "messages in Avro: http:// or https://."),
        Setting("stream.kafka.registryUsername", .text, "Who logs in at the registry."),
        Setting("stream.kafka.registryPassword", .text, secret: true, "The password at the registry."),
        Setting(
            "stream.kafka.registryCa", .text,
            "Certificates that sign the registry's, in PEM; the system's when absent."),
        Setting(
            "stream.kafka.debezium", .text,
            "postgres: topic of a Debezium connector that tells of changes of the table of rows, in JSON or, with "
                + "stream.kafka.registry, in Avro; also with stream.transport direct."),
    ]

    /// Settings that say what is carried, rather than who brokers are.
    private static let transportSettings = ["topic", "stateTopic", "clockSkew"].map { "stream.kafka.\($0)" }

    /// Reads the settings; adds what is wrong with them. What carries the stream is nil where it goes another way, and
    /// what is read of Debezium's where nothing is.
    static func kafka(
        _ values: SettingsValues, _ problems: inout [String]
    ) -> (transport: StreamKafkaConfiguration?, debezium: StreamKafkaConfiguration?) {
        let isTransport = values.text("stream.transport") == "kafka"
        let topic = values.text("stream.kafka.debezium")
        if !isTransport {
            let idle = topic == nil ? kafkaSettings.map(\.name) : transportSettings
            if let name = idle.first(where: { values.isSet($0) }) {
                problems.append("\(name): stream.transport is direct; this setting is of kafka")
            }
            if topic == nil { return (nil, nil) }
        }
        let kafka = brokers(values, &problems)
        let debezium = topic.map { topic in
            var debezium = kafka
            (debezium.topic, debezium.stateTopic) = (topic, nil)
            checkTopic("debezium", topic, &problems)
            if isTransport, topic == kafka.topic || topic == kafka.stateTopic {
                problems.append("stream.kafka.debezium: is a topic of the stream's own")
            }
            return debezium
        }
        return (isTransport ? kafka : nil, debezium)
    }

    private static func brokers(
        _ values: SettingsValues, _ problems: inout [String]
    ) -> StreamKafkaConfiguration {
        var kafka = StreamKafkaConfiguration()
        kafka.brokers = values.list("stream.kafka.brokers")
        kafka.topic = values.text("stream.kafka.topic") ?? "inv.\(values.text("cluster") ?? "main")"
        kafka.stateTopic = values.text("stream.kafka.stateTopic")
        kafka.security =
            values.text("stream.kafka.security").flatMap(StreamKafkaConfiguration.Security.init) ?? .plaintext
        kafka.authorityPath = values.text("stream.kafka.ca")
        kafka.revocationPath = values.text("stream.kafka.crl")
        kafka.certificatePath = values.text("stream.kafka.certificate")
        kafka.keyPath = values.text("stream.kafka.key")
        kafka.keyPassword = values.text("stream.kafka.keyPassword")
        kafka.mechanism = values.text("stream.kafka.mechanism") ?? "PLAIN"
        kafka.username = values.text("stream.kafka.username")
        kafka.password = values.text("stream.kafka.password")
        kafka.skewNanoseconds = values.duration("stream.kafka.clockSkew")
        checkBrokers(kafka, &problems)
        checkTopics(kafka, &problems)
        checkLogin(kafka, &problems)
        kafka.registry = registry(values, &problems)
        return kafka
    }

    private static func checkBrokers(_ kafka: StreamKafkaConfiguration, _ problems: inout [String]) {
        if kafka.brokers.isEmpty {
            problems.append("stream.kafka.brokers: missing; Kafka needs host:port of one or more")
        }
        for broker in kafka.brokers {
            guard let endpoint = AdminEndpoint(broker), broker.contains(":") else {
                problems.append("stream.kafka.brokers: \"\(broker)\" is not valid; expected host:port")
                continue
            }
            if !kafka.security.isEncrypted, !isLoopback(endpoint.host) {
                problems.append(
                    "stream.kafka.security: \(kafka.security.rawValue); without TLS brokers are at loopback addresses "
                        + "only, not \(endpoint.host): expected ssl or sasl_ssl")
            }
        }
    }

    private static func checkTopics(_ kafka: StreamKafkaConfiguration, _ problems: inout [String]) {
        checkTopic("topic", kafka.topic, &problems)
        checkTopic("stateTopic", kafka.stateTopic ?? "unset", &problems)
        if kafka.topic == kafka.stateTopic {
            problems.append("stream.kafka.stateTopic: is the stream's own topic; compaction would make gaps there")
        }
    }

    private static func checkTopic(_ name: String, _ topic: String, _ problems: inout [String]) {
        let isValid = topic.utf8.allSatisfy { byte in
            (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
                || [45, 46, 95].contains(byte)
        }
        if !isValid || topic.isEmpty || topic.utf8.count > 249 || topic == "." || topic == ".." {
            problems.append(
                "stream.kafka.\(name): \"\(topic)\" is not valid; expected 1 to 249 letters, digits, points, "
                    + "dashes and underscores")
        }
    }

    private static func checkLogin(_ kafka: StreamKafkaConfiguration, _ problems: inout [String]) {
        let security = "stream.kafka.security is \(kafka.security.rawValue)"
        if !kafka.security.isEncrypted {
            let files = [
                ("ca", kafka.authorityPath), ("crl", kafka.revocationPath), ("certificate", kafka.certificatePath),
                ("key", kafka.keyPath), ("keyPassword", kafka.keyPassword),
            ]
            if let (name, _) = files.first(where: { $0.1 != nil }) {
                problems.append("stream.kafka.\(name): \(security); expected ssl or sasl_ssl with it")
            }
        } else if kafka.certificatePath == nil, kafka.keyPath != nil || kafka.keyPassword != nil {
            problems.append("stream.kafka.certificate: missing; the key is nothing without it")
        }
        if kafka.security.hasLogin {
            if kafka.username?.isEmpty ?? true { problems.append("stream.kafka.username: missing; \(security)") }
            if kafka.password?.isEmpty ?? true { problems.append("stream.kafka.password: missing; \(security)") }
        } else if kafka.username != nil || kafka.password != nil {
            let name = kafka.username == nil ? "password" : "username"
            problems.append("stream.kafka.\(name): \(security); expected sasl_ssl or sasl_plaintext with it")
        }
    }

    private static func registry(
        _ values: SettingsValues, _ problems: inout [String]
    ) -> StreamKafkaConfiguration.Registry? {
        let (name, password) = (
            values.text("stream.kafka.registryUsername"), values.text("stream.kafka.registryPassword")
        )
        guard let url = values.text("stream.kafka.registry") else {
            if name != nil || password != nil || values.isSet("stream.kafka.registryCa") {
                problems.append("stream.kafka.registry: missing; its other settings are nothing without it")
            }
            return nil
        }
        let rest = ["http://", "https://"].first { url.hasPrefix($0) }.map { url.dropFirst($0.utf8.count) }
        let authority = rest?.prefix { $0 != "/" } ?? ""
        let isPlain = url.utf8.allSatisfy { (33...126).contains($0) }
        // A password in it would be shown wherever the setting is.
        if authority.isEmpty || !isPlain || authority.contains("@") {
            problems.append(
                "stream.kafka.registry: not valid; expected http://host:port or https://host:port, and a login in "
                    + "registryUsername and registryPassword")
            return nil
        }
        let isBracketed = authority.hasPrefix("[")
        let host = isBracketed ? authority.dropFirst().prefix { $0 != "]" } : authority.prefix { $0 != ":" }
        if password != nil, url.hasPrefix("http://"), !isLoopback(String(host)) {
            problems.append("stream.kafka.registry: http; a password goes over https only, but for loopback addresses")
        }
        if (name == nil) != (password == nil) {
            let missing = name == nil ? "Username" : "Password"
            problems.append("stream.kafka.registry\(missing): missing; a login is a name and a password")
        }
        var registry = StreamKafkaConfiguration.Registry(url: url)
        (registry.username, registry.password) = (name, password)
        registry.authorityPath = values.text("stream.kafka.registryCa")
        return registry
    }
}

extension RegionSettings {
    /// What the Kafka transport is told; nil where the stream goes another way.
    func kafkaTransport(defaultName: String, isShared: Bool) -> StreamKafkaConfiguration? {
        guard var kafka else { return nil }
        kafka.name = name ?? defaultName
        kafka.home = home?.name ?? ""
        kafka.carriesValues = wantsValues
        kafka.compresses = takesPacked
        kafka.isShared = isShared
        kafka.stream = invalidation
        return kafka
    }

    /// What is told who reads a Debezium connector's topic; nil where nobody does.
    func debeziumInput(defaultName: String) -> StreamKafkaConfiguration? {
        guard var debezium else { return nil }
        debezium.name = name ?? defaultName
        debezium.stream = invalidation
        return debezium
    }
}
