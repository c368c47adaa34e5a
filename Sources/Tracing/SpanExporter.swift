// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import HTTPCalls
internal import Platform
internal import Settings
internal import Synchronization
internal import Telemetry

/// The thread that takes spans from the rings and posts them to a collector. Whoever records spans never waits for it:
/// while it waits for the collector, rings fill, and what finds no room is dropped.
final class SpanExporter: Sendable {
    /// What the process knows of itself when a batch is made.
    struct Surroundings {
        var peers: [String]
        var own: String?
    }

    private let configuration: TracingConfiguration
    private let rings: [SpanRing]
    private let counts: SharedCounterSet<TraceCounter>
    private let parking = Parking()
    /// When everything must be over, in monotonic nanoseconds; 0 while it goes on.
    private let deadline = Atomic<UInt64>(0)
    private let thread = Guarded<Thread?>(nil)

    init(_ configuration: TracingConfiguration, _ rings: [SpanRing], _ counts: SharedCounterSet<TraceCounter>) {
        self.configuration = configuration
        self.rings = rings
        self.counts = counts
    }

    func wake() { parking.announce() }

    func start(log: Log?, _ surroundings: @escaping @Sendable () -> Surroundings) throws(SystemError) {
        let fresh = try Thread(name: "martlet-trace") { [self] in run(log, surroundings) }
        thread.withLock { $0 = fresh }
    }

    /// Sends what waits and ends the thread, within a time. Blocks.
    func stop(withinMilliseconds milliseconds: UInt64) {
        deadline.store(Clock.monotonicNanoseconds() + milliseconds * 1_000_000, ordering: .releasing)
        parking.announce()
        thread.exchange(nil)?.join()
    }

    private var isEnding: Bool { deadline.load(ordering: .acquiring) > 0 }

    private var isOver: Bool {
        let end = deadline.load(ordering: .acquiring)
        return end > 0 && Clock.monotonicNanoseconds() >= end
    }

    private func run(_ log: Log?, _ surroundings: () -> Surroundings) {
        let call = try? HTTPCall()
        var batch: [SpanRecord] = []
        var waited = Clock.monotonicNanoseconds()
        // Whose turn it is to be emptied first: no thread's spans wait for ever behind another's.
        var first = 0
        while true {
            let ticket = parking.ticket
            let isEnding = self.isEnding
            let age = Clock.monotonicNanoseconds() - waited
            let delay = UInt64(configuration.delayMilliseconds) * 1_000_000
            let isDue = isEnding || age >= delay || rings.contains { $0.count >= configuration.batchLimit }
            guard isDue else {
                parking.wait(ticket, timeoutNanoseconds: delay - age)
                continue
            }
            batch.removeAll(keepingCapacity: true)
            for index in rings.indices {
                rings[(first + index) % rings.count].take(into: &batch, limit: configuration.batchLimit - batch.count)
            }
            first = (first + 1) % rings.count
            if batch.isEmpty || isOver {
                counts.add(.failed, UInt64(batch.count))
                if isEnding { return }
                waited = Clock.monotonicNanoseconds()
                continue
            }
            send(batch, call, surroundings(), log)
        }
    }

    // MARK: Sending

    private func send(_ batch: [SpanRecord], _ call: HTTPCall?, _ surroundings: Surroundings, _ log: Log?) {
        guard let url = configuration.url else { return }
        let body = OTLPEncoder.encode(
            batch, resource: resource, version: configuration.version, peers: surroundings.peers, own: surroundings.own,
            storageSystem: configuration.storageSystem,
            epoch: Clock.realtimeNanoseconds() &- Clock.monotonicNanoseconds())
        let end = Clock.monotonicNanoseconds() + UInt64(configuration.exportMilliseconds) * 1_000_000
        var attempt = 0
        while true {
            let now = Clock.monotonicNanoseconds()
            let left = Int((end > now ? end - now : 0) / 1_000_000)
            let answer = post(body, url, call, timeoutMilliseconds: min(configuration.timeoutMilliseconds, left))
            if 200..<300 ~= answer.status { return noteTaken(batch.count, answer.body, log) }
            counts.add(.failures)
            attempt += 1
            let pause = ExportRetry.pause(
                after: attempt, status: answer.status, retryAfterSeconds: answer.retryAfterSeconds,
                jitter: Double.random(in: 0..<1))
            let why = answer.failure.isEmpty ? "status \(answer.status)" : answer.failure
            guard let pause, !isEnding, Clock.monotonicNanoseconds() + pause < end else {
                counts.add(.failed, UInt64(batch.count))
                log?.warning(
                    "spans not exported",
                    [
                        "spans": .count(batch.count), "reason": .text(why), "attempts": .count(attempt),
                        "collector": .text(configuration.shownURL),
                    ])
                return
            }
            rest(pause)
        }
    }

    /// What came of a request.
    private struct Answer {
        /// The status; 0 where there was no answer.
        var status = 0
        /// How long the collector wants to be left alone, in seconds; 0 where it does not say.
        var retryAfterSeconds = 0
        /// The beginning of the answer, 64 KiB at most.
        var body: [UInt8] = []
        /// Why there was no answer.
        var failure = ""
    }

    private func post(_ body: [UInt8], _ url: String, _ call: HTTPCall?, timeoutMilliseconds: Int) -> Answer {
        var answer = Answer()
        var request = HTTPRequest(
            "POST", url: url, body: body, headers: ["Content-Type: application/json"], caFile: configuration.caFile,
            timeoutMilliseconds: timeoutMilliseconds)
        for header in configuration.headers { request.headers.append("\(header.name): \(header.value)") }
        guard let call else {
            answer.failure = "libcurl cannot be used"
            return answer
        }
        do throws(HTTPCall.Failure) {
            let head = try call.perform(request, isStopped: { isOver }) { bytes in
                answer.body += bytes.prefix((64 << 10) - answer.body.count)
                return true
            }
            (answer.status, answer.retryAfterSeconds) = (head.status, head.retryAfterSeconds)
        } catch { answer.failure = error.reason }
        return answer
    }

    /// Waits, but not once the process ends.
    private func rest(_ nanoseconds: UInt64) {
        let end = Clock.monotonicNanoseconds() + nanoseconds
        while !isEnding {
            let ticket = parking.ticket
            let now = Clock.monotonicNanoseconds()
            guard now < end, !isEnding else { return }
            parking.wait(ticket, timeoutNanoseconds: end - now)
        }
    }

    /// The collector took a batch, though perhaps not all of it.
    private func noteTaken(_ count: Int, _ body: [UInt8], _ log: Log?) {
        let rejected = min(Self.rejected(body), count)
        counts.add(.exported, UInt64(count - rejected))
        guard rejected > 0 else { return }
        counts.add(.failed, UInt64(rejected))
        log?.warning("spans rejected", ["spans": .count(rejected), "collector": .text(configuration.shownURL)])
    }

    /// How many spans an answer says were not taken. Source: trace_service.proto, ExportTracePartialSuccess.
    static func rejected(_ body: [UInt8]) -> Int {
        guard !body.isEmpty, let node = try? JSONParser.parse(body, file: ""), case .object(let answer) = node.content,
            case .object(let partial)? = answer["partialSuccess"]?.content
        else { return 0 }
        switch partial["rejectedSpans"]?.content {
        case .integer(let number): return Int(clamping: max(0, number))
        case .text(let text): return max(0, Int(text) ?? 0)
        default: return 0
        }
    }

    /// What is said of the process with each batch.
    private var resource: [TracingConfiguration.Attribute] {
        typealias Attribute = TracingConfiguration.Attribute
        let standard = [
            Attribute("service.version", configuration.version), Attribute("host.name", ProcessControl.hostName),
            Attribute("telemetry.sdk.name", "martlet"), Attribute("telemetry.sdk.language", "swift"),
        ].filter { standard in !configuration.resource.contains { $0.name == standard.name } }
        return [Attribute("service.name", configuration.serviceName)] + configuration.resource + standard
    }
}

/// When a request to the collector that did not succeed is repeated. Pure. Source: OTLP specification, OTLP/HTTP
/// Response and Throttling.
enum ExportRetry {
    /// The first pause, and the longest, in nanoseconds.
    static let firstNanoseconds: UInt64 = 1_000_000_000
    static let longestNanoseconds: UInt64 = 30_000_000_000

    /// How long to wait after so many requests, the last of which had this status (0: no answer); nil where it is not
    /// to be repeated. `jitter` is a random number from 0 to 1.
    static func pause(after attempts: Int, status: Int, retryAfterSeconds: Int, jitter: Double) -> UInt64? {
        guard [0, 429, 502, 503, 504].contains(status) else { return nil }
        if retryAfterSeconds > 0 { return UInt64(min(retryAfterSeconds, 3600)) * 1_000_000_000 }
        let whole = min(firstNanoseconds << UInt64(min(max(attempts, 1) - 1, 16)), longestNanoseconds)
        return whole / 2 + UInt64(Double(whole / 2) * jitter)
    }
}
