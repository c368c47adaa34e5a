// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Synchronization

/// Where and how metrics are sent while a test runs: `-o experimental-prometheus-rw`, and k6's variables for it.
struct RemoteWriteSettings: Sendable {
    var host = "localhost"
    var port: UInt16 = 9090
    var path = "/api/v1/write"
    var intervalNanoseconds: UInt64 = 5_000_000_000
    /// What stands behind `Authorization:`; nil for nothing.
    var authorization: String?
    var write = RemoteWrite()

    /// The names that mean this output.
    static let names = ["experimental-prometheus-rw", "prometheus-rw"]

    /// What `wanted`, which stands behind the output's name, and the environment say. Throws what is wrong with it.
    init(_ wanted: String, _ environment: [String: String], tags: [String: String]) throws(OptionProblem) {
        func variable(_ name: String) -> String? { environment["K6_PROMETHEUS_RW_" + name] }
        write.tags = tags
        let address = wanted.isEmpty ? variable("SERVER_URL") : wanted
        if let address { try read(address) }
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
        if let token = variable("BEARER_TOKEN") {
            authorization = "Bearer \(token)"
        } else if let user = variable("USERNAME") {
            var text = OutputBuffer(capacity: 256)
            let pair = Array("\(user):\(variable("PASSWORD") ?? "")".utf8)
            Base64.encode(pair.span, into: &text)
            authorization = "Basic " + text.withSpan { String(decoding: [UInt8](copying: $0), as: UTF8.self) }
        }
    }

    /// Reads `http://host:port/path`.
    private mutating func read(_ address: String) throws(OptionProblem) {
        guard address.hasPrefix("http://") else {
            throw OptionProblem("--out: \(address): expected an address that begins with http://")
        }
        let rest = address.dropFirst(7)
        let place = rest.prefix { $0 != "/" }
        path = rest.count > place.count ? String(rest.dropFirst(place.count)) : "/"
        let colon = place.hasSuffix("]") ? nil : place.lastIndex(of: ":")
        host = String(place[..<(colon ?? place.endIndex)].filter { $0 != "[" && $0 != "]" })
        port = 80
        if let colon {
            guard let number = UInt16(place[place.index(after: colon)...]), number > 0 else {
                throw OptionProblem("--out: \(address): expected a port from 1 to 65535")
            }
            port = number
        }
        guard !host.isEmpty, address.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else {
            throw OptionProblem("--out: \(address): expected http://HOST:PORT/PATH")
        }
    }
}

/// Sends a test's metrics to Prometheus, from a thread of its own: what makes the load is neither asked nor held up. Of
/// what is not sent yet only the latest is kept.
final class RemoteWriteOutput: Sendable {
    private struct State {
        var latest: [MetricSink]?
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

    /// Seconds that each system call of a push may take.
    private static let timeoutSeconds = 5

    init(_ settings: RemoteWriteSettings, _ registry: MetricRegistry) throws(SystemError) {
        self.settings = settings
        self.registry = registry
        let made = try Thread(name: "martlet-out") { [self] in run() }
        thread.withLock { $0 = made }
    }

    /// What was gathered so far. Does not block.
    func offer(_ sinks: [MetricSink]) { state.withLock { $0.latest = sinks } }

    /// Sends what was gathered to the end, and ends. Returns what went wrong, for people; nil when nothing did.
    func finish(_ sinks: [MetricSink]) -> String? {
        state.withLock { state in
            state.latest = sinks
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
            let sinks = state.withLock { state in
                defer { state.latest = nil }
                return state.latest
            }
            if let sinks { push(sinks) }
            if isOver { return }
        }
    }

    private func push(_ sinks: [MetricSink]) {
        let samples = settings.write.samples(registry, sinks)
        guard !samples.isEmpty else { return }
        let body = RemoteWrite.message(samples, milliseconds: Int64(Clock.realtimeNanoseconds() / 1_000_000))
        var problem: String?
        do throws(SystemError) { problem = try post(body) } catch { problem = error.description }
        state.withLock { state in
            if let problem {
                state.failed += 1
                state.reason = problem
            } else {
                state.sent += 1
            }
        }
    }

    /// Posts a message; what is wrong with the answer, nil when nothing is.
    private func post(_ body: [UInt8]) throws(SystemError) -> String? {
        let socket = try ClientSocket.connect(
            host: settings.host, port: settings.port, timeoutSeconds: Self.timeoutSeconds)
        let host = settings.host.contains(":") ? "[\(settings.host)]" : settings.host
        var head = "POST \(settings.path) HTTP/1.1\r\nHost: \(host):\(settings.port)\r\nConnection: close\r\n"
        head += "User-Agent: martlet-load\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n"
        head += "X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: \(body.count)\r\n"
        if let authorization = settings.authorization { head += "Authorization: \(authorization)\r\n" }
        try socket.write(Array("\(head)\r\n".utf8) + body)
        var answer: [UInt8] = []
        while answer.count < 4_096, !answer.contains(UInt8(ascii: "\n")) {
            let more = try socket.read(limit: 4_096)
            guard !more.isEmpty else { break }
            answer += more
        }
        let line = String(
            decoding: answer.prefix { $0 != UInt8(ascii: "\r") && $0 != UInt8(ascii: "\n") }, as: UTF8.self)
        let words = line.split(separator: " ", maxSplits: 2)
        guard words.count >= 2, words[0].hasPrefix("HTTP/1."), let code = Int(words[1]) else {
            return "the answer is not HTTP"
        }
        return 200..<300 ~= code ? nil : "the answer is \(words.dropFirst().joined(separator: " "))"
    }
}
