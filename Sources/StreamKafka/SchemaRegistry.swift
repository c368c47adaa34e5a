// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Settings
internal import Storage
internal import Synchronization
internal import Telemetry

/// Registers the schema of records, and knows its number from then on. As long as it does not, records go out without
/// a registry's frame: nothing waits for it. Safe to use from any thread.
///
/// Source: Confluent Schema Registry documentation, API reference, Subjects.
final class SchemaRegistry: Sendable {
    private let registry: StreamKafkaConfiguration.Registry
    private let subjects: [String]
    private let log: Log?
    private let numbers = Guarded<[String: UInt32]>([:])
    private let failure = Guarded("")
    private let isStopping = Atomic<Bool>(false)
    private let parking = Parking()
    private let thread = Guarded<Thread?>(nil)
    /// Between attempts, in nanoseconds: doubled from the first on.
    private static let firstRetryNanoseconds: UInt64 = 500_000_000
    private static let lastRetryNanoseconds: UInt64 = 30_000_000_000

    /// The schema of the values of some topics.
    init(_ registry: StreamKafkaConfiguration.Registry, topics: [String], log: Log?) {
        self.registry = registry
        subjects = topics.map { "\($0)-value" }
        self.log = log
    }

    /// The number of the schema of a topic's values; nil as long as nobody gave it.
    func number(topic: String) -> UInt32? { numbers.withLock { $0["\(topic)-value"] } }

    /// Why there is a number missing; empty when there is none.
    var reason: String { failure.withLock { $0 } }

    /// Starts the thread that asks, until it has been told everything.
    func start() throws(SystemError) {
        let thread = try Thread(name: "kafka-registry") { [self] in run() }
        self.thread.withLock { $0 = thread }
    }

    /// Ends it. Blocks.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        parking.announce()
        thread.exchange(nil)?.join()
    }

    private func run() {
        let client = RegistryClient(registry) { [self] in isStopping.load(ordering: .acquiring) }
        var wait = Self.firstRetryNanoseconds
        while !isStopping.load(ordering: .acquiring) {
            let ticket = parking.ticket
            var reason = ""
            for subject in subjects where numbers.withLock({ $0[subject] }) == nil {
                do throws(RegistryClient.Problem) {
                    let number = try register(subject, client)
                    numbers.withLock { $0[subject] = number }
                    log?.info(
                        "kafka: the schema is registered", ["subject": .text(subject), "number": .count(number)])
                } catch { reason = error.reason }
            }
            failure.withLock { $0 = reason }
            if reason.isEmpty { return }
            log?.warning("kafka: the registry does not take the schema yet", ["reason": .text(reason)])
            parking.wait(ticket, timeoutNanoseconds: wait)
            wait = min(wait * 2, Self.lastRetryNanoseconds)
        }
    }

    private func register(_ subject: String, _ client: RegistryClient) throws(RegistryClient.Problem) -> UInt32 {
        let name = Array(subject.utf8)
        let answer = try client.ask(
            "POST", "/subjects/\(PercentEncoding.encoded(name.span))/versions",
            body: "{\"schema\":\(JSONString.quoted(OutboxRecord.schema))}", limit: 64 << 10)
        guard let number = Self.number(answer) else {
            throw RegistryClient.Problem(reason: "the registry's answer has no number of a schema")
        }
        return number
    }

    /// The number in an answer.
    static func number(_ answer: JSONObject) -> UInt32? { answer["id"]?.integer.flatMap { UInt32(exactly: $0) } }
}
