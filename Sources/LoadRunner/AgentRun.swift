// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform

/// A test of a coordinator on an agent, on its main thread.
struct AgentRun {
    /// How long before each full second of the test it is reported.
    private static let leadNanoseconds: UInt64 = 50_000_000

    private let program: String
    private let channel: AgentChannel
    /// Whether a signal asks for the agent's end.
    private(set) var isSignalled = false
    private var control: RunControl?
    private var job: AgentJob?

    init(program: String, _ channel: AgentChannel) {
        (self.program, self.channel) = (program, channel)
        channel.limitBytes = AgentLimits.jobBytes
    }

    /// Takes the test, runs its part, and reports it. Throws when the coordinator is gone, or says what cannot be.
    mutating func serve() throws(AgentProblem) {
        while job == nil {
            try hear()
            guard !isSignalled else { throw AgentProblem("a signal ended it") }
        }
        channel.limitBytes = AgentLimits.messageBytes
        guard let job else { return }
        let run: TestRun
        let basis: TestRun.Basis
        do throws(RunProblem) {
            (run, basis) = try prepare(job)
            try make(run, basis, job)
        } catch {
            try tell(error.code, error.message)
            throw AgentProblem(error.message)
        }
    }

    /// The test as the coordinator has it.
    private func prepare(_ job: AgentJob) throws(RunProblem) -> (TestRun, TestRun.Basis) {
        do throws(OptionProblem) {
            let line = try LoadCommandLine(program: program, arguments: job.arguments)
            var test: PreparedTest
            do throws(RunProblem) {
                test = try PreparedTest(
                    line, path: job.path, environment: job.environment, variables: [:], files: TestFiles(job.files))
            } catch {
                throw OptionProblem(error.message)
            }
            if let rate = job.searchRate, let objective = line.last("search") {
                test = try RateSearchRun(line, test, objective, nil, [:]).test(at: rate)
            }
            let run = try TestRun(line, test, job: job)
            do throws(RunProblem) { return (run, try run.makeBasis()) } catch { throw OptionProblem(error.message) }
        } catch {
            throw RunProblem(.invalidOptions, error.description)
        }
    }

    /// Runs the part.
    private mutating func make(_ run: TestRun, _ basis: TestRun.Basis, _ job: AgentJob) throws(RunProblem) {
        let control = RunControl(threads: run.ownThreads)
        self.control = control
        try run.session?.adopt(
            basis.registry, servers: run.servers, options: run.options, outputs: [], shown: run.shownOptions)
        run.session?.adopt(data: job.data)
        run.raiseLimits { writeWhole(Array("WARN \($0)\n".utf8), to: 2) }
        let threads = try run.startThreads(basis, [], control)
        var problem: AgentProblem?
        do throws(AgentProblem) { try watch(run, basis, control) } catch { problem = error }
        control.requestStop()
        let end = Clock.monotonicNanoseconds() + RunWatch.patienceNanoseconds
        while control.endedThreads < run.ownThreads {
            guard Clock.monotonicNanoseconds() < end else {
                try? tell(.generic, "a script does not end; the agent ends instead")
                writeWhole(Array("\(program): a script does not end\n".utf8), to: 2)
                exitProcess(ExitCode.generic.rawValue)
            }
            Thread.sleep(microseconds: 5_000)
        }
        for thread in threads { thread.join() }
        if let problem { throw RunProblem(.generic, problem.description) }
    }

    /// Reports until all threads have ended.
    private mutating func watch(_ run: TestRun, _ basis: TestRun.Basis, _ control: RunControl) throws(AgentProblem) {
        var (isReady, isFailureTold, next) = (false, false, UInt64(0))
        let length = run.scenarios.map(\.latestEnd).max() ?? 0
        while control.endedThreads < run.ownThreads {
            if !isReady, control.readyThreads >= run.ownThreads {
                isReady = true
                try channel.send(.ready, basis.registry.digest)
            }
            if let failure = control.failed, !isFailureTold {
                isFailureTold = true
                try tell(failure.code, failure.message)
            }
            try hear()
            if isSignalled, control.stopTime == .max {
                control.fail(RunFailure(code: .interrupted, message: "a signal ended it"))
            }
            let now = Clock.monotonicNanoseconds()
            guard control.startTime != 0 else { continue }
            if next == 0 { next = control.startTime + 1_000_000_000 - Self.leadNanoseconds }
            if now >= next {
                next += 1_000_000_000
                try report(run, basis, control)
            }
            let (end, stop) = (control.startTime + length, control.stopTime)
            let latest = stop == .max ? end : min(end, stop + 1_000_000_000)
            guard now < latest + RunWatch.patienceNanoseconds else { return }
        }
        if let failure = control.failed, !isFailureTold { try tell(failure.code, failure.message) }
        try report(run, basis, control)
        try channel.send(.done)
    }

    private func report(_ run: TestRun, _ basis: TestRun.Basis, _ control: RunControl) throws(AgentProblem) {
        let sum = WorkerSnapshot.sum(control.snapshots, basis.registry)
        let progress = basis.progress.map { AgentReport.Progress($0) }
        let isOver = control.endedThreads == run.ownThreads && control.startTime != 0
        let report = AgentReport(
            snapshot: sum, progress: progress, markedFailed: control.markedFailed,
            length: isOver ? control.endTime - min(control.endTime, control.startTime) : 0)
        try channel.send(.report, report.bytes)
    }

    private func tell(_ code: ExitCode, _ message: String) throws(AgentProblem) {
        var wire = WireWriter()
        wire.put(Int(code.rawValue))
        wire.put(message)
        try channel.send(.failure, wire.bytes)
    }

    /// Takes a message and a signal, if they come soon. Throws when the coordinator is gone.
    private mutating func hear() throws(AgentProblem) {
        if let signal = Signal.wait(milliseconds: 0), signal != .user1, signal != .user2 { isSignalled = true }
        guard let (message, contents) = try channel.receive(nanoseconds: 10_000_000) else {
            let now = Clock.monotonicNanoseconds()
            guard now - min(now, channel.heard) < AgentLimits.silenceNanoseconds else {
                let limit = NumberText.span(AgentLimits.silenceNanoseconds)
                throw AgentProblem("no word from the coordinator for \(limit)")
            }
            return
        }
        var wire = WireReader(contents)
        do throws(WireProblem) {
            switch message {
            case .ping:
                var answer = WireWriter()
                answer.put(try wire.number())
                answer.put(Clock.monotonicNanoseconds())
                try send(.pong, answer.bytes)
            case .job where job == nil: job = try AgentJob(contents)
            case .start:
                let (time, now) = (try wire.number(), Clock.monotonicNanoseconds())
                guard time > now else {
                    let late = NumberText.span(now - time)
                    control?.fail(RunFailure(code: .generic, message: "the start was told \(late) too late"))
                    return
                }
                if control?.startTime == 0 { control?.begin(at: time) }
            case .stop:
                guard let control else { throw WireProblem("the coordinator ended it") }
                control.requestStop()
            default: throw WireProblem("the coordinator says something that cannot be")
            }
        } catch {
            throw AgentProblem(error.description)
        }
    }

    private func send(_ message: AgentMessage, _ contents: [UInt8]) throws(WireProblem) {
        do throws(AgentProblem) { try channel.send(message, contents) } catch { throw WireProblem(error.description) }
    }
}
