// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform

/// The agents of a test, as its coordinator has them: each one's thread stands in the place of those that make the
/// load, so that everything else of a test is the same.
final class AgentFleet: Sendable {
    let names: [String]
    /// The variables that say how the test runs.
    let environment: [String: String]
    /// What the test was read from.
    let files: TestFiles
    private let addresses: [SocketAddress]
    private let token: [UInt8]
    private let state = Guarded(State())

    /// How long an agent that is busy is asked again.
    private static let busyNanoseconds: UInt64 = 3_000_000_000

    private struct State {
        var jobs: [Guarded<[UInt8]?>] = []
        var threads: [Thread] = []
        var offered: [Int] = []
        var errors: [UInt64] = []
    }

    /// The agents that the command line names; nil when it names none.
    init?(_ line: LoadCommandLine, _ environment: [String: String], _ files: TestFiles) throws(OptionProblem) {
        let names = line.list("agents")
        guard line.has("agents") else { return nil }
        guard (1...ExecutionSegment.limit).contains(names.count), Set(names).count == names.count else {
            throw OptionProblem("--agents: expected 1 to \(ExecutionSegment.limit) different HOST:PORT")
        }
        self.names = names
        self.environment = LoadCommandLine.variables(of: environment)
        self.files = files
        token = try AgentToken.find(line, environment)
        addresses = try TestRun.resolve(names, port: AgentLimits.port, what: "agent")
        files.keep()
    }

    var count: Int { names.count }

    /// Threads that every agent has.
    var threads: Int { state.withLock { $0.offered.min() ?? 1 } }

    /// How well the agents' clocks were known when the test started.
    var clockNote: String {
        guard let worst = state.withLock({ $0.errors.max() }) else { return "clocks not compared" }
        return "clocks known to within ±\(NumberText.short(Double(worst) / 1e6, 3)) ms"
    }

    /// Connects to all of them, and lets threads keep the connections. Throws what is wrong with one.
    func connect(_ control: RunControl, _ basis: TestRun.Basis) throws(RunProblem) {
        var links: [AgentLink] = []
        for (index, address) in addresses.enumerated() {
            links.append(try connect(index, address, control, basis))
        }
        let (jobs, offered) = (links.map(\.job), links.map(\.threads))
        state.withLock { state in
            (state.jobs, state.offered, state.threads, state.errors) = (jobs, offered, [], [])
        }
        do throws(SystemError) {
            for link in links {
                // Its own thread's from here on.
                let passed = Guarded<AgentLink?>(nil)
                passed.withLock { $0 = link }
                let thread = try Thread(name: "martlet-a\(link.index)") { passed.withLock({ $0 })?.run() }
                state.withLock { $0.threads.append(thread) }
            }
        } catch {
            disconnect(control)
            throw RunProblem(.generic, "no more threads: \(error.description)")
        }
    }

    private func connect(
        _ index: Int, _ address: SocketAddress, _ control: RunControl, _ basis: TestRun.Basis
    ) throws(RunProblem) -> AgentLink {
        let end = Clock.monotonicNanoseconds() + Self.busyNanoseconds
        while true {
            do throws(AgentProblem) {
                return try AgentLink(names[index], index, address, token, self, control, basis)
            } catch {
                // It may have our last test on its hands still.
                guard error.description == AgentLimits.busy, Clock.monotonicNanoseconds() < end else {
                    throw RunProblem(.generic, "agent \(names[index]): \(error.description)")
                }
            }
            Thread.sleep(microseconds: 50_000)
        }
    }

    /// Sends the test to all of them; the threads that see to it.
    func start(_ job: AgentJob) throws(RunProblem) -> [Thread] {
        let (jobs, threads) = state.withLock { ($0.jobs, $0.threads) }
        for (index, place) in jobs.enumerated() {
            var part = job
            part.segment = ExecutionSegment(index: index, count: count)
            let bytes = part.bytes
            guard bytes.count <= AgentLimits.jobBytes else {
                let (size, most) = (bytes.count >> 20, AgentLimits.jobBytes >> 20)
                throw RunProblem(
                    .invalidOptions, "--agents: the test's files have \(size) MiB; at most \(most) are sent")
            }
            place.withLock { $0 = bytes }
        }
        return threads
    }

    /// There is no test after all.
    func disconnect(_ control: RunControl) {
        control.requestStop()
        for thread in state.withLock({ $0.threads }) { thread.join() }
    }

    /// An agent's clock is known to within so many nanoseconds.
    func note(clockError: UInt64) { state.withLock { $0.errors.append(clockError) } }
}
