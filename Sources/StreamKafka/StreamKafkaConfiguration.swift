// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Invalidation

/// What the Kafka transport is told, with its limits.
package struct StreamKafkaConfiguration: Sendable, Equatable {
    /// How brokers are spoken to, in Kafka's words.
    package enum Security: String, Sendable, CaseIterable {
        /// As it is: on one machine.
        case plaintext
        /// TLS.
        case ssl
        /// As it is, with a login.
        case saslPlaintext = "sasl_plaintext"
        /// TLS, with a login.
        case saslSSL = "sasl_ssl"

        /// Whether what is said cannot be read on the way.
        package var isEncrypted: Bool { self == .ssl || self == .saslSSL }
        /// Whether there is a login.
        package var hasLogin: Bool { self == .saslPlaintext || self == .saslSSL }
    }

    /// A schema registry.
    package struct Registry: Sendable, Equatable {
        /// Where it is: http:// or https://.
        package var url: String
        /// Who logs in; nil where nobody does.
        package var username: String?
        /// The password; secret.
        package var password: String?
        /// Authorities that its certificate may come from, PEM; nil for the system's.
        package var authorityPath: String?

        /// A registry at an address.
        package init(url: String) { self.url = url }
    }

    /// Where brokers are, as host:port.
    package var brokers: [String] = []
    /// The topic of the stream.
    package var topic = ""
    /// The compacted topic that has the last state of each key; nil where there is none.
    package var stateTopic: String?
    /// How brokers are spoken to.
    package var security = Security.plaintext
    /// Authorities that brokers' certificates may come from, PEM; nil for the system's.
    package var authorityPath: String?
    /// Lists of brokers' certificates that are revoked, PEM; nil where nobody looks. The library looks the broker's own
    /// certificate up, and reads the file when it is made.
    package var revocationPath: String?
    /// Our certificate, PEM; nil where brokers ask for none.
    package var certificatePath: String?
    /// Its key, PEM.
    package var keyPath: String?
    /// What the key is encrypted with; secret.
    package var keyPassword: String?
    /// How to log in, in Kafka's words: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    package var mechanism = "PLAIN"
    /// Who logs in.
    package var username: String?
    /// The password; secret.
    package var password: String?
    /// Where schemas are registered; nil where they are not.
    package var registry: Registry?
    /// What names us among the nodes of our region.
    package var name = ""
    /// The home region, whose stream it is.
    package var home = ""
    /// Whether values travel with the stream.
    package var carriesValues = false
    /// Whether batches are packed by LZ4.
    package var compresses = true
    /// Whether other nodes have the same stream to publish.
    package var isShared = false
    /// By how much the clocks of two machines may differ, in nanoseconds.
    package var skewNanoseconds: UInt64 = 250_000_000
    /// Bounds of the stream itself.
    package var stream = InvalidationConfiguration()
    /// The longest value that travels, in bytes: a broker takes messages of about a megabyte.
    package var valueMax = 900_000
    /// Records that were handed over and that no broker has yet, at most.
    package var waitingMax = 50_000
    /// Their bytes at most.
    package var waitingBytesMax = 32 << 20
    /// Bytes that are handed over before something else has its turn.
    package var turnBytes = 512 << 10
    /// How long a question to the brokers may take, in milliseconds.
    package var questionMilliseconds: Int32 = 1000
    /// How long reading the last records of the partitions may take, in nanoseconds.
    package var placingNanoseconds: UInt64 = 10_000_000_000
    /// Between attempts after a failure, in nanoseconds; doubled from the first on.
    package var firstRetryNanoseconds: UInt64 = 100_000_000
    /// Between attempts at most, in nanoseconds.
    package var lastRetryNanoseconds: UInt64 = 5_000_000_000
    /// Messages that are taken before something else has its turn.
    package var turnMessages = 2000
    /// Messages that the library keeps for us at most, in KiB.
    package var fetchedKiB = 16_384

    /// No brokers yet.
    package init() {}

    /// The library's settings, by its names. Source: librdkafka 2.0.2, CONFIGURATION.md.
    func settings(_ kind: KafkaHandle.Kind) -> [(name: String, value: String)] {
        var list: [(name: String, value: String)] = [
            ("bootstrap.servers", brokers.joined(separator: ",")),
            ("client.id", "martlet-\(name)"),
            ("security.protocol", security.rawValue),
            ("socket.keepalive.enable", "true"),
            ("socket.timeout.ms", "10000"),
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "1000"),
            ("topic.metadata.refresh.interval.ms", "30000"),
            ("log.connection.close", "false"),
        ]
        if security.isEncrypted {
            if let authorityPath { list.append(("ssl.ca.location", authorityPath)) }
            if let revocationPath { list.append(("ssl.crl.location", revocationPath)) }
            if let certificatePath {
                list.append(("ssl.certificate.location", certificatePath))
                list.append(("ssl.key.location", keyPath ?? certificatePath))
                if let keyPassword { list.append(("ssl.key.password", keyPassword)) }
            }
        }
        if security.hasLogin {
            list.append(("sasl.mechanism", mechanism))
            list.append(("sasl.username", username ?? ""))
            list.append(("sasl.password", password ?? ""))
        }
        switch kind {
        case .producer:
            list += [
                // Retries neither double nor reorder; a message that cannot be had is followed by none.
                ("enable.idempotence", "true"),
                ("enable.gapless.guarantee", "true"),
                // The outbox keeps what is not there yet: nothing is given up because it takes long.
                ("message.timeout.ms", "0"),
                ("request.timeout.ms", "10000"),
                ("linger.ms", "5"),
                ("batch.size", "\(stream.batchBytes)"),
                ("compression.codec", compresses ? "lz4" : "none"),
                ("queue.buffering.max.messages", "\(waitingMax * 4)"),
                ("queue.buffering.max.kbytes", "\(waitingBytesMax / 256)"),
            ]
        case .consumer:
            list += [
                // Needed for taking partitions at all; nothing is committed, and no group is joined.
                ("group.id", "martlet"),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("auto.offset.reset", "error"),
                ("isolation.level", "read_committed"),
                ("check.crcs", "true"),
                ("fetch.wait.max.ms", "100"),
                ("fetch.error.backoff.ms", "100"),
                ("queued.max.messages.kbytes", "\(fetchedKiB)"),
            ]
        }
        return list
    }
}
