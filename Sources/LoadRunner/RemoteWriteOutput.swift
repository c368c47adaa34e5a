// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import HTTPCalls
internal import LoadModel
internal import Platform
internal import Synchronization

/// Where and how metrics are sent while a test runs: `-o experimental-prometheus-rw`, and k6's variables for it.
struct RemoteWriteSettings: Sendable {
    /// What each message is sent with; its body is the message.
    var request = RemoteWriteSettings.request()
    var intervalNanoseconds: UInt64 = 5_000_000_000
    /// Whether all series are marked as stale at the end.
    var marksStale = false
    var write = RemoteWrite()

    /// The names that mean this output.
    static let names = ["experimental-prometheus-rw", "prometheus-rw"]

    private static let prefix = "K6_PROMETHEUS_RW_"

    /// What `wanted`, which stands behind the output's name, and the environment say. Throws what is wrong with it.
    init(_ wanted: String, _ environment: [String: String], tags: [String: String]) throws(OptionProblem) {
        func variable(_ name: String) -> String? { environment[Self.prefix + name] }
        func truth(_ name: String) throws(OptionProblem) -> Bool {
            guard let text = variable(name) else { return false }
            guard let value = LoadCommandLine.truth(text) else {
                throw OptionProblem("\(Self.prefix)\(name) \(text): expected true or false")
            }
            return value
        }
        write.tags = tags
        let address = wanted.isEmpty ? variable("SERVER_URL") : wanted
        if let address { request.url = try Self.checked(address) }
        if let text = variable("PUSH_INTERVAL") {
            guard let interval = GoDuration.parse(text), interval >= 100_000_000 else {
                throw OptionProblem("K6_PROMETHEUS_RW_PUSH_INTERVAL \(text): expected a duration of 100ms and more")
            }
            intervalNanoseconds = interval
        }
        if let text = variable("TREND_STATS") {
            write.trendStats = text.split(separator: ",").map(String.init)
            for name in write.trendStats where !RemoteWrite.isTrendStat(name) {
                throw OptionProblem(
                    "K6_PROMETHEUS_RW_TREND_STATS: '\(name)' is none of count, sum, min, max, avg, med and p(N)")
            }
        }
        marksStale = try truth("STALE_MARKERS")
        request.skipsVerification = try truth("INSECURE_SKIP_TLS_VERIFY")
        let version = variable("TLS_MIN_VERSION") ?? "1.3"
        guard ["1.2", "1.3"].contains(version) else {
            throw OptionProblem("K6_PROMETHEUS_RW_TLS_MIN_VERSION \(version): expected 1.2 or 1.3")
        }
        request.needsTLS13 = version == "1.3"
        request.certificateFile = variable("CLIENT_CERTIFICATE")
        request.keyFile = variable("CLIENT_CERTIFICATE_KEY")
        if let token = variable("BEARER_TOKEN") {
            request.headers.append("Authorization: Bearer \(token)")
        } else if let user = variable("USERNAME") {
            (request.username, request.password) = (user, variable("PASSWORD") ?? "")
        }
        request.headers += try Self.headers(environment)
        if try truth("TREND_AS_NATIVE_HISTOGRAM") {
            throw OptionProblem(
                "K6_PROMETHEUS_RW_TREND_AS_NATIVE_HISTOGRAM: native histograms are not sent; choose figures with "
                    + "K6_PROMETHEUS_RW_TREND_STATS")
        }
        for name in environment.keys where name.hasPrefix(Self.prefix + "SIGV4_") {
            throw OptionProblem("\(name): requests are not signed as AWS's are")
        }
    }

    /// A message of the protocol to its default place, by way of the environment's proxies as k6 does.
    private static func request() -> HTTPRequest {
        var request = HTTPRequest("POST", url: "http://localhost:9090/api/v1/write")
        request.headers = [
            "User-Agent: martlet-load", "Content-Type: application/x-protobuf", "Content-Encoding: snappy",
            "X-Prometheus-Remote-Write-Version: 0.1.0",
        ]
        request.needsTLS13 = true
        request.usesProxy = true
        return request
    }

    /// Headers of `K6_PROMETHEUS_RW_HEADERS_name=value` and `K6_PROMETHEUS_RW_HTTP_HEADERS=name:value,name:value`.
    private static func headers(_ environment: [String: String]) throws(OptionProblem) -> [String] {
        var all: [(name: String, value: String)] = []
        for piece in environment[prefix + "HTTP_HEADERS"]?.split(separator: ",") ?? [] {
            let parts = piece.split(separator: ":", maxSplits: 1).map(String.init)
            guard parts.count == 2 else {
                throw OptionProblem("\(prefix)HTTP_HEADERS: '\(piece)': expected NAME:VALUE, several with commas")
            }
            all.append((parts[0], parts[1]))
        }
        let start = prefix + "HEADERS_"
        for (name, value) in environment.sorted(by: { $0.key < $1.key }) where name.hasPrefix(start) {
            all.append((String(name.dropFirst(start.count)), value))
        }
        return try all.map { (header) throws(OptionProblem) in
            let isName = !header.name.isEmpty && header.name.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 58 }
            guard isName, header.value.utf8.allSatisfy({ $0 >= 32 && $0 != 127 }) else {
                throw OptionProblem("\(prefix)HEADERS: '\(header.name)' is no header's name, or its value no text")
            }
            return "\(header.name): \(header.value)"
        }
    }

    /// `address` when it is one of HTTP.
    private static func checked(_ address: String) throws(OptionProblem) -> String {
        let problem = OptionProblem("--out: \(address): expected http://HOST:PORT/PATH, or https://")
        guard let scheme = ["http://", "https://"].first(where: { address.hasPrefix($0) }),
            address.utf8.allSatisfy({ $0 > 32 && $0 < 127 })
        else { throw problem }
        let place = address.dropFirst(scheme.count).prefix { $0 != "/" }
        // It is shown where something goes wrong, which a password must not be.
        guard !place.contains("@") else {
            throw OptionProblem(
                "--out: expected an address without a name and password, which K6_PROMETHEUS_RW_USERNAME and _PASSWORD "
                    + "give")
        }
        let host = place.hasSuffix("]") ? place : place.lastIndex(of: ":").map { place[..<$0] } ?? place
        guard !host.isEmpty else { throw problem }
        if host.count < place.count {
            guard let port = UInt16(place.dropFirst(host.count + 1)), port > 0 else {
                throw OptionProblem("--out: \(address): expected a port from 1 to 65535")
            }
        }
        return address
    }
}

/// Sends a test's metrics to Prometheus, from a thread of its own: what makes the load is neither asked nor held up. Of
/// what is not sent yet only the latest is kept.
final class RemoteWriteOutput: Sendable {
    private struct State {
        var latest: (sinks: [MetricSink], series: SeriesTable)?
        var isOver = false
        var sent = 0
        var failed = 0
        var reason = ""
    }

    private let settings: RemoteWriteSettings
    private let registry: MetricRegistry
    private let state = Guarded(State())
    private let parking = Parking()
    private let thread: Guarded<Thread?> = Guarded(nil)

    /// Seconds that a push may take.
    private static let timeoutSeconds = 5

    init(_ settings: RemoteWriteSettings, _ registry: MetricRegistry) throws(SystemError) {
        self.settings = settings
        self.registry = registry
        let made = try Thread(name: "martlet-out") { [self] in run() }
        thread.withLock { $0 = made }
    }

    /// What was gathered so far. Does not block.
    func offer(_ sinks: [MetricSink], _ series: SeriesTable) { state.withLock { $0.latest = (sinks, series) } }

    /// Sends what was gathered to the end, and ends. Returns what went wrong, for people; nil when nothing did.
    func finish(_ sinks: [MetricSink], _ series: SeriesTable) -> String? {
        state.withLock { state in
            state.latest = (sinks, series)
            state.isOver = true
        }
        parking.announce()
        thread.exchange(nil)?.join()
        return state.withLock { state in
            guard state.failed > 0 else { return nil }
            let all = state.failed + state.sent
            return "prometheus-rw: \(state.failed) of \(all) messages were not taken: \(state.reason)"
        }
    }

    private func run() {
        let call = try? HTTPCall()
        var next = Clock.monotonicNanoseconds() &+ settings.intervalNanoseconds
        while true {
            let ticket = parking.ticket
            let now = Clock.monotonicNanoseconds()
            let isOver = state.withLock { $0.isOver }
            guard isOver || now >= next else {
                parking.wait(ticket, timeoutNanoseconds: next - now)
                continue
            }
            next = now &+ settings.intervalNanoseconds
            let latest = state.withLock { state in
                defer { state.latest = nil }
                return state.latest
            }
            if let latest { push(settings.write.samples(registry, latest.sinks, latest.series), call) }
            if isOver, settings.marksStale, let latest {
                let seen = settings.write.samples(registry, latest.sinks, latest.series)
                push(seen.map(\.stale), call, later: 1)
            }
            if isOver { return }
        }
    }

    /// What is wrong with the answer, or why there is none; nil when all is well.
    private static func problem(_ request: HTTPRequest, _ call: HTTPCall) -> String? {
        do throws(HTTPCall.Failure) {
            let head = try call.perform(request, isStopped: { false }, onData: { _ in true })
            return 200..<300 ~= head.status ? nil : "\(request.url): the answer is \(head.status)"
        } catch { return "\(request.url): \(error.reason)" }
    }

    /// Sends samples of now, or of so many milliseconds later.
    private func push(_ samples: [RemoteWrite.Sample], _ call: HTTPCall?, later: Int64 = 0) {
        guard !samples.isEmpty else { return }
        let now = Int64(Clock.realtimeNanoseconds() / 1_000_000)
        let body = RemoteWrite.message(samples, milliseconds: now + later)
        var request = settings.request
        request.body = body
        request.timeoutMilliseconds = Self.timeoutSeconds * 1000
        let problem = call.map { Self.problem(request, $0) } ?? "libcurl cannot be used"
        state.withLock { state in
            if let problem {
                state.failed += 1
                state.reason = problem
            } else {
                state.sent += 1
            }
        }
    }
}
