// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform

/// The main thread during a test: starts it when all is prepared, shows how it goes, looks at thresholds and signals,
/// and gathers what the threads show.
struct RunWatch {
    /// Between two looks at thresholds that end a test. Source: k6's.
    static let thresholdNanoseconds: UInt64 = 2_000_000_000

    let control: RunControl
    let thresholds: ThresholdSet
    let registry: MetricRegistry
    let builtIn: BuiltInMetrics
    let scenarios: [Scenario]
    let progress: [ScenarioProgress]
    let threads: Int
    private let keepsSeries: Bool
    private var users = MetricSink(.gauge)
    private var usersMade = MetricSink(.gauge)
    private var endTime: UInt64 = 0
    private(set) var points = RunSeries()
    /// Where metrics go meanwhile.
    var output: RemoteWriteOutput?
    /// What has each sample, and the tags of those that belong to the whole test.
    var samples = SampleLog([])
    var tags: [String: String] = [:]
    /// Whether a thread did not end though its time was over: a script that nothing stops.
    private(set) var isStuck = false
    /// Between the moment when all is prepared and the start.
    private let startNanoseconds: UInt64
    private let patience: UInt64
    /// How long threads may take to end when their time is over, in nanoseconds.
    static let patienceNanoseconds: UInt64 = 10_000_000_000

    init(
        control: RunControl, thresholds: ThresholdSet, registry: MetricRegistry, builtIn: BuiltInMetrics,
        scenarios: [Scenario], progress: [ScenarioProgress], threads: Int, isRemote: Bool = false,
        keepsSeries: Bool = false
    ) {
        self.keepsSeries = keepsSeries
        startNanoseconds = isRemote ? AgentLimits.startNanoseconds : 2_000_000
        // An agent that leaves a script behind says so itself.
        patience = Self.patienceNanoseconds + (isRemote ? AgentLimits.silenceNanoseconds : 0)
        self.control = control
        self.thresholds = thresholds
        self.registry = registry
        self.builtIn = builtIn
        self.scenarios = scenarios
        self.progress = progress
        self.threads = threads
    }

    /// Watches until every thread has ended. Returns why the test ended before its time, or success.
    mutating func watch(_ screen: inout ProgressScreen) -> ExitCode {
        var code = ExitCode.success
        var (nextSecond, nextLook) = (UInt64(0), UInt64(0))
        while control.endedThreads < threads {
            let ticket = control.changed.ticket
            if control.startTime == 0, control.readyThreads >= threads, control.stopTime == .max {
                let begin = Clock.monotonicNanoseconds() + startNanoseconds
                control.begin(at: begin)
                (nextSecond, nextLook) = (begin + 1_000_000_000, begin + Self.thresholdNanoseconds)
            }
            let now = Clock.monotonicNanoseconds()
            if control.startTime != 0, now > lastMoment {
                isStuck = true
                screen.showError("a script does not end; it is left behind")
                if code == .success { code = control.failed?.code ?? .generic }
                break
            }
            if control.startTime != 0, now >= nextSecond {
                nextSecond += 1_000_000_000
                everySecond(now - control.startTime)
                screen.show(nanoseconds: now - control.startTime)
            }
            if control.startTime != 0, now >= nextLook {
                nextLook += Self.thresholdNanoseconds
                if code == .success, let failed = thresholds.abort(sinks(), nanoseconds: now - control.startTime) {
                    screen.showError(
                        "threshold '\(failed.threshold.source)' on \(registry.name(failed.place)) was crossed; "
                            + "the test ends")
                    code = .thresholds
                    control.requestStop()
                }
            }
            switch Signal.wait(milliseconds: control.startTime == 0 ? 5 : 20) {
            case .interrupt, .terminate, .hangUp:
                if code == .interrupted { exitProcess(ExitCode.interrupted.rawValue) }
                screen.showError("stopping: a signal asked for it")
                code = .interrupted
                control.requestStop()
            case .user1, .user2, nil: break
            }
            _ = ticket
        }
        endTime = isStuck ? Clock.monotonicNanoseconds() : control.endTime
        if let failure = control.failed, code == .success { code = failure.code }
        return code
    }

    /// When every thread must have ended.
    private var lastMoment: UInt64 {
        let latest = control.startTime + (scenarios.map(\.latestEnd).max() ?? 0)
        let stop = control.stopTime
        return (stop == .max ? latest : min(latest, stop + 1_000_000_000)) + patience
    }

    private mutating func everySecond(_ nanoseconds: UInt64) {
        // What is left of users after the last scenario's regular end says nothing of the test.
        let end = scenarios.map { $0.startTime + $0.plan.regularDuration }.max() ?? 0
        if users.isEmpty || nanoseconds < end { users.add(Double(progress.reduce(0) { $0 + $1.activeUsers })) }
        usersMade.add(Double(progress.reduce(0) { $0 + $1.users }))
        if samples.isOn {
            let (now, number) = (Clock.monotonicNanoseconds(), samples.number(tags))
            samples.add(builtIn.vus, users.value, tags: number, at: now)
            samples.add(builtIn.vusMax, usersMade.value, tags: number, at: now)
            samples.flush()
        }
        let sinks = sinks()
        points.add(sinks, builtIn, nanoseconds: nanoseconds)
        output?.offer(sinks, series())
    }

    /// What all threads have shown by all tags, added up; empty where that is not asked for.
    func series() -> SeriesTable {
        var sum = SeriesTable()
        guard keepsSeries else { return sum }
        for snapshot in control.snapshots { sum.merge(snapshot.series) }
        for (scenario, progress) in zip(scenarios, progress) where progress.dropped > 0 {
            var sink = MetricSink(.counter)
            sink.add(count: progress.dropped)
            sum.merge(SeriesKey(builtIn.droppedIterations, scenario.tags), sink)
        }
        return sum
    }

    /// What all threads have shown, added up.
    func sinks() -> [MetricSink] {
        var sum = registry.makeSinks()
        for snapshot in control.snapshots {
            for index in snapshot.sinks.indices { sum[index].add(snapshot.sinks[index]) }
        }
        let (now, made) = (progress.reduce(0) { $0 + $1.activeUsers }, progress.reduce(0) { $0 + $1.users })
        sum[builtIn.vus] = users.isEmpty ? gauge(now) : users
        sum[builtIn.vusMax] = usersMade.isEmpty ? gauge(made) : usersMade
        return sum
    }

    private func gauge(_ value: Int) -> MetricSink {
        var sink = MetricSink(.gauge)
        sink.add(Double(value))
        return sink
    }

    /// What went wrong, in words, and how often.
    func warnings() -> [String: UInt64] {
        control.snapshots.reduce(into: [:]) { $0.merge($1.warnings) { $0 + $1 } }
    }

    /// What the test came to.
    func result() -> TestResult {
        var result = TestResult(registry: registry, builtIn: builtIn, sinks: sinks())
        for snapshot in control.snapshots { result.checks.add(snapshot.checks) }
        result.series = series()
        if control.startTime != 0 { result.nanoseconds = endTime - min(endTime, control.startTime) }
        return result
    }
}
