// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform

/// A coordinator's thread for one agent: brings it the test, agrees with it on the start, and shows what it reports as
/// one of the test's threads.
final class AgentLink {
    /// Round trips that a clock is read with, and between two readings.
    private static let rounds = 16
    private static let clockNanoseconds: UInt64 = 2_000_000_000
    private static let connectNanoseconds: UInt64 = 5_000_000_000
    /// An agent that prepares a test may be silent: its script has the thread.
    private static let prepareNanoseconds: UInt64 = 120_000_000_000

    let name: String
    let index: Int
    /// Threads that the agent has for a test.
    let threads: Int
    private let channel: AgentChannel
    private let fleet: AgentFleet
    private let control: RunControl
    private let basis: TestRun.Basis
    /// The test, once there is one, for the thread to send.
    let job = Guarded<[UInt8]?>(nil)
    private var shown: [AgentReport.Progress]
    /// What is added to this machine's clock for the agent's, and how far off that may be.
    private var clock: (offset: UInt64, error: UInt64)?
    private var isStopTold = false
    private var isReady = false
    private var isDone = false
    private var length: UInt64 = 0
    private var lastPing: UInt64 = 0

    /// Connects, and proves the token.
    init(
        _ name: String, _ index: Int, _ address: SocketAddress, _ token: [UInt8], _ fleet: AgentFleet,
        _ control: RunControl, _ basis: TestRun.Basis
    ) throws(AgentProblem) {
        (self.name, self.index, self.fleet, self.control, self.basis) = (name, index, fleet, control, basis)
        shown = Array(repeating: AgentReport.Progress(), count: basis.progress.count)
        do throws(SystemError) {
            channel = try AgentChannel.connect(to: address, nanoseconds: Self.connectNanoseconds)
        } catch {
            throw AgentProblem("cannot be connected to: \(error.reason)")
        }
        threads = try channel.join(token)
        channel.limitBytes = AgentLimits.messageBytes
    }

    /// Sees to the agent until its part is over.
    func run() {
        do throws(AgentProblem) {
            try carry()
        } catch {
            control.fail(RunFailure(code: .generic, message: "agent \(name): \(error.description)"))
        }
        channel.close()
        let end = control.startTime + length
        control.noteEnd(at: isDone && length > 0 ? end : Clock.monotonicNanoseconds())
    }

    private func carry() throws(AgentProblem) {
        var bytes = job.withLock { $0 }
        while bytes == nil {
            guard control.stopTime == .max else { return }
            try hear(nanoseconds: 5_000_000, patience: AgentLimits.silenceNanoseconds)
            bytes = job.withLock { $0 }
        }
        try channel.send(.job, bytes ?? [])
        while !isReady {
            guard control.stopTime == .max else { return tellStop() }
            try hear(nanoseconds: 20_000_000, patience: Self.prepareNanoseconds)
        }
        try readClock()
        control.noteReady()
        var read = Clock.monotonicNanoseconds()
        while control.startTime == 0 {
            guard control.stopTime == .max else { return tellStop() }
            try hear(nanoseconds: 5_000_000, patience: AgentLimits.silenceNanoseconds)
            guard Clock.monotonicNanoseconds() - read > Self.clockNanoseconds, control.startTime == 0 else { continue }
            try readClock()
            read = Clock.monotonicNanoseconds()
        }
        var wire = WireWriter()
        wire.put(control.startTime &+ (clock?.offset ?? 0))
        try channel.send(.start, wire.bytes)
        if let clock { fleet.note(clockError: clock.error) }
        while !isDone {
            if control.stopTime != .max, !isStopTold {
                isStopTold = true
                try channel.send(.stop)
            }
            try hear(nanoseconds: 10_000_000, patience: AgentLimits.silenceNanoseconds)
        }
    }

    /// There is no test: whether the agent hears of it makes no difference.
    private func tellStop() { try? channel.send(.stop) }

    /// Takes the next message, if one comes in time. Throws when the agent has been silent for too long.
    private func hear(nanoseconds: UInt64, patience: UInt64) throws(AgentProblem) {
        let now = Clock.monotonicNanoseconds()
        if now - lastPing >= AgentLimits.pingNanoseconds {
            lastPing = now
            try ping(now)
        }
        guard let (message, contents) = try channel.receive(nanoseconds: nanoseconds) else {
            guard now - min(now, channel.heard) < patience else {
                throw AgentProblem("no word from it for \(NumberText.span(patience))")
            }
            return
        }
        switch message {
        case .pong: break
        case .refusal: throw AgentProblem(AgentChannel.refusal(contents))
        case .ready:
            guard contents == basis.registry.digest else {
                throw AgentProblem(
                    "the script makes other metrics there than here; they must not depend on the machine or on chance")
            }
            isReady = true
        case .report: try take(contents)
        case .failure: try fail(contents)
        case .done: isDone = true
        default: throw AgentProblem("it says something that nobody asked for")
        }
    }

    private func ping(_ now: UInt64) throws(AgentProblem) {
        var wire = WireWriter()
        wire.put(now)
        try channel.send(.ping, wire.bytes)
    }

    /// Reads the agent's clock: of several round trips the shortest says it best, to half of what it took.
    private func readClock() throws(AgentProblem) {
        var best: (offset: UInt64, error: UInt64)?
        var asked = 0
        while asked < Self.rounds {
            let sent = Clock.monotonicNanoseconds()
            try ping(sent)
            asked += 1
            while true {
                guard let (message, contents) = try channel.receive(nanoseconds: AgentLimits.silenceNanoseconds) else {
                    throw AgentProblem("no answer for \(NumberText.span(AgentLimits.silenceNanoseconds))")
                }
                let now = Clock.monotonicNanoseconds()
                if message == .failure { return try fail(contents) }
                guard message == .pong else { continue }
                var wire = WireReader(contents)
                do throws(WireProblem) {
                    // The answer to an earlier question says nothing of this one.
                    guard try wire.number() == sent else { continue }
                    let there = try wire.number()
                    let half = (now - sent) / 2
                    if best.map({ half < $0.error }) ?? true { best = (there &- (sent + half), half) }
                } catch {
                    throw AgentProblem(error.description)
                }
                break
            }
        }
        clock = best
    }

    private func fail(_ contents: [UInt8]) throws(AgentProblem) {
        var wire = WireReader(contents)
        do throws(WireProblem) {
            let code = ExitCode(rawValue: Int32(try wire.number(upTo: 255))) ?? .generic
            let message = AgentChannel.refusal(try wire.blob())
            control.fail(RunFailure(code: code, message: "agent \(name): \(message)"))
        } catch {
            throw AgentProblem(error.description)
        }
    }

    private func take(_ contents: [UInt8]) throws(AgentProblem) {
        var wire = WireReader(contents)
        let report: AgentReport
        do throws(WireProblem) {
            report = try AgentReport(&wire, basis.registry, scenarios: shown.count)
        } catch {
            throw AgentProblem("a report that cannot be: \(error.description)")
        }
        control.publish(report.snapshot, thread: index)
        if let reason = report.markedFailed { control.markFailed(reason) }
        for (index, now) in report.progress.enumerated() {
            let (before, progress) = (shown[index], basis.progress[index])
            func more(_ now: UInt64, _ before: UInt64) -> UInt64 { now - min(now, before) }
            progress.count(
                complete: more(now.complete, before.complete),
                interrupted: more(now.interrupted, before.interrupted),
                dropped: more(now.dropped, before.dropped), active: now.active - before.active)
            for _ in before.made..<max(before.made, now.made) { _ = progress.makeUser(limit: .max) }
        }
        shown = report.progress
        length = min(report.length, Clock.monotonicNanoseconds())
    }
}
