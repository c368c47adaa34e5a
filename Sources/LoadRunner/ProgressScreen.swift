// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform

/// What people see while a test runs: k6's heading and progress lines.
struct ProgressScreen {
    let isQuiet: Bool
    let isColored: Bool
    let scenarios: [Scenario]
    let progress: [ScenarioProgress]
    let log: RunLog
    private let isTerminal = ProcessControl.isTerminal(1)
    private var hasShown = false

    init(
        isQuiet: Bool, isColored: Bool, scenarios: [Scenario], progress: [ScenarioProgress], log: RunLog = .standard
    ) {
        self.log = log
        self.isQuiet = isQuiet
        self.isColored = isColored
        self.scenarios = scenarios
        self.progress = progress
    }

    private func say(_ text: String, to fd: Int32 = 1) { writeWhole(Array(text.utf8), to: fd) }

    func showHeading(
        path: String, servers: [String], agents: [String] = [], segment: ExecutionSegment = .whole
    ) {
        guard !isQuiet else { return }
        let users = scenarios.reduce(0) { $0 + $1.plan.maximumUsers }
        let longest = NumberText.span(scenarios.map(\.latestEnd).max() ?? 0)
        let several = scenarios.count == 1 ? "1 scenario" : "\(scenarios.count) scenarios"
        let part = segment == .whole ? "" : ", part \(segment.index + 1) of \(segment.count)"
        let place = agents.isEmpty ? "local\(part)" : "\(agents.count) agents (\(agents.joined(separator: ", ")))"
        var text = """

                 execution: \(place)
                    script: \(path)
                   servers: \(servers.joined(separator: ", "))

                 scenarios: (100.00%) \(several), \(users) max VUs, \(longest) max duration (incl. graceful stop):

            """
        for scenario in scenarios { text += "              * \(scenario.name): \(scenario.summary)\n" }
        say(text + "\n")
    }

    /// One line for the test and one for each scenario, over those of the last time on a terminal.
    mutating func show(nanoseconds: UInt64) {
        guard !isQuiet else { return }
        let size = isTerminal ? ProcessControl.terminalSize(1) : nil
        let columns = size?.columns ?? .max
        var lines = [running(nanoseconds)]
        for index in scenarios.indices { lines.append(line(index, nanoseconds, columns)) }
        guard isTerminal else {
            say((hasShown ? "\n" : "") + lines.joined(separator: "\n") + "\n")
            hasShown = true
            return
        }
        // A line that wraps would be two to go back over, and nobody gets back to those that left at the top.
        if let size, lines.count >= size.rows {
            let hidden = lines.count - max(2, size.rows - 1) + 1
            lines = lines.dropLast(hidden) + ["and \(hidden) scenarios more"]
        }
        log.showProgress(lines.map { $0.count <= columns ? $0 : String($0.prefix(columns)) })
    }

    /// Lets the lines stand where they are: what follows comes below.
    func endProgress() { log.endProgress() }

    private func running(_ nanoseconds: UInt64) -> String {
        let (active, made) = (progress.reduce(0) { $0 + $1.activeUsers }, progress.reduce(0) { $0 + $1.users })
        let complete = progress.reduce(0) { $0 + $1.complete }
        let interrupted = progress.reduce(0) { $0 + $1.interrupted }
        let width = String(made).count
        let busy = NumberText.padded(UInt64(max(0, active)), width)
        return "running (\(NumberText.clock(nanoseconds))), \(busy)/\(made) VUs, "
            + "\(complete) complete and \(interrupted) interrupted iterations"
    }

    /// A scenario's line: as k6's, its bar gives way where a terminal is narrow.
    private func line(_ index: Int, _ nanoseconds: UInt64, _ columns: Int) -> String {
        let scenario = scenarios[index]
        let width = scenarios.map(\.name.count).max() ?? 0
        let name = scenario.name + String(repeating: " ", count: width - scenario.name.count)
        let length = scenario.plan.regularDuration
        let offset = nanoseconds - min(nanoseconds, scenario.startTime)
        var part = length == 0 ? 1 : min(1, Double(offset) / Double(length))
        let counts: String
        switch scenario.plan {
        case .sharedIterations(let users, let iterations, _):
            part = min(1, Double(progress[index].complete) / Double(iterations))
            counts = "\(users) VUs  \(progress[index].complete)/\(iterations) shared iters"
        case .perUserIterations(let users, let iterations, _):
            part = min(1, Double(progress[index].complete) / (Double(iterations) * Double(users)))
            let (product, isOver) = iterations.multipliedReportingOverflow(by: UInt64(users))
            let all = isOver ? UInt64.max : product
            counts = "\(users) VUs  \(progress[index].complete)/\(all) iters, \(iterations) per VU"
        case .constantUsers(let users, let duration):
            counts = "\(users) VUs  \(NumberText.clock(min(offset, duration)))/\(NumberText.span(duration))"
        case .rampingUsers:
            let made = scenario.plan.maximumUsers
            counts =
                "\(max(0, progress[index].activeUsers))/\(made) VUs  "
                + "\(NumberText.clock(min(offset, length)))/\(NumberText.span(length))"
        case .constantArrivals, .rampingArrivals, .trace:
            let clock = NumberText.clock(min(offset, length))
            counts = "\(progress[index].users) VUs  \(clock)/\(NumberText.span(length))  \(rate(scenario, offset))"
        }
        let isOver = part >= 1
        let percent = isOver ? "" : " \(Int(part * 100))%"
        let (head, tail) = ("\(name) \(isOver ? "✓" : " ") [", "]\(percent) \(counts)")
        let room = columns == .max ? Self.barWidth : max(0, min(Self.barWidth, columns - head.count - tail.count))
        let filled = min(Int(part * Double(Self.barWidth)) * room / Self.barWidth, room)
        var bar = String(repeating: "=", count: isOver ? room : filled)
        if !isOver, filled < room { bar += ">" + String(repeating: "-", count: room - filled - 1) }
        return head + bar + tail
    }

    /// Characters between a bar's brackets, where there is room.
    private static let barWidth = 38

    private func rate(_ scenario: Scenario, _ offset: UInt64) -> String {
        switch scenario.plan {
        case .constantArrivals(let rate, _, _): return "\(NumberText.fixed(rate, 2)) iters/s"
        case .rampingArrivals(var from, let stages, _):
            var at: UInt64 = 0
            for stage in stages {
                if offset < at + stage.duration {
                    let part = Double(offset - at) / Double(stage.duration)
                    return "\(NumberText.fixed(from + (stage.target - from) * part, 2)) iters/s"
                }
                at += stage.duration
                from = stage.target
            }
            return "\(NumberText.fixed(from, 2)) iters/s"
        default: return "a trace"
        }
    }

    /// The last progress lines, when the test is over.
    mutating func showEnd(nanoseconds: UInt64) {
        guard !isQuiet else { return }
        hasShown = false
        say("\n\n")
        show(nanoseconds: nanoseconds)
        endProgress()
    }

    func showWarnings(_ warnings: [String: UInt64]) {
        for (message, count) in warnings.sorted(by: { $0.value > $1.value }) {
            log.write(.warning, "\(message)\(count == 1 ? "" : " (\(count) times)")")
        }
    }

    func showNote(_ message: String) { say("INFO \(message)\n") }

    func showWarning(_ message: String) { log.write(.warning, message) }

    func showError(_ message: String) { log.write(.error, message) }

    /// Writes a file; says so when it cannot.
    func write(file path: String, _ bytes: [UInt8]) {
        do throws(SystemError) {
            try writeFile(path, bytes)
        } catch {
            showError("\(path): \(error.reason)")
        }
    }
}
