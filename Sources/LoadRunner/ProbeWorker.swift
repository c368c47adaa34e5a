// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import MemcacheProtocol
internal import Platform
internal import Reactor

/// A thread with one connection of its own that asks for a key now and then while others make the load: what it
/// measures holds no waiting behind the load's own requests, neither in this program nor on their connections.
final class ProbeWorker {
    /// The key that is asked for; whether it is there makes no difference.
    static let key = "martlet:probe"
    /// Requests a second at most.
    static let rateLimit = 100_000
    /// A request that waits for so long has failed, and the connection with it.
    private static let patienceNanoseconds: UInt64 = 5_000_000_000
    /// A connection that could not be made is made again after so long.
    private static let pauseNanoseconds: UInt64 = 100_000_000
    /// A wait ends this early, and the rest is spent looking: waking up takes about as long.
    private static let spinNanoseconds: UInt64 = 60_000
    private static let publishNanoseconds: UInt64 = 500_000_000

    private let server: ServerAddress
    private let interval: UInt64
    private let builtIn: BuiltInMetrics
    private let control: RunControl
    private let thread: Int
    private let isOver: Flag
    private let poller: Poller
    private var sinks: [MetricSink]
    private var warnings = WarningCounter()
    private var stream: OutboundStream?
    private var input = InputBuffer(capacity: 4096)
    private var output = OutputBuffer(capacity: 64)

    /// Asks `server` `rate` times a second, and shows what it gathers as that thread's.
    init(
        _ server: ServerAddress, rate: Int, _ registry: MetricRegistry, _ builtIn: BuiltInMetrics,
        _ control: RunControl, thread: Int, until isOver: Flag
    ) throws(SystemError) {
        self.server = server
        interval = 1_000_000_000 / UInt64(rate)
        self.builtIn = builtIn
        self.control = control
        self.thread = thread
        self.isOver = isOver
        poller = try Poller(capacity: 4)
        sinks = registry.makeSinks()
    }

    /// Runs until the flag is set.
    func run() {
        Thread.sharpenTimers()
        while control.startTime == 0 {
            guard control.stopTime == .max, !isOver.isSet else { return }
            Thread.sleep(microseconds: 200)
        }
        var due = control.startTime
        var (end, nextPublish) = (due, due + Self.publishNanoseconds)
        while !isOver.isSet {
            wait(until: due)
            guard !isOver.isSet else { break }
            let sent = Clock.monotonicNanoseconds()
            // One that could not be sent in time, because the one before it was under way, has waited all the same.
            let from = end > due ? due : sent
            let problem = ask(sent)
            end = Clock.monotonicNanoseconds()
            sinks[builtIn.probeDuration].add(Double(end - from) / 1e6)
            sinks[builtIn.probeFailed].add(problem == nil ? 0 : 1)
            if let problem {
                warnings.count("probe: \(problem)")
                stream = nil
                wait(until: end + Self.pauseNanoseconds)
            }
            due += interval
            if end >= nextPublish {
                publish()
                nextPublish = end + Self.publishNanoseconds
            }
        }
        publish()
    }

    private func publish() {
        control.publish(WorkerSnapshot(sinks: sinks, warnings: warnings.counts), thread: thread)
    }

    private func wait(until time: UInt64) {
        while !isOver.isSet {
            let now = Clock.monotonicNanoseconds()
            guard now < time else { return }
            let left = time - now
            guard left > Self.spinNanoseconds else { continue }
            Thread.sleep(microseconds: UInt32(min(left - Self.spinNanoseconds, 5_000_000) / 1000))
        }
    }

    /// Asks, and waits for the answer. What went wrong; nil when nothing did.
    private func ask(_ sent: UInt64) -> String? {
        let deadline = sent + Self.patienceNanoseconds
        do throws(SystemError) {
            if stream == nil { try connect(deadline) }
        } catch {
            return "connect: \(error.reason)"
        }
        output.removeAll()
        output.append(string: "get \(Self.key)\r\n")
        guard stream?.send(output, from: 0) == output.count else { return "the connection broke" }
        while true {
            var (isAnswered, refusal): (Bool, String?) = (false, nil)
            let (taken, _, defect) = readReplies(input) { unit, span in
                if unit.kind == .end { isAnswered = true }
                if unit.kind.isError || unit.kind == .other {
                    let text = [UInt8](copying: span.extracting(unit.start..<min(unit.textEnd, unit.start + 120)))
                    refusal = String(decoding: text, as: UTF8.self)
                }
            }
            input.consume(taken)
            if let refusal { return refusal }
            if let defect { return "not memcached's protocol: \(defect)" }
            if isAnswered { return nil }
            let now = Clock.monotonicNanoseconds()
            guard now < deadline, !isOver.isSet else { return "no answer" }
            _ = poller.wait(nanoseconds: min(deadline - now, 20_000_000))
            switch stream?.receive(into: &input, minimum: 4096) ?? .failed {
            case .bytes, .nothing: break
            case .ended: return "the server closed the connection"
            case .failed: return "the connection broke"
            }
        }
    }

    private func connect(_ deadline: UInt64) throws(SystemError) {
        input.removeAll(keeping: 4096)
        let made = try OutboundStream(to: server.address, tls: server.tls)
        try poller.add(made.fd, [.input, .output], user: 0)
        var securing = OutboundStream.Securing.needsOutput
        while securing != .ready {
            while poller.wait(nanoseconds: 20_000_000) == 0 {
                guard Clock.monotonicNanoseconds() < deadline, !isOver.isSet else {
                    throw SystemError("connect", code: 110, subject: "the server")
                }
            }
            if let error = made.connectFailure() { throw error }
            securing = made.secure()
            // A broken handshake: EPROTO.
            if case .failed(let reason) = securing { throw SystemError("TLS", code: 71, subject: reason) }
            poller.change(made.fd, securing == .needsOutput ? .output : .input, user: 0)
        }
        stream = consume made
    }
}
